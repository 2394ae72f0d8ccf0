"""Selection of the class that handles a task after the engine."""

from __future__ import annotations

from serve.artifact import ModelCard
from serve.tasks.classification import Classification
from serve.tasks.features import Features
from serve.tasks.prediction import TaskHead


def head_of(card: ModelCard, *, precision: str) -> TaskHead:
    """Create the head of a model's task.

    Args:
        card: Card of the model.
        precision: Precision of the engine; decides how many digits are reported.
    """
    match card.task:
        case "text-classification":
            assert card.problem_type is not None  # checked by the card's validator
            return Classification(card.labels, problem_type=card.problem_type, precision=precision)
        case "feature-extraction":
            return Features()
