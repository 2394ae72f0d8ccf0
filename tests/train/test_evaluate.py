"""Metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from train.evaluate import Labelling, Predictions, evaluate, reference, wilson

TRUTH = np.eye(2, dtype=bool)[[0, 0, 0, 1]]
SCORES = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])


def figures(times: int = 1, *, multi: bool = False) -> dict[str, float]:
    kind: Labelling = "multi_label" if multi else "single_label"
    predictions = Predictions(np.tile(SCORES, (times, 1)), np.tile(TRUTH, (times, 1)), kind)
    return {metric.name: metric.value for metric in evaluate(predictions, ("a", "b"), seed=0)}


def test_accuracy_and_f1_by_hand() -> None:
    found = figures()
    assert found["accuracy"] == 0.75
    assert found["f1/a"] == pytest.approx(4 / 5, abs=1e-4)
    assert found["f1/b"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2, abs=1e-4)


def test_interval_holds_the_value_and_narrows_with_more_texts() -> None:
    few, many = figures(), figures(50)
    for found in (few, many):
        assert found["accuracy_low"] <= 0.75 <= found["accuracy_high"]
    width = many["accuracy_high"] - many["accuracy_low"]
    assert width < few["accuracy_high"] - few["accuracy_low"]


def test_several_labels_count_each_above_one_half() -> None:
    truth = np.array([[True, True], [False, False]])
    predictions = Predictions(np.array([[0.9, 0.6], [0.4, 0.6]]), truth, "multi_label")
    found = {m.name: m.value for m in evaluate(predictions, ("a", "b"), seed=0)}
    assert found["accuracy"] == 0.5
    assert found["f1/a"] == 1.0


def test_reference_counts_every_text_once() -> None:
    predictions = Predictions(SCORES, TRUTH, "single_label")
    looks = reference(predictions, ("a", "b"), token_counts=[3, 4, 20, 512])
    assert looks.texts == 4
    assert looks.labels == {"a": 2, "b": 2}
    counts = dict(zip(looks.tokens.edges, looks.tokens.counts, strict=False))
    assert {edge: count for edge, count in counts.items() if count} == {2: 1, 4: 1, 16: 1, 512: 1}
    assert looks.confidence is not None
    assert sum(looks.confidence.counts) == 4


def test_sixteen_right_of_sixteen_are_no_certainty() -> None:
    truth = np.eye(2, dtype=bool)[[0, 1] * 8]
    predictions = Predictions(truth.astype(float), truth, "single_label")
    found = {m.name: m.value for m in evaluate(predictions, ("a", "b"), seed=0)}
    assert found["accuracy"] == found["macro_f1"] == 1.0
    assert found["accuracy_low"] == pytest.approx(0.8064, abs=1e-4)
    assert found["macro_f1_low"] <= found["accuracy_low"]
    assert found["accuracy_high"] == found["macro_f1_high"] == 1.0


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 10, 0.2366, 0.7634), (0.9, 100, 0.8256, 0.9448), (0.0, 5, 0.0, 0.4345)],
)
def test_wilson_by_hand(share: float, count: int, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=1e-4)


def test_a_class_that_no_text_has_does_not_count() -> None:
    truth = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    predictions = Predictions(truth.astype(float), truth, "single_label")
    found = {m.name: m.value for m in evaluate(predictions, ("a", "b", "c"), seed=0)}
    assert found["macro_f1"] == 1.0
    assert "f1/c" not in found
    assert found["f1/a"] == found["f1/b"] == 1.0
