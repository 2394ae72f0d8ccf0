"""Validation of a task's parameters, which a pipeline or a caller sets by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from serve.artifact import ModelCard
from serve.contract import CallOptions
from serve.errors import ParametersRefused
from serve.reading import reads_plain_text
from serve.registry import task_type
from serve.task import Task

# What pydantic calls a tuple or a dictionary, for people who write JSON or YAML.
SHAPES = {
    "tuple_type": 'a list, such as ["a", "b"]',
    "dict_type": 'an object, such as {"a": 1}',
    "mapping_type": 'an object, such as {"a": 1}',
    "model_type": 'an object, such as {"a": 1}',
}


def checked_parameters(task: Task[Any, Any], parameters: Mapping[str, Any]) -> Any:
    """Return the parameters of a task, with defaults.

    Raises:
        ParametersRefused: The task or the model does not have them. Not retriable.
    """
    try:
        checked = task.parameters_type.model_validate(parameters)
        task.check(checked)
    except ValueError as exc:
        raise ParametersRefused(
            f"{task.name}: {_fault(exc, task.parameters_type.model_fields)}"
        ) from exc
    return checked


def require_options(card: ModelCard, options: CallOptions) -> None:
    """Refuse options of a pipeline that do not fit a model, before any record is read.

    Raises:
        ParametersRefused: A field names no input of the task, plain text is not enough for it, or
            a parameter is refused. Not retriable.
    """
    task = task_type(card.task)(card.head, precision="f32")
    names = [one.name for one in task.inputs]
    for name in options.fields:
        if name not in names:
            raise ParametersRefused(
                f"fields: {card.task} has no input {name!r}; {suggestion(name, names)}"
            )
    if options.format == "text" and not reads_plain_text(task.inputs, options.fields):
        required = " and ".join(one.name for one in task.inputs if not one.optional)
        raise ParametersRefused(f"{card.task} needs {required} in a record: set format to json")
    checked_parameters(task, options.parameters)


def fault_of_settings(error: ValidationError, known: Iterable[str]) -> str:
    """Return the first fault of a validation as a sentence; an unknown name gets a suggestion."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"there is no {place}; {suggestion(place, list(known))}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in SHAPES:
        message = f"must be {SHAPES[first['type']]}, not {first['input']!r}"
    return f"{place}: {message}" if place else message


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the known name that is nearest to an unknown one, or all."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"


def _fault(error: ValueError, known: Iterable[str]) -> str:
    return fault_of_settings(error, known) if isinstance(error, ValidationError) else str(error)
