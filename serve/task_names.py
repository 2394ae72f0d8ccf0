"""The names of all tasks: those of the modules in ``serve/tasks``, which are not imported."""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, WithJsonSchema

TASKS: Final = tuple(
    sorted(
        module.name.replace("_", "-")
        for module in pkgutil.iter_modules([str(Path(__file__).parent / "tasks")])
    )
)


def known_task(name: str) -> str:
    """Return the name of a task.

    Raises:
        ValueError: There is no such task; the message lists all.
    """
    if name not in TASKS:
        raise ValueError(f"no such task: {name}; there are {', '.join(TASKS)}")
    return name


TaskName = Annotated[
    str, AfterValidator(known_task), WithJsonSchema({"type": "string", "enum": list(TASKS)})
]
