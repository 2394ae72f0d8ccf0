from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

import serve.tasks
from serve.task_names import TASKS, TaskName, known_task

ADAPTER: TypeAdapter[str] = TypeAdapter(TaskName)


def test_names_are_those_of_the_modules() -> None:
    (home,) = serve.tasks.__path__
    files = {file.stem for file in Path(home).glob("*.py")} - {"__init__"}

    assert {name.replace("-", "_") for name in TASKS} == files
    assert {"feature-extraction", "text-classification"} <= set(TASKS)
    assert list(TASKS) == sorted(TASKS)


def test_setting_of_an_unknown_task_is_refused_with_those_that_there_are() -> None:
    assert ADAPTER.validate_python("text-classification") == "text-classification"
    assert known_task("text-classification") == "text-classification"
    with pytest.raises(ValidationError, match=r"no such task: text_classification; there are "):
        ADAPTER.validate_python("text_classification")


def test_schema_lists_the_names() -> None:
    assert ADAPTER.json_schema() == {"type": "string", "enum": list(TASKS)}
