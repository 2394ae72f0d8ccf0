"""The YAML file: read, checked as a whole, every mistake named with its place.

What the settings mean stands with them: ``ops.settings``, ``stream.settings``,
``serve.settings``.
"""

from __future__ import annotations

import difflib
import os
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ops.errors import ConfigError
from ops.settings import PlatformConfig

DEFAULT_FILE = Path("bertstream.yaml")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

Steps = tuple[str | int, ...]


class Problem(NamedTuple):
    """One mistake.

    Attributes:
        line: In the file, from 1; 0 where it concerns no one place.
        path: Dotted, such as ``pipelines.0.window``.
        message: What is wrong, and what would be right.
    """

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path + ': ' if self.path else ''}{self.message}"


def load(path: Path) -> PlatformConfig:
    """Read and check the file; relative model paths are relative to it.

    Raises:
        ConfigError: Lists every mistake.
    """
    config, problems = _read(path)
    if config is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path} cannot be used:\n{lines}")
    return config


def check(path: Path) -> list[Problem]:
    """Every mistake in the file, in the order of its lines; empty where there is none."""
    return _read(path)[1]


def _read(path: Path) -> tuple[PlatformConfig | None, list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        return None, [Problem(0, "", f"there is no file {path}")]
    except UnicodeDecodeError:
        return None, [Problem(0, "", "the file is not UTF-8")]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        return None, [Problem(mark.line + 1 if mark else 0, "", f"not YAML: {exc}")]
    if not isinstance(content, dict):
        return None, [Problem(1, "", "the file must hold keys such as kafka, models, pipelines")]
    lines = dict(_lines(root, ()))
    problems: list[Problem] = []
    content = _with_variables(content, (), lines, problems)
    if problems:
        return None, problems
    _resolve_paths(content, path.parent)
    try:
        return PlatformConfig.model_validate(content), []
    except ValidationError as exc:
        found = [_problem(error, lines) for error in exc.errors(include_url=False)]
        return None, sorted(found)


def _lines(node: yaml.Node | None, steps: Steps) -> Iterator[tuple[Steps, int]]:
    """Line of every key and item, by its path."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*steps, key.value), key.start_mark.line + 1
            yield from _lines(value, (*steps, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*steps, index), item.start_mark.line + 1
            yield from _lines(item, (*steps, index))


def _with_variables(
    value: Any, steps: Steps, lines: dict[Steps, int], problems: list[Problem]
) -> Any:
    """Put the environment's values where the file says ``${NAME}``."""
    if isinstance(value, dict):
        return {k: _with_variables(v, (*steps, k), lines, problems) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_variables(v, (*steps, i), lines, problems) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in VARIABLE.findall(value):
        if name not in os.environ:
            message = f"the environment variable {name} is not set"
            problems.append(Problem(lines.get(steps, 0), _dotted(steps), message))
    return VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value)


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    models = content.get("models")
    for model in models if isinstance(models, list) else []:
        if isinstance(model, dict) and isinstance(model.get("path"), str):
            model["path"] = str(folder / Path(model["path"]).expanduser())


def _problem(error: Any, lines: dict[Steps, int]) -> Problem:
    steps: Steps = tuple(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key {steps[-1]}"
        known = list(_keys_at(steps[:-1]))
        near = difflib.get_close_matches(str(steps[-1]), known, n=1)
        message += f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    elif error["type"] == "missing":
        message = f"{steps[-1]} is missing"
    elif "password" not in _dotted(steps) and not isinstance(error["input"], dict | list):
        message += f", not {error['input']!r}"
    line = next((lines[steps[:n]] for n in range(len(steps), 0, -1) if steps[:n] in lines), 0)
    return Problem(line, _dotted(steps), message)


def _keys_at(steps: Steps) -> Iterator[str]:
    """Keys that the settings have at a path."""
    model: Any = PlatformConfig
    for step in steps:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        model = _settings_in(field.annotation) if field else None
        if model is None:
            return
    yield from model.model_fields


def _settings_in(annotation: Any) -> Any:
    """The settings class within an annotation such as ``tuple[ModelSettings, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, types.UnionType):
        inner = (_settings_in(argument) for argument in get_args(annotation))
        return next((found for found in inner if found is not None), None)
    return None


def _dotted(steps: Steps) -> str:
    return ".".join(str(step) for step in steps)
