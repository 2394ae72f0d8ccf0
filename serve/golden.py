"""The check that a loaded model answers its golden texts as it did when it was sealed.

A wrong build, precision or driver gives plausible but wrong numbers; only known answers reveal
it. Differences that the precision alone explains are accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import orjson

from serve.agreement import TOLERANCES
from serve.artifact import GOLDEN_FILE, Artifact, ModelCard
from serve.contract import CallOptions, Failure, Outcome
from serve.errors import ArtifactError
from serve.registry import task_type

# Texts that are checked: enough to find a wrong build, few enough not to delay the start.
GOLDEN_TEXTS = 64

OutcomesOf = Callable[[list[bytes]], list[Outcome]]


def golden_options(card: ModelCard) -> CallOptions:
    """Return the options with which the golden texts of a model are answered."""
    task = task_type(card.task)(card.head, precision="f32")
    return CallOptions(parameters=task.golden_parameters())


def check_golden(artifact: Artifact, outcomes_of: OutcomesOf, *, precision: str) -> None:
    """Compare a model's answers with those that are sealed in its directory.

    Args:
        artifact: Directory whose ``golden.jsonl`` has the answers; without it nothing is done.
        outcomes_of: Answers values with ``golden_options``; shape (N,) to (N,).
        precision: Precision of the engine.
    Raises:
        ArtifactError: An answer differs by more than the precision explains. Not retriable.
    """
    records = list(islice(artifact.golden(), GOLDEN_TEXTS))
    agreement = task_type(artifact.card.task).agreement
    if not records:
        return
    outcomes = outcomes_of([record.value for record in records])
    for line, (record, outcome) in enumerate(zip(records, outcomes, strict=True), start=1):
        if isinstance(outcome, Failure):
            fault: str | None = outcome.message
        else:
            found = orjson.loads(outcome.result)
            fault = agreement.difference(found, record.result, TOLERANCES[precision])
        if fault is not None:
            raise ArtifactError(
                f"{artifact.path / GOLDEN_FILE}: line {line} is answered differently in "
                f"{precision} on this machine: {fault}; try precision f32, and train or import "
                "the model again if that does not help"
            )
