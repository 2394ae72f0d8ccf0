"""Comparison of two answers within tolerances, for each shape of result. Pure, without numpy.

All tolerances of the project are in this file, except those that a policy sets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson


class Tolerance(NamedTuple):
    """Allowed differences between answers of the same model on different machines.

    Attributes:
        score: Allowed difference of a score, absolute.
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


class Agreement(ABC):
    """Whether two results of one task are the same answer; results are parsed JSON."""

    @abstractmethod
    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Describe how a model's answer differs from the expected one; None where it does not."""

    @abstractmethod
    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Return whether the best answer is the expected one; either of two near ones is."""

    @abstractmethod
    def same_for_people(self, before: Any, after: Any) -> bool:
        """Return whether two versions give the same answer with about the same scores.

        Retraining moves every score a little.
        """

    @abstractmethod
    def answer(self, result: Any) -> str:
        """Return the answer without its scores, for people and for comparison by a gate."""

    def cosine(self, found: Any, expected: Any) -> float | None:  # noqa: ARG002
        """Return the cosine of two embeddings; None where results are not embeddings."""
        return None


class ScoredLabels(Agreement):
    """Results such as ``[{"label": "good", "score": 0.9}, ...]``, best first.

    The scores of a regression have any size; tolerances grow with them.
    """

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare the score of every expected label; see ``Agreement``."""
        scores = _scores(found)
        for item in expected:
            score = scores.get(item["label"])
            if score is None:
                return f"the label {item['label']!r} is missing"
            if abs(score - item["score"]) > tolerance.score * _size(item["score"]):
                return f"{item['label']!r} scores {score}, expected {item['score']}"
        return None

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the best label; see ``Agreement``."""
        if not expected or not found:
            return not expected and not found
        score = expected[0]["score"]
        if len(expected) == 1:
            # The only label is always the best, as that of a regression: its score is the answer.
            same = found[0]["label"] == expected[0]["label"]
            shift = abs(found[0]["score"] - score)
            return bool(same and shift <= 2 * tolerance.score * _size(score))
        least = score - 2 * tolerance.score
        return bool(_scores(expected).get(found[0]["label"], -math.inf) >= least)

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the labels given, and every score; see ``Agreement``."""
        first, second = _scores(before), _scores(after)
        shifts = [
            abs(score - second.get(label, 0.0)) / _size(score) for label, score in first.items()
        ]
        return _given(first) == _given(second) and max(shifts, default=0.0) <= SAME_SCORE_SHIFT

    def answer(self, result: Any) -> str:
        """Return the best label, with about its score where it is the only one."""
        if len(result) == 1:
            return f"{result[0]['label']} {result[0]['score']:.1f}"
        return str(result[0]["label"]) if result else "nothing"


class Embedding(Agreement):
    """Results such as ``[0.0123, ...]``: one vector; or ``{"vectors": [...], ...}``: several."""

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare length and direction; see ``Agreement``."""
        ours, theirs = _numbers(found), _numbers(expected)
        if len(ours) != len(theirs):
            return f"it has {len(ours)} numbers, expected {len(theirs)}"
        near = cosine(ours, theirs)
        if near >= 1.0 - tolerance.cosine:
            return None
        return f"its cosine to the reference is {near:.4f}"

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the direction; see ``Agreement``."""
        return cosine(_numbers(found), _numbers(expected)) >= 1.0 - tolerance.cosine

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the direction; see ``Agreement``."""
        return bool(before == after) or cosine(_numbers(before), _numbers(after)) >= SAME_COSINE

    def answer(self, result: Any) -> str:
        """Return the length; see ``Agreement``."""
        return f"{len(_numbers(result))} numbers"

    def cosine(self, found: Any, expected: Any) -> float | None:
        """Return the cosine; see ``Agreement``."""
        return cosine(_numbers(found), _numbers(expected))


class Structure(Agreement):
    """Results of any shape: the same structure and texts, with scores that are nearly equal.

    The answer is everything but the numbers that are not whole: entities with their places, the
    span of an answer, the order of labels.
    """

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare all parts; see ``Agreement``."""
        return _difference(found, expected, tolerance.score, "the result")

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:  # noqa: ARG002
        """Compare the first element of a list, or all of anything else; see ``Agreement``."""
        if isinstance(found, list) and isinstance(expected, list):
            found, expected = found[:1], expected[:1]
        return self.answer(found) == self.answer(expected)

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare all parts; see ``Agreement``."""
        return _difference(after, before, SAME_SCORE_SHIFT, "the result") is None

    def answer(self, result: Any) -> str:
        """Return all but the scores as JSON; see ``Agreement``."""
        return orjson.dumps(_without_scores(result)).decode()


class ScoreList(Agreement):
    """Results such as ``[0.91, 0.13]``: one score for each text that was given."""

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare all scores; see ``Agreement``."""
        return _difference(found, expected, tolerance.score, "the result")

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare which text has the highest score; see ``Agreement``."""
        if len(found) != len(expected):
            return False
        best = max(range(len(found)), key=found.__getitem__)
        return bool(expected[best] >= max(expected) - 2 * tolerance.score)

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare all scores; see ``Agreement``."""
        return _difference(after, before, SAME_SCORE_SHIFT, "the result") is None

    def answer(self, result: Any) -> str:
        """Return the position of the highest score; see ``Agreement``."""
        return f"text {max(range(len(result)), key=result.__getitem__)}" if result else "nothing"


def _numbers(result: Any) -> list[float]:
    """Return the numbers of one vector or of several; none for a result of another shape."""
    vectors = result.get("vectors", ()) if isinstance(result, dict) else (result,)
    return [number for vector in vectors for number in vector if isinstance(number, int | float)]


class Ranking(Agreement):
    """Results such as ``[{"index": 1, "score": 0.9}, ...]``, best first.

    Compares by index, as texts with nearly equal scores may change places. A text that ``top_k``
    cut off counts with the lowest score that is left. Scores without an activation may have any
    size, so tolerances grow with the largest.
    """

    def difference(self, found: Any, expected: Any, tolerance: Tolerance) -> str | None:
        """Compare the score of every expected text; see ``Agreement``."""
        if len(found) != len(expected):
            return f"it has {len(found)} texts, expected {len(expected)}"
        return _score_difference(found, expected, tolerance.score * _largest(expected))

    def same_best(self, found: Any, expected: Any, tolerance: Tolerance) -> bool:
        """Compare the best text; see ``Agreement``."""
        least = expected[0]["score"] - 2 * tolerance.score * _largest(expected)
        return bool(_by_index(expected).get(found[0]["index"], -math.inf) >= least)

    def same_for_people(self, before: Any, after: Any) -> bool:
        """Compare the best text and all scores; see ``Agreement``."""
        if self.answer(before) != self.answer(after) or len(before) != len(after):
            return False
        return _score_difference(after, before, SAME_SCORE_SHIFT * _largest(before)) is None

    def answer(self, result: Any) -> str:
        """Return the position of the best text; see ``Agreement``."""
        return f"text {result[0]['index']}" if result else "nothing"


def _size(score: float) -> float:
    return max(1.0, abs(score))


def _scores(answer: list[dict[str, Any]]) -> dict[str, float]:
    return {item["label"]: item["score"] for item in answer}


def _given(scores: dict[str, float]) -> set[str]:
    """Return the best label, and every other one from the threshold up."""
    likely = {label for label, score in scores.items() if score >= LABEL_THRESHOLD}
    return likely | ({max(scores, key=scores.__getitem__)} if scores else set())


def _difference(found: Any, expected: Any, tolerance: float, place: str) -> str | None:
    """Describe the first difference; numbers may differ by the tolerance unless they are whole."""
    if isinstance(expected, float) and isinstance(found, int | float):
        near = abs(found - expected) <= tolerance
        return None if near else f"{place} is {found}, expected {expected}"
    if isinstance(expected, dict) and isinstance(found, dict):
        if found.keys() != expected.keys():
            return f"{place} has {', '.join(found)}, expected {', '.join(expected)}"
        pairs = ((found[key], expected[key], f"{key} of {place}") for key in expected)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return f"{place} has {len(found)} elements, expected {len(expected)}"
        pairs = (
            (ours, theirs, f"element {index} of {place}")
            for index, (ours, theirs) in enumerate(zip(found, expected, strict=True))
        )
    else:
        return None if found == expected else f"{place} is {found!r}, expected {expected!r}"
    faults = (_difference(ours, theirs, tolerance, where) for ours, theirs, where in pairs)
    return next((fault for fault in faults if fault is not None), None)


def _without_scores(result: Any) -> Any:
    if isinstance(result, dict):
        return {
            key: _without_scores(value)
            for key, value in result.items()
            if not isinstance(value, float)
        }
    if isinstance(result, list):
        return [_without_scores(item) for item in result if not isinstance(item, float)]
    return result


def _by_index(ranking: list[dict[str, Any]]) -> dict[int, float]:
    return {item["index"]: item["score"] for item in ranking}


def _largest(ranking: list[dict[str, Any]]) -> float:
    return max([1.0, *(abs(score) for score in _by_index(ranking).values())])


def _score_difference(found: Any, expected: Any, allowed: float) -> str | None:
    scores = _by_index(found)
    lowest = min(scores.values(), default=0.0)
    for index, wanted in _by_index(expected).items():
        score = scores.get(index, lowest)
        if abs(score - wanted) > allowed:
            return f"text {index} scores {score}, expected {wanted}"
    return None
