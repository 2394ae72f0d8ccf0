"""Metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from train.evaluate import accuracy, macro_f1, metrics, reference

TRUTH = np.eye(2, dtype=bool)[[0, 0, 0, 1]]
PREDICTED = np.eye(2, dtype=bool)[[0, 0, 1, 1]]


def test_accuracy_and_macro_f1_by_hand() -> None:
    assert accuracy(TRUTH, PREDICTED) == 0.75
    assert macro_f1(TRUTH, PREDICTED) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_label_that_nobody_has_counts_as_right() -> None:
    nobody = np.zeros((3, 1), dtype=bool)
    assert macro_f1(nobody, nobody) == 1.0


def test_interval_holds_the_value_and_narrows_with_more_texts() -> None:
    few, _ = metrics(TRUTH, PREDICTED, seed=0)
    many, _ = metrics(np.tile(TRUTH, (50, 1)), np.tile(PREDICTED, (50, 1)), seed=0)
    for metric in (few, many):
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low <= metric.value == 0.75 <= metric.high
    assert many.high - many.low < few.high - few.low  # type: ignore[operator]


def test_reference_counts_every_text_once() -> None:
    looks = reference([3, 20, 300], ["a", "b", "a"], [0.5, 0.99, 1.0])
    assert looks.texts == sum(looks.tokens.counts) == 3
    assert looks.labels == {"a": 2, "b": 1}
    assert looks.confidence is not None
    assert sum(looks.confidence.counts) == 3
