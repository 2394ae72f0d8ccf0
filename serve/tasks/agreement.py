"""Whether two answers are the same, and how far they may differ. Pure, without numpy.

All tolerances of the project are in this file, except those that a policy names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple


class Tolerance(NamedTuple):
    """What the same model may differ by on another machine.

    Attributes:
        score: Of a label, absolute.
        cosine: Of an embedding, below 1.
    """

    score: float
    cosine: float


# Above what was seen between float32 and the precision (0.003 of a score in bf16), and far
# below what another model would answer.
TOLERANCES: Final[Mapping[str, Tolerance]] = {
    "f32": Tolerance(0.01, 0.001),
    "f16": Tolerance(0.03, 0.005),
    "bf16": Tolerance(0.06, 0.01),
}
LOOSEST: Final = "bf16"
# Two versions agree on a text: an embedding from this cosine on, scores up to this shift.
SAME_COSINE: Final = 0.99
SAME_SCORE_SHIFT: Final = 0.1
# A label of several at a time is given from this score on.
LABEL_THRESHOLD: Final = 0.5


def tolerance_of(precision: str) -> Tolerance:
    """Of a precision; an unknown one has the loosest."""
    return TOLERANCES.get(precision, TOLERANCES[LOOSEST])


def cosine(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Cosine of two embeddings, -1 to 1; 0 where lengths differ or one of them is zero."""
    norms = math.hypot(*ours) * math.hypot(*theirs)
    if not norms or len(ours) != len(theirs):
        return 0.0
    dot = math.fsum(p * q for p, q in zip(ours, theirs, strict=True))
    return max(-1.0, min(1.0, dot / norms))


def difference(found: list[Any], expected: list[Any], tolerance: Tolerance) -> str | None:
    """In words, how an answer of a model differs from its own of before; None where it does not.

    Args:
        found: A result: scored labels, best first, or an embedding.
        expected: Of the same text.
    """
    if isinstance(expected[0], dict):
        scores = _scores(found)
        for item in expected:
            score = scores.get(item["label"])
            if score is None:
                return f"there is no label {item['label']!r}"
            if abs(score - item["score"]) > tolerance.score:
                return f"{item['label']!r} scores {score} and scored {item['score']}"
        return None
    if len(found) != len(expected):
        return f"it has {len(found)} numbers and had {len(expected)}"
    near = cosine(found, expected)
    return None if near >= 1.0 - tolerance.cosine else f"the cosine to the former is {near:.4f}"


def same_best(found: list[Any], expected: list[Any], tolerance: Tolerance) -> bool:
    """Whether the best label, or the embedding, is that of before.

    A text between two labels may have either.
    """
    if isinstance(expected[0], dict):
        least = expected[0]["score"] - 2 * tolerance.score
        return bool(found) and _scores(expected).get(found[0]["label"], -1.0) >= least
    return cosine(found, expected) >= 1.0 - tolerance.cosine


def same_for_people(before: list[Any], after: list[Any]) -> bool:
    """Whether two versions answer a text alike: the same labels with about the same scores.

    Training again moves every score a little.
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
    """The best label, and with several at a time every one above the threshold."""
    likely = {label for label, score in scores.items() if score >= LABEL_THRESHOLD}
    return likely | {max(scores, key=scores.__getitem__)}
