"""The YAML file: read, checked as a whole, every mistake named with its place.

What the settings mean stands with them: ``ops.settings``, ``stream.settings``,
``serve.settings``.
"""

from __future__ import annotations

import difflib
import os
import re
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from ops.errors import ConfigError
from ops.settings import PlatformConfig, Steps, conflicts

DEFAULT_FILE = Path("bertstream.yaml")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Place(NamedTuple):
    """Where something stands in the file."""

    line: int
    column: int


NOWHERE = Place(0, 0)


class Problem(NamedTuple):
    """One mistake.

    Attributes:
        place: Line and column in the file, from 1; ``NOWHERE`` where it concerns no one place.
        path: Dotted, such as ``pipelines.0.window``.
        message: What is wrong, and what would be right.
    """

    place: Place
    path: str
    message: str

    def told_of(self, file: Path) -> str:
        """As compilers say it: ``file:line:column: path: message``."""
        where = [str(file), *(str(number) for number in self.place if number)]
        return ": ".join(filter(None, (":".join(where), self.path, self.message)))


def load(path: Path) -> PlatformConfig:
    """Read and check the file; relative model paths are relative to it.

    Raises:
        ConfigError: Lists every mistake.
    """
    config, problems = _read(path)
    if config is None:
        lines = "\n".join(f"  {problem.told_of(path)}" for problem in problems)
        raise ConfigError(f"{path} cannot be used:\n{lines}")
    return config


def check(path: Path) -> list[Problem]:
    """Every mistake in the file, in the order of their places; empty where there is none."""
    return _read(path)[1]


def _read(path: Path) -> tuple[PlatformConfig | None, list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except FileNotFoundError:
        return None, [Problem(NOWHERE, "", "there is no such file")]
    except (OSError, UnicodeDecodeError) as exc:
        return None, [Problem(NOWHERE, "", f"it cannot be read as UTF-8 text: {exc}")]
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        return None, [Problem(_place(mark) if mark else NOWHERE, "", f"not YAML: {exc}")]
    if not isinstance(content, dict):
        return None, [
            Problem(Place(1, 1), "", "the file must hold keys such as kafka, models, pipelines")
        ]
    return _judge(content, list(_places(root, ())), path.parent)


def _judge(
    content: dict[str, Any], keys: list[tuple[Steps, Place]], folder: Path
) -> tuple[PlatformConfig | None, list[Problem]]:
    places, filled = dict(keys), _Filled()
    content = filled.put(content, ())
    _resolve_paths(content, folder)
    found = [
        *_keys_twice(keys),
        *((at, f"the environment variable {names} is not set") for at, names in filled.unset),
        *conflicts(content),
    ]
    problems = [Problem(places.get(at, NOWHERE), _dotted(at), message) for at, message in found]
    unset = {at for at, _ in filled.unset}
    try:
        config = PlatformConfig.model_validate(content)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            # Without a place it is what ``conflicts`` has found with one.
            if error["loc"] and error["loc"] not in unset:
                problems.append(_problem(error, places, secret=error["loc"] in filled.places))
        return None, sorted(problems)
    return (None if problems else config), sorted(problems)


def _places(node: yaml.Node | None, steps: Steps) -> Iterator[tuple[Steps, Place]]:
    """Place of every key and item, by its path."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*steps, key.value), _place(key.start_mark)
            yield from _places(value, (*steps, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*steps, index), _place(item.start_mark)
            yield from _places(item, (*steps, index))


def _place(mark: yaml.Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _keys_twice(keys: list[tuple[Steps, Place]]) -> Iterator[tuple[Steps, str]]:
    """YAML itself takes the last of equal keys and says nothing."""
    for steps, times in Counter(steps for steps, _ in keys).items():
        if times > 1:
            yield steps, f"{steps[-1]} stands here {times} times"


class _Filled:
    """Puts the environment's values where the file says ``${NAME}``.

    Attributes:
        places: Where it did: the values there are not to be shown.
        unset: Those of them whose variable is not set, and its name.
    """

    def __init__(self) -> None:
        self.places: set[Steps] = set()
        self.unset: list[tuple[Steps, str]] = []

    def put(self, value: Any, steps: Steps) -> Any:
        """The value with everything in it replaced."""
        if isinstance(value, dict):
            return {key: self.put(item, (*steps, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.put(item, (*steps, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not VARIABLE.search(value):
            return value
        self.places.add(steps)
        missing = [name for name in VARIABLE.findall(value) if name not in os.environ]
        if missing:
            self.unset.append((steps, ", ".join(missing)))
        return VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value)


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    """Make paths absolute: replicas run in other working directories."""
    models = content.get("models")
    for model in models if isinstance(models, list) else []:
        _resolve(model, ("path",), folder)
    _resolve(content.get("kafka"), ("ssl_cafile", "ssl_certfile", "ssl_keyfile"), folder)


def _resolve(settings: Any, keys: tuple[str, ...], folder: Path) -> None:
    for key in keys if isinstance(settings, dict) else ():
        if isinstance(settings.get(key), str):
            settings[key] = str((folder / Path(settings[key]).expanduser()).resolve())


def _problem(error: Any, places: dict[Steps, Place], *, secret: bool) -> Problem:
    steps: Steps = tuple(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = f"unknown key {steps[-1]}"
        known = list(_keys_at(steps[:-1]))
        near = difflib.get_close_matches(str(steps[-1]), known, n=1)
        message += f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
    elif error["type"] == "missing":
        message = f"{steps[-1]} is missing"
    elif error["type"] == "string_type" and isinstance(error["input"], int | float):
        message = f'it must be text: write "{error["input"]}" in quotes'
    elif not (secret or "password" in _dotted(steps) or isinstance(error["input"], dict | list)):
        message += f", not {error['input']!r}"
    nearest = (steps[:n] for n in range(len(steps), 0, -1) if steps[:n] in places)
    return Problem(places.get(next(nearest, ()), NOWHERE), _dotted(steps), message)


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
