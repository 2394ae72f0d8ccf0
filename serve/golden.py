"""Whether a loaded model still answers its golden texts as it did when it was sealed.

A wrong build, precision or driver gives plausible numbers that are wrong; only known answers
tell. Differences that the precision alone makes are let pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import orjson

from serve.artifact import GOLDEN_FILE, Artifact
from serve.contract import Failure
from serve.errors import ArtifactError
from serve.tasks.prediction import Prediction

# Above what was seen between float32 and the precision (0.003 of a score in bf16), and far
# below what another model would answer.
SCORE_TOLERANCE = {"f32": 0.01, "f16": 0.03, "bf16": 0.06}
COSINE_TOLERANCE = {"f32": 0.001, "f16": 0.005, "bf16": 0.01}
# So many are looked at: enough to find a wrong build, few enough not to delay the start.
GOLDEN_TEXTS = 64

AnswersOf = Callable[[Sequence[str]], list[Prediction | Failure]]


def check_golden(artifact: Artifact, answers_of: AnswersOf, *, precision: str) -> None:
    """Compare a model's answers with those it was sealed with.

    Args:
        artifact: Its ``golden.jsonl`` holds the answers; nothing is done where it has none.
        answers_of: Predicts texts; shape (N,) to (N,).
        precision: What the engine computes in.
    Raises:
        ArtifactError: An answer differs by more than the precision explains. Not retriable.
    """
    records = list(islice(artifact.golden(), GOLDEN_TEXTS))
    answers = answers_of([record.text for record in records])
    for line, (record, answer) in enumerate(zip(records, answers, strict=True), start=1):
        fault = _fault(answer, record.result, precision)
        if fault is not None:
            raise ArtifactError(
                f"{artifact.path / GOLDEN_FILE}: line {line} is answered differently in "
                f"{precision} on this machine: {fault}; try precision f32, and train or import "
                "the model again if that does not help"
            )


def _fault(answer: Prediction | Failure, expected: list[Any], precision: str) -> str | None:
    if isinstance(answer, Failure):
        return answer.message
    found = orjson.loads(answer.result)
    if isinstance(expected[0], dict):
        return _score_fault(found, expected, SCORE_TOLERANCE[precision])
    return _cosine_fault(found, expected, COSINE_TOLERANCE[precision])


def _score_fault(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float
) -> str | None:
    scores = {item["label"]: item["score"] for item in found}
    for item in expected:
        score = scores.get(item["label"])
        if score is None:
            return f"there is no label {item['label']!r}"
        if abs(score - item["score"]) > tolerance:
            return f"{item['label']!r} scores {score} and scored {item['score']}"
    return None


def _cosine_fault(found: list[float], expected: list[float], tolerance: float) -> str | None:
    if len(found) != len(expected):
        return f"it has {len(found)} numbers and had {len(expected)}"
    cosine = np.dot(found, expected) / (np.linalg.norm(found) * np.linalg.norm(expected))
    return None if cosine >= 1.0 - tolerance else f"the cosine to the former is {cosine:.4f}"
