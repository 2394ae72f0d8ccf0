"""Whether answers are the same: cosines, tolerances of a precision, and what people would say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from serve.agreement import (
    TOLERANCES,
    Agreement,
    Embedding,
    ScoredLabels,
    ScoreList,
    Structure,
    cosine,
    tolerance_of,
)

F32 = TOLERANCES["f32"]
LABELS, VECTOR, SCORES, STRUCTURE = ScoredLabels(), Embedding(), ScoreList(), Structure()


def scored(**scores: float) -> list[Any]:
    return [{"label": label, "score": score} for label, score in scores.items()]


def of_tokens(*vectors: list[float]) -> dict[str, Any]:
    return {"tokens": ["a"] * len(vectors), "vectors": list(vectors)}


def entity(word: str, score: float, start: int = 3) -> dict[str, Any]:
    return {"word": word, "score": score, "start": start, "inner": [{"at": start}]}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([3, 4], [6, 8], 1.0),
        ([1, 0], [0, 2], 0.0),
        ([1, 2], [-1, -2], -1.0),
        ([1, 0], [1, 1], math.sqrt(0.5)),
        ([0, 0], [1, 1], 0.0),
    ],
)
def test_cosine(ours: list[float], theirs: list[float], expected: float) -> None:
    assert cosine(ours, theirs) == pytest.approx(expected)


def test_vectors_of_other_lengths_have_the_cosine_0() -> None:
    assert cosine([1.0, 0.0], [1.0]) == 0.0


@pytest.mark.parametrize(
    ("agreement", "found", "expected", "described"),
    [
        (LABELS, scored(a=0.905, b=0.095), scored(a=0.9, b=0.1), None),
        (LABELS, scored(a=0.88, b=0.12), scored(a=0.9, b=0.1), "'a' scores 0.88, expected 0.9"),
        (LABELS, scored(b=1.0), scored(a=0.9), "the label 'a' is missing"),
        (LABELS, [], [], None),
        # Numbers of a regression have any size.
        (LABELS, scored(price=454.0), scored(price=450.0), None),
        (
            LABELS,
            scored(price=-455.0),
            scored(price=-450.0),
            "'price' scores -455.0, expected -450.0",
        ),
        (VECTOR, [1.0, 0.01], [1.0, 0.0], None),
        (VECTOR, [1.0, 0.1], [1.0, 0.0], "its cosine to the reference is 0.9950"),
        (VECTOR, [1.0], [1.0, 0.0], "it has 1 numbers, expected 2"),
        (VECTOR, of_tokens([1.0, 0.01], [0.0, 2.0]), of_tokens([1.0, 0.0], [0.0, 2.0]), None),
        (
            VECTOR,
            of_tokens([1.0, 0.0], [0.0, 1.0]),
            of_tokens([1.0, 0.0], [0.0, -1.0]),
            "its cosine to the reference is 0.0000",
        ),
        (VECTOR, of_tokens([1.0]), of_tokens([1.0], [1.0]), "it has 1 numbers, expected 2"),
        (SCORES, [0.9, 0.1], [0.905, 0.1], None),
        (SCORES, [0.9, 0.1], [0.9, 0.2], "element 1 of the result is 0.1, expected 0.2"),
        (SCORES, [0.9], [0.9, 0.2], "the result has 1 elements, expected 2"),
        (STRUCTURE, [entity("Paris", 0.905)], [entity("Paris", 0.9)], None),
        (
            STRUCTURE,
            [entity("Paris", 0.9)],
            [entity("Rome", 0.9)],
            "word of element 0 of the result is 'Paris', expected 'Rome'",
        ),
        (
            STRUCTURE,
            [entity("Paris", 0.88)],
            [entity("Paris", 0.9)],
            "score of element 0 of the result is 0.88, expected 0.9",
        ),
        # A place is a whole number, for which no tolerance applies.
        (
            STRUCTURE,
            [entity("Paris", 0.9, start=4)],
            [entity("Paris", 0.9, start=3)],
            "start of element 0 of the result is 4, expected 3",
        ),
        (STRUCTURE, {"a": 1}, {"b": 1}, "the result has a, expected b"),
        (STRUCTURE, [], [entity("Paris", 0.9)], "the result has 0 elements, expected 1"),
        (STRUCTURE, None, "x", "the result is None, expected 'x'"),
        # JSON writes a score of exactly one as a whole number in some languages.
        (STRUCTURE, [1], [1.0], None),
    ],
)
def test_a_difference_is_described(
    agreement: Agreement, found: Any, expected: Any, described: str | None
) -> None:
    assert agreement.difference(found, expected, F32) == described


def test_a_text_between_two_labels_may_have_either() -> None:
    expected = scored(a=0.505, b=0.495)
    assert LABELS.same_best(scored(b=0.51, a=0.49), expected, F32)
    assert not LABELS.same_best(scored(b=0.9, a=0.1), scored(a=0.9, b=0.1), F32)
    assert not LABELS.same_best([], expected, F32)
    assert not LABELS.same_best(expected, [], F32)
    assert LABELS.same_best([], [], F32)


def test_the_score_of_an_only_label_is_the_answer() -> None:
    assert LABELS.same_best(scored(price=458.0), scored(price=450.0), F32)
    assert not LABELS.same_best(scored(price=460.0), scored(price=450.0), F32)
    assert not LABELS.same_best(scored(b=0.9), scored(a=0.9), F32)
    assert not LABELS.same_best(scored(a=0.1), scored(a=0.9), F32)


def test_the_best_answer_of_other_shapes_is_compared() -> None:
    assert VECTOR.same_best([1.0, 0.01], [1.0, 0.0], F32)
    assert not VECTOR.same_best([1.0, 0.1], [1.0, 0.0], F32)
    assert VECTOR.same_best(of_tokens([1.0, 0.01]), of_tokens([1.0, 0.0]), F32)
    assert not VECTOR.same_best(of_tokens([1.0, 0.1]), of_tokens([1.0, 0.0]), F32)

    assert SCORES.same_best([0.51, 0.49], [0.495, 0.505], F32)
    assert not SCORES.same_best([0.9, 0.1], [0.1, 0.9], F32)
    assert not SCORES.same_best([0.9], [0.9, 0.1], F32)

    first, second = entity("Paris", 0.9), entity("Rome", 0.8)
    assert STRUCTURE.same_best([first, second], [entity("Paris", 0.1)], F32)
    assert not STRUCTURE.same_best([second, first], [first, second], F32)
    assert not STRUCTURE.same_best([], [first], F32)
    assert STRUCTURE.same_best({"answer": "x", "score": 0.5}, {"answer": "x", "score": 0.9}, F32)
    assert not STRUCTURE.same_best({"answer": "x"}, {"answer": "y"}, F32)


def test_an_unknown_precision_is_the_loosest() -> None:
    assert tolerance_of("f8") == TOLERANCES["bf16"]


@pytest.mark.parametrize(
    ("agreement", "before", "after", "same"),
    [
        (LABELS, scored(a=0.9, b=0.1), scored(a=0.85, b=0.15), True),
        (LABELS, scored(a=0.9, b=0.1), scored(a=0.75, b=0.25), False),
        (LABELS, scored(a=0.52, b=0.48), scored(b=0.52, a=0.48), False),
        (LABELS, scored(a=0.9, b=0.52), scored(a=0.9, b=0.48), False),
        (LABELS, [], [], True),
        (LABELS, [], scored(a=0.1), False),
        (VECTOR, [1.0, 0.0], [1.0, 0.1], True),
        (VECTOR, [1.0, 0.0], [0.0, 1.0], False),
        (VECTOR, [0.0, 0.0], [0.0, 0.0], True),
        (VECTOR, [1.0, 0.0], scored(a=0.9), False),
        (VECTOR, of_tokens([1.0, 0.0]), of_tokens([1.0, 0.1]), True),
        (VECTOR, of_tokens([1.0, 0.0]), of_tokens([0.0, 1.0]), False),
        (SCORES, [0.9, 0.1], [0.85, 0.15], True),
        (SCORES, [0.9, 0.1], [0.75, 0.1], False),
        (STRUCTURE, [entity("Paris", 0.9)], [entity("Paris", 0.85)], True),
        (STRUCTURE, [entity("Paris", 0.9)], [entity("Paris", 0.75)], False),
        (STRUCTURE, [entity("Paris", 0.9)], [entity("Paris", 0.9, start=4)], False),
    ],
)
def test_what_people_would_call_the_same(
    agreement: Agreement, before: Any, after: Any, same: bool
) -> None:
    assert agreement.same_for_people(before, after) is same


@pytest.mark.parametrize(
    ("agreement", "result", "answer"),
    [
        (LABELS, scored(a=0.9, b=0.1), "a"),
        (LABELS, scored(price=449.96), "price 450.0"),
        (LABELS, [], "nothing"),
        (VECTOR, [1.0, 0.0], "2 numbers"),
        (VECTOR, of_tokens([1.0, 0.0], [1.0, 0.0]), "4 numbers"),
        (SCORES, [0.1, 0.9], "text 1"),
        (SCORES, [], "nothing"),
        (
            STRUCTURE,
            [entity("Paris", 0.9)],
            '[{"word":"Paris","start":3,"inner":[{"at":3}]}]',
        ),
        (STRUCTURE, [0.5, [0.25, "x"]], '[["x"]]'),
    ],
)
def test_an_answer_is_the_result_without_its_scores(
    agreement: Agreement, result: Any, answer: str
) -> None:
    assert agreement.answer(result) == answer


def test_only_embeddings_have_a_cosine() -> None:
    assert VECTOR.cosine([3.0, 4.0], [6.0, 8.0]) == pytest.approx(1.0)
    assert VECTOR.cosine(of_tokens([3.0, 4.0]), of_tokens([6.0, 8.0])) == pytest.approx(1.0)
    assert LABELS.cosine(scored(a=0.9), scored(a=0.9)) is None
    assert SCORES.cosine([0.9], [0.9]) is None
    assert STRUCTURE.cosine([], []) is None


def test_only_number_of_a_regression_is_its_answer() -> None:
    agreement, tolerance = ScoredLabels(), TOLERANCES["bf16"]
    expected = [{"label": "stars", "score": 4.2}]
    near, far = [{"label": "stars", "score": 4.3}], [{"label": "stars", "score": 1.1}]

    assert agreement.same_best(near, expected, tolerance)
    assert agreement.difference(near, expected, tolerance) is None
    assert not agreement.same_best(far, expected, tolerance)
    assert agreement.difference(far, expected, tolerance) is not None
    assert agreement.answer(expected) == "stars 4.2" != agreement.answer(far)
