"""Which class does the part of a task behind the engine."""

from __future__ import annotations

from serve.artifact import ModelCard
from serve.tasks.classification import Classification
from serve.tasks.features import Features
from serve.tasks.prediction import TaskHead


def head_of(card: ModelCard, *, precision: str) -> TaskHead:
    """Make the head of a model's task.

    Args:
        card: Of the model.
        precision: What the engine computes in; decides how many digits are told.
    """
    match card.task:
        case "text-classification":
            assert card.problem_type is not None  # the card's validator saw to it
            return Classification(card.labels, problem_type=card.problem_type, precision=precision)
        case "feature-extraction":
            return Features()
