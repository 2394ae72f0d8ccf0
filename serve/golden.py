"""The check that a loaded model answers its golden texts as it did when it was sealed.

A wrong build, precision or driver gives plausible but wrong numbers; only known answers reveal
it. Differences that the precision alone explains are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import orjson

from serve.artifact import GOLDEN_FILE, Artifact
from serve.contract import Failure
from serve.errors import ArtifactError
from serve.tasks.agreement import TOLERANCES, difference
from serve.tasks.prediction import Prediction

# Texts that are checked: enough to find a wrong build, few enough not to delay the start.
GOLDEN_TEXTS = 64

AnswersOf = Callable[[Sequence[str]], list[Prediction | Failure]]


def check_golden(artifact: Artifact, answers_of: AnswersOf, *, precision: str) -> None:
    """Compare a model's answers with those that are sealed in its directory.

    Args:
        artifact: Directory whose ``golden.jsonl`` has the answers; without it nothing is done.
        answers_of: Predicts texts; shape (N,) to (N,).
        precision: Precision of the engine.
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
    return difference(orjson.loads(answer.result), expected, TOLERANCES[precision])
