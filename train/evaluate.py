"""How good a classifier is, with how much doubt, and what its data looked like.

Numbers in, numbers out: knows neither models nor files. N texts, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from serve.artifact import Histogram, Metric, Reference

RESAMPLES = 500
CONFIDENCE_EDGES = tuple(index / 20 for index in range(21))
LENGTH_EDGES = (1.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1e6)

Booleans = NDArray[np.bool_]


def metrics(truth: Booleans, predicted: Booleans, *, seed: int) -> tuple[Metric, ...]:
    """Accuracy (all labels of a text right) and macro F1, with 95 % bootstrap intervals.

    Args:
        truth: Which labels each text has; shape (N, C), N >= 1.
        predicted: Which labels it was given; the same shape.
        seed: Of the resampling.
    """
    return tuple(
        _with_interval(name, measure, truth, predicted, seed)
        for name, measure in (("accuracy", accuracy), ("macro_f1", macro_f1))
    )


def accuracy(truth: Booleans, predicted: Booleans) -> float:
    """Share of texts whose labels are all right."""
    return float((truth == predicted).all(axis=1).mean())


def macro_f1(truth: Booleans, predicted: Booleans) -> float:
    """Mean of the labels' F1; a label that neither occurs nor is given counts as 1."""
    hits = (truth & predicted).sum(axis=0)
    marked = truth.sum(axis=0) + predicted.sum(axis=0)
    return float(np.where(marked == 0, 1.0, 2 * hits / np.maximum(marked, 1)).mean())


def _with_interval(
    name: str,
    measure: Callable[[Booleans, Booleans], float],
    truth: Booleans,
    predicted: Booleans,
    seed: int,
) -> Metric:
    random = np.random.default_rng(seed)
    count = len(truth)
    draws = [random.integers(0, count, count) for _ in range(RESAMPLES)]
    values = [measure(truth[rows], predicted[rows]) for rows in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return Metric(
        name=name,
        value=measure(truth, predicted),
        direction="higher",
        low=float(low),
        high=float(high),
    )


def reference(
    lengths: Sequence[int], labels: Sequence[str], confidence: Sequence[float]
) -> Reference:
    """What the held-out texts looked like, to see drift against.

    Args:
        lengths: Tokens of each text; shape (N,).
        labels: Best label of each; shape (N,).
        confidence: Its score, 0..1; shape (N,).
    """
    return Reference(
        texts=len(lengths),
        tokens=_histogram(lengths, LENGTH_EDGES),
        labels={label: labels.count(label) for label in sorted(set(labels))},
        confidence=_histogram(confidence, CONFIDENCE_EDGES),
    )


def _histogram(values: Sequence[float], edges: tuple[float, ...]) -> Histogram:
    counts, _ = np.histogram(values, bins=np.asarray(edges))
    return Histogram(edges=edges, counts=tuple(int(count) for count in counts))
