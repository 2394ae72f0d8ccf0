"""Evaluation of a classifier on held-out texts, and statistics of these texts.

N texts, C classes. Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.artifact import Histogram, Metric, Reference

THRESHOLD = 0.5
RESAMPLES = 1000
# Between these quantiles are 95 of 100 such test sets.
INTERVAL = (0.025, 0.975)
NORMAL_95 = 1.959964
CONFIDENCE_BINS = 20

Marks = NDArray[np.bool_]
Labelling = Literal["single_label", "multi_label"]


class Predictions(NamedTuple):
    """Scores of a model for texts, and their true labels.

    Attributes:
        scores: Scores in 0..1; shape (N, C).
        truth: True labels; shape (N, C); exactly one True in a row unless multi-label.
        problem_type: Whether only the best class counts, or every one from 0.5 up.
    """

    scores: NDArray[np.float64]
    truth: Marks
    problem_type: Labelling

    def chosen(self) -> Marks:
        """Return the classes that the model predicts; shape (N, C)."""
        if self.problem_type == "multi_label":
            return self.scores >= THRESHOLD
        chosen: Marks = np.eye(self.scores.shape[1], dtype=bool)[self.scores.argmax(axis=1)]
        return chosen


def evaluate(predictions: Predictions, labels: Sequence[str], *, seed: int) -> tuple[Metric, ...]:
    """Measure accuracy and F1.

    Args:
        labels: Labels of class 0, 1, ...; shape (C,).
        seed: Seed of the resampling.
    Returns:
        ``accuracy`` (of multi-label texts: all classes right) and ``macro_f1``, each followed
        by the bounds of its interval ``_low`` and ``_high``; then ``f1/LABEL`` of each label. A
        label that no text has is not measured and not in the mean. The interval of a fraction
        is Wilson's; that of the mean F1 is from resampling and no narrower than Wilson's: 16
        right answers of 16 are no certainty.
    """
    chosen, truth = predictions.chosen(), predictions.truth
    right = (chosen == truth).all(axis=1)  # (N,)
    draws = np.random.default_rng(seed).integers(0, len(truth), size=(RESAMPLES, len(truth)))
    f1_means = np.array([_mean_f1(chosen[rows], truth[rows]) for rows in draws])
    per_label = f1(chosen, truth)  # (C,)
    mean = _mean_f1(chosen, truth)
    low, high = np.quantile(f1_means, INTERVAL)
    least, most = wilson(mean, len(truth))
    values = {
        **_with_interval("accuracy", float(right.mean()), *wilson(float(right.mean()), len(truth))),
        **_with_interval("macro_f1", mean, min(float(low), least), max(float(high), most)),
        **{
            f"f1/{label}": float(value)
            for number, (label, value) in enumerate(zip(labels, per_label, strict=True))
            if truth[:, number].any()
        },
    }
    return tuple(
        Metric(name=name, value=round(value, 4), direction="higher")
        for name, value in values.items()
    )


def f1(chosen: Marks, truth: Marks) -> NDArray[np.float64]:
    """Return the F1 of each class, (N, C) twice to (C,); 0 for one neither predicted nor true."""
    hits = (chosen & truth).sum(axis=0)  # (C,)
    predicted_or_true = chosen.sum(axis=0) + truth.sum(axis=0)  # (C,)
    values: NDArray[np.float64] = 2.0 * hits / np.maximum(predicted_or_true, 1)
    return values


def reference(
    predictions: Predictions, labels: Sequence[str], *, token_counts: Sequence[int]
) -> Reference:
    """Describe the texts and the answers, to detect later drift from them.

    Args:
        labels: Labels of class 0, 1, ...; shape (C,).
        token_counts: Tokens of each text as the model reads it; shape (N,).
    Returns:
        Histograms with the edges of the telemetry: lengths by powers of two, confidence in 20
        equal steps.
    """
    best = predictions.scores.argmax(axis=1)  # (N,)
    counts = np.bincount(best, minlength=len(labels))  # (C,)
    return Reference(
        texts=len(best),
        tokens=_histogram(
            token_counts, [0, *(2**b for b in range(max(token_counts).bit_length() + 1))]
        ),
        labels={label: int(count) for label, count in zip(labels, counts, strict=True)},
        confidence=_histogram(
            predictions.scores.max(axis=1), np.linspace(0, 1, CONFIDENCE_BINS + 1)
        ),
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95% confidence interval of a fraction measured on ``count`` items.

    Source: Wilson, E. B. (1927), Probable inference, the law of succession, and statistical
    inference, JASA 22.
    """
    z2 = NORMAL_95**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    half /= 1 + z2 / count
    return max(0.0, middle - half), min(1.0, middle + half)


def _mean_f1(chosen: Marks, truth: Marks) -> float:
    """Return the mean F1 of the classes that some text has."""
    is_there = truth.any(axis=0)
    return float(f1(chosen, truth)[is_there].mean()) if is_there.any() else 0.0


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _histogram(
    values: Sequence[int] | NDArray[np.float64], edges: Sequence[float] | NDArray[np.float64]
) -> Histogram:
    counts, exact = np.histogram(values, bins=np.asarray(edges, dtype=np.float64))
    return Histogram(edges=tuple(exact.round(6).tolist()), counts=tuple(counts.tolist()))
