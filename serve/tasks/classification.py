"""Conversion of logits to scored labels, best first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.artifact import ProblemType
from serve.tasks.prediction import SCORE_DECIMALS, Prediction


class Classification:
    """Labels with their scores, best first: ``[{"label", "score"}, ...]``.

    Labels with equal scores after rounding are in the order of their classes, so that the
    order does not depend on digits that are not reported.
    """

    def __init__(self, labels: Sequence[str], *, problem_type: ProblemType, precision: str) -> None:
        self._labels = tuple(labels)
        self._scores = softmax if problem_type == "single_label" else sigmoid
        self._decimals = SCORE_DECIMALS[precision]

    def predictions(
        self, outputs: NDArray[np.float32], *, top_k: int | None = None
    ) -> list[Prediction]:
        """Return the best ``top_k`` labels of each item with scores; (N, C) in, N out."""
        scores = self._scores(outputs.astype(np.float64)).round(self._decimals)  # (N, C)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]  # (N, K)
        ranked = np.take_along_axis(scores, order, axis=1)
        return [
            self._prediction(classes, values)
            for classes, values in zip(order.tolist(), ranked.tolist(), strict=True)
        ]

    def _prediction(self, classes: list[int], scores: list[float]) -> Prediction:
        labels = [self._labels[index] for index in classes]
        result = orjson.dumps(
            [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
        )
        return Prediction(result, labels[0], scores[0])


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores that add up to 1 over the classes; shape (N, C) to (N, C)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return total


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an independent score for each class; shape (N, C) to (N, C)."""
    # Unlike 1 / (1 + exp(-x)), the hyperbolic tangent never overflows.
    scores: NDArray[np.float64] = (1.0 + np.tanh(logits / 2.0)) / 2.0
    return scores
