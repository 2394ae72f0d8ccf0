"""A candidate beside the live version: what counts as the same, and that windows add up."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import strategies as st

from serve.contract import Answer, Failure, FailureKind, Outcome
from stream.comparison import MAX_LABELS, MAX_SAMPLES, Comparison
from stream.schema import ComparisonRecord
from tests.stream.records import PlainRecord

FAILED = Failure(FailureKind.POISON, "no")


def labelled(label: str, score: float = 0.9) -> Answer:
    return Answer(b"[]", None, label, score, 3, False)


def unlabelled(result: object) -> Answer:
    return Answer(orjson.dumps(result), None, None, None, 3, False)


def compared(
    *pairs: tuple[Outcome, Outcome], task: str = "text-classification"
) -> ComparisonRecord:
    comparison = Comparison()
    records = [PlainRecord(offset=i) for i in range(len(pairs))]
    comparison.observe_answers(records, [a for a, _ in pairs], [b for _, b in pairs], task=task)
    return record_of(comparison)


def record_of(comparison: Comparison) -> ComparisonRecord:
    return comparison.to_record(
        pipeline="p", consumer=0, model="m", live="1", candidate="2", start_ms=1, end_ms=2
    )


def test_labels_agree_when_equal_whatever_their_score() -> None:
    found = compared(
        (labelled("a", 0.9), labelled("a", 0.6)),
        (labelled("a"), labelled("b")),
        (labelled("b"), FAILED),
    )
    assert (found.compared, found.agreed, found.failed) == (3, 1, 1)
    assert found.matrix == {"a": {"a": 1, "b": 1}}
    (sample,) = found.samples
    assert (sample.offset, sample.live, sample.candidate) == (1, "a", "b")


def test_what_is_wrong_with_the_record_says_nothing() -> None:
    empty = Failure(FailureKind.EMPTY_TEXT, "empty")
    found = compared((empty, empty), (FAILED, FAILED))
    assert (found.compared, found.failed, found.live_failed) == (0, 0, 0)


def test_a_record_that_the_live_version_alone_fails_on_speaks_for_the_candidate() -> None:
    found = compared((FAILED, labelled("a")), (labelled("a"), labelled("a")))
    assert (found.compared, found.agreed, found.live_failed) == (1, 1, 1)


@pytest.mark.parametrize(
    ("candidate", "agrees"),
    [((1.0, 0.0), True), ((2.0, 0.01), True), ((0.0, 1.0), False), ((1.0,), False), ((), False)],
)
def test_embeddings_agree_when_they_point_the_same_way(
    candidate: tuple[float, ...], agrees: bool
) -> None:
    live = unlabelled([1.0, 0.0])
    found = compared((live, unlabelled(candidate)), task="feature-extraction")
    assert found.agreed == agrees


@pytest.mark.parametrize(
    ("candidate", "agrees"),
    [([0.9, 0.2], True), ([0.85, 0.25], True), ([0.45, 0.1], False), ([0.9], False)],
)
def test_scores_of_several_texts_are_no_embedding(candidate: list[float], agrees: bool) -> None:
    live = unlabelled([0.9, 0.2])
    found = compared((live, unlabelled(candidate)), task="sentence-similarity")
    assert found.agreed == agrees


@pytest.mark.parametrize(
    ("word", "score", "agrees"),
    [("Paris", 0.98, True), ("Paris", 0.7, False), ("Lyon", 0.9, False)],
)
def test_entities_agree_when_only_their_scores_moved_a_little(
    word: str, score: float, agrees: bool
) -> None:
    def entities(word: str, score: float) -> Answer:
        place = {"entity_group": "LOC", "start": 3, "end": 3 + len(word)}
        return unlabelled([{**place, "word": word, "score": score}])

    found = compared((entities("Paris", 0.9), entities(word, score)), task="token-classification")
    assert found.agreed == agrees
    assert [sample.live for sample in found.samples] == ([] if agrees else ["(none)"])


def test_the_record_stays_small_whatever_the_model_does() -> None:
    pairs = [(labelled(f"a{i}"), labelled(f"b{i}")) for i in range(3 * MAX_LABELS)]
    found = compared(*pairs)
    assert len(found.matrix) == MAX_LABELS + 1
    assert sum(sum(row.values()) for row in found.matrix.values()) == 3 * MAX_LABELS
    assert len(found.samples) == MAX_SAMPLES


def test_a_lost_batch_counts_its_answers_as_failed() -> None:
    comparison = Comparison()
    comparison.observe_loss([labelled("a"), FAILED])
    found = record_of(comparison)
    assert (found.compared, found.failed) == (1, 1)


OUTCOMES = st.sampled_from([labelled("a"), labelled("b"), FAILED])
