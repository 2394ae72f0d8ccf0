from __future__ import annotations

from typing import get_args

import pytest

from serve.artifact import ModelCard, Pooling
from serve.settings import Task
from serve.tasks.classification import Classification
from serve.tasks.features import Features
from serve.tasks.registry import head_of

CARDS = {
    "text-classification": ModelCard(
        task="text-classification", labels=("a",), problem_type="multi_label", max_length=8
    ),
    "feature-extraction": ModelCard(task="feature-extraction", pooling=Pooling(), max_length=8),
}
HEADS = {"text-classification": Classification, "feature-extraction": Features}


@pytest.mark.parametrize("task", get_args(Task))
def test_every_task_has_its_head(task: Task) -> None:
    assert type(head_of(CARDS[task], precision="f32")) is HEADS[task]
