"""Comparison of two answers within tolerances. Pure, without numpy.

All tolerances of the project are in this file, except those that a policy sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple


class Tolerance(NamedTuple):
    """Allowed differences between answers of the same model on different machines.

    Attributes:
        score: Allowed difference of a label's score, absolute.
        cosine: Allowed distance of an embedding's cosine from 1.
    """

    score: float
    cosine: float


# Above the differences measured against float32 (0.003 of a score in bf16), and far below those
# of another model.
TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "f32": Tolerance(0.01, 0.001),
    "f16": Tolerance(0.03, 0.005),
    "bf16": Tolerance(0.06, 0.01),
}
LOOSEST: Final = "bf16"
# Two versions agree on a text with at least this cosine, or at most this shift of any score.
SAME_COSINE: Final = 0.99
SAME_SCORE_SHIFT: Final = 0.1
# In a multi-label result, a label counts as assigned from this score up.
LABEL_THRESHOLD: Final = 0.5


def tolerance_of(precision: str) -> Tolerance:
    """Return the tolerance of a precision; the loosest for an unknown one."""
    return TOLERANCES.get(precision, TOLERANCES[LOOSEST])


def cosine(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the cosine of two embeddings, -1 to 1; 0 where lengths differ or one is zero."""
    norms = math.hypot(*ours) * math.hypot(*theirs)
    if not norms or len(ours) != len(theirs):
        return 0.0
    dot = math.fsum(p * q for p, q in zip(ours, theirs, strict=True))
    return max(-1.0, min(1.0, dot / norms))


def difference(found: list[Any], expected: list[Any], tolerance: Tolerance) -> str | None:
    """Describe how a model's answer differs from the expected one; None where it does not.

    Args:
        found: A result: scored labels, best first, or an embedding.
        expected: Expected result for the same text.
    """
    if isinstance(expected[0], dict):
        scores = _scores(found)
        for item in expected:
            score = scores.get(item["label"])
            if score is None:
                return f"the label {item['label']!r} is missing"
            if abs(score - item["score"]) > tolerance.score:
                return f"{item['label']!r} scores {score}, expected {item['score']}"
        return None
    if len(found) != len(expected):
        return f"it has {len(found)} numbers, expected {len(expected)}"
    near = cosine(found, expected)
    return None if near >= 1.0 - tolerance.cosine else f"its cosine to the reference is {near:.4f}"


def same_best(found: list[Any], expected: list[Any], tolerance: Tolerance) -> bool:
    """Return whether the best label, or the embedding, is the expected one.

    For a text between two labels, either is accepted.
    """
    if isinstance(expected[0], dict):
        least = expected[0]["score"] - 2 * tolerance.score
        return bool(found) and _scores(expected).get(found[0]["label"], -1.0) >= least
    return cosine(found, expected) >= 1.0 - tolerance.cosine


def same_for_people(before: list[Any], after: list[Any]) -> bool:
    """Return whether two versions give a text the same labels with about the same scores.

    Retraining moves every score a little.
    """
    if isinstance(before[0], dict) != isinstance(after[0], dict):
        return False
    if not isinstance(before[0], dict):
        return before == after or cosine(before, after) >= SAME_COSINE
    first, second = _scores(before), _scores(after)
    shift = max(abs(score - second.get(label, 0.0)) for label, score in first.items())
    return _given(first) == _given(second) and shift <= SAME_SCORE_SHIFT


def _scores(answer: list[dict[str, Any]]) -> dict[str, float]:
    return {item["label"]: item["score"] for item in answer}


def _given(scores: dict[str, float]) -> set[str]:
    """Return the best label, and every other one from the threshold up."""
    likely = {label for label, score in scores.items() if score >= LABEL_THRESHOLD}
    return likely | {max(scores, key=scores.__getitem__)}
