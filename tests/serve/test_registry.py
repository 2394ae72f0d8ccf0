from __future__ import annotations

import pytest

from serve.registry import task_type
from serve.task import Task
from serve.task_names import TASKS
from serve.tasks.feature_extraction import FeatureExtraction
from serve.tasks.text_classification import TextClassification


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_class_of_its_name(name: str) -> None:
    task = task_type(name)

    assert issubclass(task, Task)
    assert task.name == name
    assert not task.__abstractmethods__
    assert task.inputs


def test_the_class_is_that_of_the_module_of_the_name() -> None:
    assert task_type("text-classification") is TextClassification
    assert task_type("feature-extraction") is FeatureExtraction


def test_unknown_task_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"no such task: ranking; there are .*feature-extraction,"):
        task_type("ranking")
