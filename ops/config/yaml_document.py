"""A YAML text written by a person: its content, the places of its keys, messages on mistakes.

The settings define what the keys mean; ``ops.config.file`` and ``ops.policy.file`` read two kinds
of such texts.
"""

from __future__ import annotations

import difflib
import types
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from ops.config.settings import KeyPath
from ops.problems import NOWHERE, Place, Problem, ProblemSeverity

# Type of a validation error whose message is complete: no value is appended.
COMPLETE = "complete"
# Deeper than any settings; above a thousand the parser itself would fail.
MAX_DEPTH = 32
MAX_KEYS = 100_000
MAX_BITS_SHOWN = 256


@dataclass(frozen=True)
class Document:
    """A text that is YAML and has keys.

    Attributes:
        content: The parsed text.
        keys: Path and place of every key and item, in the text's order; the same path several
            times if a key is repeated.
    """

    content: dict[str, Any]
    keys: tuple[tuple[KeyPath, Place], ...]

    def problem(
        self, steps: KeyPath, message: str, severity: ProblemSeverity = ProblemSeverity.ERROR
    ) -> Problem:
        """Return a problem at a path, with the place of the nearest key above in the text."""
        names = tuple(str(step) for step in steps)  # a key is a text here, even where it is 1
        above = (names[:n] for n in range(len(names), 0, -1))
        place = next((self._places[at] for at in above if at in self._places), NOWHERE)
        return Problem(*place, ".".join(names), message, severity)

    @cached_property
    def _places(self) -> dict[tuple[str, ...], Place]:
        return {tuple(str(step) for step in at): place for at, place in self.keys}

    def keys_twice(self) -> Iterator[Problem]:
        """Yield a problem for each repeated key; YAML itself silently takes the last one."""
        for steps, times in Counter(steps for steps, _ in self.keys).items():
            if times > 1:
                yield self.problem(steps, f"{steps[-1]} appears here {times} times")


class _Mistaken(yaml.MarkedYAMLError):
    """YAML that is not accepted here."""


class _Loader(yaml.SafeLoader):
    """Builds each value once and locates mistakes; keys stay texts, exactly as written."""

    def __init__(self, text: str, *, aliases: bool) -> None:
        super().__init__(text)
        self._aliases = aliases
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent) and not self._aliases:
            raise _Mistaken(problem="no aliases are allowed; write it out", problem_mark=mark)
        if self._depth > MAX_DEPTH:
            raise _Mistaken(problem="nested too deeply", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        # A date or number may fail in any of these ways.
        except (ValueError, AttributeError, LookupError) as exc:
            why = f"this value cannot be parsed: {exc}"
            raise _Mistaken(problem=why, problem_mark=node.start_mark) from exc

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"  # where YAML reads no as False
        return super().construct_mapping(node, deep=deep)


def read(text: str, *, expected: str, aliases: bool = True) -> Document | Problem:
    """Parse a text.

    Args:
        expected: Some of the keys that it must have, for the message if it has none.
        aliases: Whether ``*name`` may refer to what ``&name`` marks.
    Returns:
        The document, or why the text cannot be parsed.
    """
    try:
        loader = _Loader(text, aliases=aliases)
        node = loader.get_single_node()
        keys = tuple(islice(_keys(node, ()), MAX_KEYS + 1))  # before merge keys are resolved
        if len(keys) > MAX_KEYS:
            return Problem(*NOWHERE, "", f"it has more than {MAX_KEYS:,} keys, aliases resolved")
        content = loader.construct_document(node) if node else None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        why = str(exc.problem) if isinstance(exc, _Mistaken) else f"not YAML: {exc}"
        return Problem(*(_place(mark) if mark else NOWHERE), "", why)
    if not isinstance(content, dict):
        return Problem(1, 1, "", f"the file must hold keys such as {expected}")
    return Document(content, keys)


def message_of(error: Any, root: type[BaseModel], *, secret: bool = False) -> str:
    """Return the message of a validation error for the author of the text.

    Args:
        error: One of ``ValidationError.errors()``.
        root: The settings class that was validated.
        secret: Whether the value must not be shown.
    """
    steps: KeyPath = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {steps[-1]}" + nearest(str(steps[-1]), keys_at(root, steps[:-1]))
    if error["type"] == "missing":
        return f"{steps[-1]} is missing"
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        return f'it must be text: write "{_shown(error["input"])}" in quotes'
    message: str = error["msg"].removeprefix("Value error, ")
    shown = error["type"] != COMPLETE and not (secret or isinstance(error["input"], dict | list))
    return f"{message}, not {_shown(error['input'])}" if shown else message


def _shown(value: Any) -> str:
    """Format a value; Python refuses to format a number of thousands of digits."""
    huge = isinstance(value, int) and value.bit_length() > MAX_BITS_SHOWN
    return "a number that is far too large" if huge else repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown word."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(words)}"


def keys_at(root: type[BaseModel], steps: KeyPath) -> Iterator[str]:
    """Yield the keys that settings have at a path."""
    model: Any = root
    for step in steps:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        model = _settings_in(field.annotation) if field else None
        if model is None:
            return
    yield from model.model_fields


def _settings_in(annotation: Any) -> Any:
    """Return the settings class within an annotation such as ``tuple[ModelSettings, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, Union, types.UnionType):
        inner = (_settings_in(argument) for argument in get_args(annotation))
        return next((found for found in inner if found is not None), None)
    return None


def _keys(node: yaml.Node | None, steps: KeyPath) -> Iterator[tuple[KeyPath, Place]]:
    if node and len(steps) > MAX_DEPTH:  # an alias may be within the value it refers to
        raise _Mistaken(problem="nested too deeply", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*steps, key.value), _place(key.start_mark)
            yield from _keys(value, (*steps, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*steps, index), _place(item.start_mark)
            yield from _keys(item, (*steps, index))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)
