"""Whether answers are the same: cosines, tolerances of a precision, and what people would say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from serve.tasks.agreement import (
    TOLERANCES,
    cosine,
    difference,
    same_best,
    same_for_people,
    tolerance_of,
)

F32 = TOLERANCES["f32"]


def scored(**scores: float) -> list[Any]:
    return [{"label": label, "score": score} for label, score in scores.items()]


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
    ("found", "expected", "said"),
    [
        (scored(a=0.905, b=0.095), scored(a=0.9, b=0.1), None),
        (scored(a=0.88, b=0.12), scored(a=0.9, b=0.1), "'a' scores 0.88, expected 0.9"),
        (scored(b=1.0), scored(a=0.9), "the label 'a' is missing"),
        ([1.0, 0.01], [1.0, 0.0], None),
        ([1.0, 0.1], [1.0, 0.0], "its cosine to the reference is 0.9950"),
        ([1.0], [1.0, 0.0], "it has 1 numbers, expected 2"),
    ],
)
def test_a_difference_is_told(found: list[Any], expected: list[Any], said: str | None) -> None:
    assert difference(found, expected, F32) == said


def test_a_text_between_two_labels_may_have_either() -> None:
    expected = scored(a=0.505, b=0.495)
    assert same_best(scored(b=0.51, a=0.49), expected, F32)
    assert not same_best(scored(b=0.9, a=0.1), scored(a=0.9, b=0.1), F32)
    assert not same_best([], expected, F32)


def test_an_unknown_precision_is_the_loosest() -> None:
    assert tolerance_of("f8") == TOLERANCES["bf16"]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (scored(a=0.9, b=0.1), scored(a=0.85, b=0.15), True),
        (scored(a=0.9, b=0.1), scored(a=0.75, b=0.25), False),
        (scored(a=0.52, b=0.48), scored(b=0.52, a=0.48), False),
        (scored(a=0.9, b=0.52), scored(a=0.9, b=0.48), False),
        ([1.0, 0.0], [1.0, 0.1], True),
        ([1.0, 0.0], [0.0, 1.0], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([1.0, 0.0], scored(a=0.9), False),
    ],
)
def test_what_people_would_call_the_same(before: list[Any], after: list[Any], same: bool) -> None:
    assert same_for_people(before, after) is same
