from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve.tasks.classification import Classification, sigmoid, softmax
from serve.tasks.prediction import SCORE_DECIMALS

LABELS = ("negative", "neutral", "positive")
LOGITS = np.array([[0.5, -1.0, 2.0], [3.0, 3.0, -4.0]], dtype=np.float32)


def head(problem_type: str, precision: str = "f32") -> Classification:
    return Classification(LABELS, problem_type=problem_type, precision=precision)


def test_single_label_scores_are_a_softmax_best_first() -> None:
    prediction = head("single_label").predictions(LOGITS)[0]
    expected = (np.exp(LOGITS[0]) / np.exp(LOGITS[0]).sum()).tolist()

    result = orjson.loads(prediction.result)
    assert [item["label"] for item in result] == ["positive", "negative", "neutral"]
    assert [item["score"] for item in result] == pytest.approx(sorted(expected)[::-1], abs=5e-5)
    assert (prediction.label, prediction.confidence) == ("positive", result[0]["score"])


def test_multi_label_scores_are_each_their_own() -> None:
    prediction = head("multi_label").predictions(LOGITS)[0]
    expected = (1 / (1 + np.exp(-LOGITS[0]))).tolist()

    scores = {item["label"]: item["score"] for item in orjson.loads(prediction.result)}
    assert [scores[label] for label in LABELS] == pytest.approx(expected, abs=5e-5)


def test_top_k_are_the_best() -> None:
    many = Classification(
        [f"label {n}" for n in range(12_000)], problem_type="single_label", precision="f32"
    )
    logits = np.zeros((2, 12_000), dtype=np.float32)
    logits[0, [7, 11_999]] = (20.0, 19.0)
    best, other = many.predictions(logits, top_k=100)

    result = orjson.loads(best.result)
    assert [item["label"] for item in result[:3]] == ["label 7", "label 11999", "label 0"]
    assert len(result) == len(orjson.loads(other.result)) == 100
    assert best.label == "label 7"
    assert len(orjson.loads(head("single_label").predictions(LOGITS, top_k=5)[0].result)) == 3


def test_equal_scores_stand_in_the_order_of_the_classes() -> None:
    result = orjson.loads(head("single_label").predictions(LOGITS)[1].result)

    assert [item["label"] for item in result] == ["negative", "neutral", "positive"]


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_scores_have_the_digits_that_the_precision_supports(precision: str) -> None:
    logits = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)

    for prediction in head("single_label", precision).predictions(logits):
        for item in orjson.loads(prediction.result):
            decimals = len(str(item["score"]).partition(".")[2])
            assert decimals <= SCORE_DECIMALS[precision]


@given(
    hnp.arrays(
        np.float32, (3, 3), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
)
def test_any_finite_logits_give_scores_from_0_to_1(logits: np.ndarray) -> None:
    for problem_type in ("single_label", "multi_label"):
        for prediction in head(problem_type).predictions(logits):
            scores = [item["score"] for item in orjson.loads(prediction.result)]
            assert scores == sorted(scores, reverse=True)
            assert all(0.0 <= score <= 1.0 for score in scores)


@pytest.mark.model
def test_softmax_and_sigmoid_are_those_of_torch() -> None:
    import torch

    logits = np.random.default_rng(5).normal(scale=10, size=(20, 5))
    tensor = torch.from_numpy(logits)

    np.testing.assert_allclose(softmax(logits), torch.softmax(tensor, 1), atol=1e-12)
    np.testing.assert_allclose(sigmoid(logits), torch.sigmoid(tensor), atol=1e-12)


def test_no_items_give_no_predictions() -> None:
    assert head("single_label").predictions(np.empty((0, 3), dtype=np.float32)) == []
