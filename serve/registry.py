"""The class of each task, found by its module's name in ``serve.tasks``."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from serve.task import Task
from serve.task_names import known_task


@cache
def task_type(name: str) -> type[Task[Any, Any]]:
    """Return the class of a task.

    Raises:
        ValueError: There is no such task.
    """
    module = importlib.import_module(f"serve.tasks.{known_task(name).replace('-', '_')}")
    (found,) = (
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and member.__module__ == module.__name__
        and issubclass(member, Task)
    )
    return found
