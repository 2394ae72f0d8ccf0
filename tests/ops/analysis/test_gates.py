"""Gates: each outcome and the sentence that goes with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.analysis.gates import GateResult, GoldenCase, golden_case, judge_card, judge_golden
from ops.policy.policy import GoldenGate, MetricGate, Policy
from serve.agreement import Embedding, ScoredLabels, Structure
from serve.artifact import GoldenRecord, Metric, ModelCard
from serve.embedding import EmbeddingHead, Pooling
from serve.tasks.text_classification import ClassificationHead


def card(labels: tuple[str, ...] = ("negative", "positive"), **figures: float) -> ModelCard:
    return ModelCard(
        task="text-classification",
        head=ClassificationHead(labels=labels, problem_type="single_label"),
        max_length=128,
        metrics=tuple(
            Metric(
                name=name.replace("__", "/"),
                value=value,
                direction="lower" if name == "loss" else "higher",
            )
            for name, value in figures.items()
        ),
    )


def metric_result(gate: MetricGate, candidate: ModelCard, live: ModelCard | None) -> GateResult:
    return judge_card(Policy(model="m", gates=(gate,)), candidate, live)[1]


ACCURACY = MetricGate(metric="accuracy", direction="higher", at_least=0.85, not_worse_by=0.01)
LOSS = MetricGate(metric="loss", direction="lower", at_most=0.5, not_worse_by=0.1)


@pytest.mark.parametrize(
    ("value", "live", "passed", "words"),
    [
        (0.90, 0.90, True, "at least 0.85; not worse than the live version's 0.9."),
        (0.85, 0.86, True, "0.01 worse than the live version's 0.86; up to 0.01 is allowed"),
        (0.85, 0.87, False, "0.02 worse than the live version's 0.87"),
        (0.84, 0.80, False, "below 0.85; not worse"),
        (0.90, None, True, "there is no live version to compare with"),
        (0.84, None, False, "below 0.85"),
    ],
)
def test_higher_is_better(value: float, live: float | None, passed: bool, words: str) -> None:
    before = None if live is None else card(accuracy=live)
    result = metric_result(ACCURACY, card(accuracy=value), before)
    assert (result.passed, words in result.sentence) == (passed, True), result.sentence
    assert result.evidence["candidate"] == value
    assert result.evidence.get("live") == live


@pytest.mark.parametrize(
    ("value", "live", "passed", "words"),
    [
        (0.50, 0.50, True, "at most 0.5; not worse"),
        (0.30, 0.20, True, "0.1 worse"),
        (0.40, 0.20, False, "0.2 worse"),
        (0.60, 0.90, False, "above 0.5; not worse"),
    ],
)
def test_lower_is_better(value: float, live: float, passed: bool, words: str) -> None:
    result = metric_result(LOSS, card(loss=value), card(loss=live))
    assert (result.passed, words in result.sentence) == (passed, True), result.sentence


def test_figure_that_is_not_there_fails_with_those_that_are() -> None:
    result = metric_result(ACCURACY, card(macro_f1=0.9, f1__positive=0.8), None)
    assert not result.passed
    assert "has no accuracy; it has macro_f1, f1/positive" in result.sentence


def test_slice_is_a_figure_named_behind_a_slash() -> None:
    gate = MetricGate(metric="accuracy", slice="short", direction="higher", at_least=0.5)
    result = metric_result(gate, card(accuracy=0.9, accuracy__short=0.4), None)
    assert (result.name, result.passed) == ("metric accuracy/short", False)


def test_figure_that_the_live_version_has_not() -> None:
    result = metric_result(ACCURACY, card(accuracy=0.9), card(macro_f1=0.9))
    assert result.passed
    assert "no accuracy of the live version to compare with" in result.sentence


def test_direction_of_card_and_policy_must_be_one() -> None:
    gate = MetricGate(metric="loss", direction="higher", at_least=0.1)
    result = metric_result(gate, card(loss=0.9), None)
    assert not result.passed
    assert "that lower loss is better, but the policy that higher is" in result.sentence


def cases(
    right: int, wrong: int, *, live_right: int | None = None, exact: bool = False
) -> list[GoldenCase]:
    return [
        GoldenCase(
            *(f"text {i}", "positive", "positive" if i < right else "negative", i < right),
            *(None if live_right is None else i < live_right, exact),
        )
        for i in range(right + wrong)
    ]


@pytest.mark.parametrize(
    ("gate", "golden", "passed", "words"),
    [
        (GoldenGate(), [], True, "so nothing was compared"),
        (GoldenGate(min_agreement=0.5), [], False, "train the version with --golden FILE"),
        (GoldenGate(), cases(0, 10), True, "0.0% are answered as expected; none is marked exact"),
        (GoldenGate(min_agreement=0.9), cases(9, 1), True, "Of 10 golden texts 90.0%"),
        (GoldenGate(min_agreement=0.9), cases(8, 2), False, "80.0% are answered as expected, but"),
        (GoldenGate(not_worse_by=0.1), cases(8, 2, live_right=9), True, "the live version has 90"),
        (GoldenGate(not_worse_by=0.1), cases(7, 3, live_right=9), False, "only 10.0% less"),
        (GoldenGate(not_worse_by=0.1), cases(7, 3), True, "no live version to compare with"),
        (GoldenGate(), cases(5, 0, exact=True), True, "all 5 exact ones are right"),
        (GoldenGate(), cases(4, 1, exact=True), False, "'text 4' as negative instead of positive"),
        (GoldenGate(), cases(0, 5, exact=True), False, "5 of 5 exact ones are wrong"),
        (GoldenGate(exact=False), cases(0, 5, exact=True), True, "exact ones are not required"),
    ],
)
def test_golden_set(gate: GoldenGate, golden: list[GoldenCase], passed: bool, words: str) -> None:
    result = judge_golden(gate, golden)
    assert (result.passed, words in result.sentence) == (passed, True), result.sentence


def test_only_texts_that_the_live_version_was_asked_are_compared_with_it() -> None:
    golden = [*cases(1, 1, live_right=1), *cases(0, 8)]
    assert judge_golden(GoldenGate(not_worse_by=0.0), golden).passed


def recorded(result: Any, text: str = "a fine day") -> GoldenRecord:
    return GoldenRecord(record={"text": text}, result=result, exact=text == "a fine day")


LABELLED = recorded([{"label": "good", "score": 0.9}, {"label": "bad", "score": 0.1}])
EMBEDDED = recorded([0.6, 0.8, 0.0])


@pytest.mark.parametrize(
    ("answer", "said", "agrees"),
    [
        (b'[{"label": "good", "score": 0.6}, {"label": "bad", "score": 0.4}]', "good", True),
        (b'[{"label": "bad", "score": 0.9}, {"label": "good", "score": 0.1}]', "bad", False),
        (None, "nothing", False),
    ],
)
def test_label_agrees_when_it_is_the_same(answer: bytes | None, said: str, agrees: bool) -> None:
    case = golden_case(LABELLED, answer, GoldenGate(), agreement=ScoredLabels(), has_live=True)
    assert case == GoldenCase("a fine day", "good", said, agrees, True, True)


@pytest.mark.parametrize(
    ("answer", "min_cosine", "near", "agrees"),
    [
        (b"[0.6, 0.8, 0.0]", 0.99, 1.0, True),
        (b"[3.0, 4.0, 0.1]", 0.99, 0.9998, True),
        (b"[0.8, 0.6, 0.0]", 0.99, 0.96, False),
        (b"[0.8, 0.6, 0.0]", 0.95, 0.96, True),
        (b"[-0.6, -0.8, 0.0]", 0.5, -1.0, False),
        (b"[0.0, 0.0, 0.0]", 0.5, 0.0, False),
        # Another dimension, even if the numbers begin alike.
        (b"[0.6, 0.8]", 0.5, 0.0, False),
        (b"[0.6, 0.8, 0.0, 0.0]", 0.5, 0.0, False),
        (None, 0.5, None, False),
    ],
)
def test_embedding_agrees_when_its_cosine_is_large_enough(
    answer: bytes | None, min_cosine: float, near: float | None, agrees: bool
) -> None:
    gate = GoldenGate(min_cosine=min_cosine)
    case = golden_case(EMBEDDED, answer, gate, agreement=Embedding(), has_live=False)
    assert (case.agrees, case.live_agrees, case.exact) == (agrees, None, True)
    assert case.cosine == (None if near is None else pytest.approx(near, abs=1e-4))


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [
        (b'{"score": 0.4, "start": 10, "end": 15, "answer": "Paris"}', True),
        (b'{"score": 0.9, "start": 10, "end": 14, "answer": "Pari"}', False),
        (b'{"score": 0.9, "start": 0, "end": 0, "answer": ""}', False),
        (None, False),
    ],
)
def test_other_answers_agree_when_all_but_the_scores_is_the_same(
    answer: bytes | None, agrees: bool
) -> None:
    record = recorded({"score": 0.9, "start": 10, "end": 15, "answer": "Paris"})
    case = golden_case(record, answer, GoldenGate(), agreement=Structure(), has_live=True)
    assert (case.agrees, case.cosine) == (agrees, None)
    assert case.expected == '{"start":10,"end":15,"answer":"Paris"}'


def test_sentence_shows_only_the_start_of_long_answers() -> None:
    record = recorded({"answer": "x" * 100_000})
    case = golden_case(record, b"{}", GoldenGate(), agreement=Structure(), has_live=True)
    sentence = judge_golden(GoldenGate(), [case]).sentence
    assert "xxx..." in sentence
    assert len(sentence) < 500


def test_sentence_names_the_embedding_that_is_furthest_away() -> None:
    gate = GoldenGate(min_agreement=0.6)
    answers = {"one": b"[0.6, 0.8, 0.0]", "two": b"[0.8, 0.6, 0.0]", "three": b"[0.7, 0.7, 0.0]"}
    near = [
        golden_case(
            recorded([0.6, 0.8, 0.0], text), answer, gate, agreement=Embedding(), has_live=True
        )
        for text, answer in answers.items()
    ]
    result = judge_golden(gate, near)
    assert not result.passed
    assert result.evidence["agreement"] == pytest.approx(1 / 3)
    assert result.evidence["lowest_cosine"] == pytest.approx(0.96)
    assert result.sentence == (
        "Of 3 golden texts 33.3% are answered as expected, but 60.0% must be; none is marked "
        "exact; furthest is 'two', 3 numbers at a cosine of 0.9600 where 3 numbers were expected; "
        "0.99 or more agrees."
    )
    assert judge_golden(GoldenGate(min_agreement=0.3), near).passed


def test_exact_embedding_of_another_dimension_fails_whatever_share_is_asked_for() -> None:
    gate = GoldenGate()
    case = golden_case(EMBEDDED, b"[0.6, 0.8]", gate, agreement=Embedding(), has_live=True)
    result = judge_golden(GoldenGate(), [case])
    assert not result.passed
    assert "'a fine day' as 2 numbers at a cosine of 0.0000 instead of 3 numbers" in result.sentence


@pytest.mark.parametrize("labels", ["same", "may-change"])
def test_labels_that_differ(labels: str) -> None:
    policy = Policy(model="m", labels=labels)  # type: ignore[arg-type]
    result = judge_card(policy, card(labels=("negative", "neutral")), card())[0]
    assert result.passed == (labels == "may-change")
    assert "new are neutral and removed are positive" in result.sentence


def test_order_of_labels_does_not_matter() -> None:
    assert judge_card(Policy(model="m"), card(), card(labels=("positive", "negative")))[0].passed


def test_first_version_may_have_any_labels() -> None:
    assert judge_card(Policy(model="m"), card(), None)[0].passed


def test_another_task_is_refused_whatever_the_policy_says() -> None:
    head = EmbeddingHead(pooling=Pooling())
    embedding = ModelCard(task="feature-extraction", head=head, max_length=128)
    result = judge_card(Policy(model="m", labels="may-change"), embedding, card())[0]
    assert not result.passed
    assert "does feature-extraction but the live one text-classification" in result.sentence


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_directions_mirror_each_other(
    value: float, live: float, bound: float, allowed: float
) -> None:
    up = MetricGate(metric="x", direction="higher", at_least=bound, not_worse_by=allowed)
    down = MetricGate(metric="loss", direction="lower", at_most=-bound, not_worse_by=allowed)
    higher = metric_result(up, card(x=value), card(x=live))
    lower = metric_result(down, card(loss=-value), card(loss=-live))
    assert higher.passed == lower.passed
    assert json.loads(json.dumps(dict(higher.evidence))) == higher.evidence
