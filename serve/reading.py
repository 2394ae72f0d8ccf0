"""Extraction of inputs and id from a record's value, or of the reason for a failure. Pure.

Owns every failure that depends only on the bytes; the tokeniser handles length in tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from serve.contract import CallOptions, Failure, FailureKind
from serve.json_fields import has_only_json, literal_fields
from serve.task import Input, Values

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
HALF_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Reading(NamedTuple):
    """Inputs and id of a record.

    Attributes:
        values: Values of the task's inputs, in their order. A text has at least one character
            that is not white space; half a surrogate pair, which is not a character, is replaced
            by U+FFFD, as encoders of such a text do.
        id: The literal of the record's ``id`` field, byte for byte; None where it has none.
    """

    values: Values
    id: bytes | None


class Reader:
    """Reads the records of one pipeline for one task.

    Args:
        options: The format, and the names of the fields.
        inputs: Inputs of the task.
    """

    def __init__(self, options: CallOptions, inputs: Sequence[Input]) -> None:
        self._fields = [
            _Field(
                options.fields.get(one.name, one.name),
                is_list=one.kind == "texts",
                optional=one.optional and one.name not in options.fields,
            )
            for one in inputs
        ]
        self._first_only = (None,) * (len(inputs) - 1)
        self._has_one = reads_plain_text(inputs, options.fields)
        self._is_text = options.format == "text"

    def read(self, value: bytes) -> Reading | Failure:
        """Find the inputs and the id in a record's value.

        Args:
            value: Value as read from Kafka; any bytes at all.
        Returns:
            The inputs and the id, or the failure.
        """
        return self._read_text(value) if self._is_text else self._read_json(value)

    def _read_text(self, value: bytes) -> Reading | Failure:
        if not self._has_one:
            needed = " and ".join(repr(field.name) for field in self._fields if not field.optional)
            message = f"the task needs {needed}, so the value must be a JSON object: set format"
            return Failure(FailureKind.WRONG_TYPE, f"{message} to json")
        try:
            text = value.removeprefix(BYTE_ORDER_MARK).decode()
        except UnicodeDecodeError as exc:
            return _not_utf8(exc)
        if _is_blank(text):
            return Failure(FailureKind.EMPTY_TEXT, "the value is empty or only white space")
        return Reading((text, *self._first_only), None)

    def _read_json(self, value: bytes) -> Reading | Failure:
        value = value.removeprefix(BYTE_ORDER_MARK)
        if not value or value.isspace():
            return Failure(FailureKind.EMPTY_TEXT, "the value is empty or only white space")
        try:
            fields = orjson.loads(value)
        except orjson.JSONDecodeError:
            return self._read_with_care(value)
        if not isinstance(fields, dict):
            return self._no_object(_kind(fields))
        identity = fields.get("id")
        literal: bytes | None = None
        if identity is not None:
            literal = orjson.dumps(identity) if isinstance(identity, int | str) else b""
            if not _is_written_so(literal, value):
                return self._read_with_care(value)
        return self._reading(fields, literal)

    def _read_with_care(self, value: bytes) -> Reading | Failure:
        """Read what the fast parser refuses or changes: only inputs and id must be valid."""
        # A byte that is not UTF-8 becomes half a surrogate pair, which UTF-8 text never contains.
        document = value.decode("utf-8", "surrogateescape")
        try:
            literals = literal_fields(document)
            if literals is None:
                return self._no_object(_kind(json.loads(document, parse_int=float)))
            return self._read_literals(value, literals)
        except (json.JSONDecodeError, RecursionError) as exc:
            return _undecodable(value, exc)

    def _read_literals(self, value: bytes, literals: Mapping[str, str]) -> Reading | Failure:
        identity = literals.get("id", "null")
        used = {f.name: literals[f.name] for f in self._fields if f.name in literals}
        try:
            carried = None if identity == "null" else identity.encode()
            for literal in used.values():
                literal.encode()
        except UnicodeEncodeError:
            return _undecodable(value, None)
        if carried is not None and not has_only_json(identity):
            message = "the field 'id' has a number that JSON does not allow; send it as a string"
            return Failure(FailureKind.WRONG_TYPE, message)
        fields = {name: json.loads(literal, parse_int=float) for name, literal in used.items()}
        return self._reading({name: _mended(field) for name, field in fields.items()}, carried)

    def _reading(self, fields: Mapping[str, Any], identity: bytes | None) -> Reading | Failure:
        values: list[str | tuple[str, ...] | None] = []
        for field in self._fields:
            value = field.read(fields)
            if isinstance(value, Failure):
                return value
            values.append(value)
        return Reading(tuple(values), identity)

    def _no_object(self, kind: str) -> Failure:
        names = " and ".join(repr(field.name) for field in self._fields if not field.optional)
        what = "field" if " and " not in names else "fields"
        message = f"the value is a JSON {kind}, not an object; send an object with the {what}"
        return Failure(FailureKind.WRONG_TYPE, f"{message} {names}")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the records of a pipeline."""

    name: str
    is_list: bool
    optional: bool

    def read(self, fields: Mapping[str, Any]) -> str | tuple[str, ...] | Failure | None:
        value = fields.get(self.name)
        if value is None and (self.optional or self.name not in fields):
            return None if self.optional else self._missing()
        if not self.is_list:
            is_text = isinstance(value, str) and not _is_blank(value)
            return value if is_text else self._no_text(value)
        if not isinstance(value, list) or not value:
            return self._no_list(value)
        for index, text in enumerate(value):
            if not isinstance(text, str) or _is_blank(text):
                return self._no_text(text, index)
        return tuple(value)

    def _missing(self) -> Failure:
        message = f"the object has no field {self.name!r}; send it, or name another in fields"
        return Failure(FailureKind.NO_TEXT, message)

    def _no_text(self, value: object, index: int | None = None) -> Failure:
        where = f"the field {self.name!r}"
        if index is not None:
            where = f"element {index} of {where}"
        if isinstance(value, str):
            return Failure(FailureKind.EMPTY_TEXT, f"{where} is empty or only white space")
        return Failure(FailureKind.WRONG_TYPE, f"{where} is a JSON {_kind(value)}, not a string")

    def _no_list(self, value: object) -> Failure:
        where = f"the field {self.name!r}"
        if isinstance(value, list):
            return Failure(FailureKind.EMPTY_TEXT, f"{where} is an empty list; send some texts")
        return Failure(
            FailureKind.WRONG_TYPE, f"{where} is a JSON {_kind(value)}, not a list of strings"
        )


def reads_plain_text(inputs: Sequence[Input], fields: Mapping[str, str]) -> bool:
    """Return whether a value that is plain text is enough for a task: its first input, no other.

    Args:
        fields: Names of fields by input; an input that is named is required.
    """
    first, *others = inputs
    return first.kind == "text" and all(
        other.optional and other.name not in fields for other in others
    )


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


def _mended(value: Any) -> Any:
    """Return a text, or the texts of a list, without half surrogate pairs."""
    if isinstance(value, list):
        return [_mended(item) if isinstance(item, str) else item for item in value]
    return HALF_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def _is_written_so(literal: bytes, value: bytes) -> bool:
    """Return whether a number or string certainly has the same bytes in the value.

    Quotes in a string are escaped, so that a match is a field; at worst it is the ``id`` of an
    inner object, with the same text.
    """
    if literal.startswith(b'"'):
        return b'"id":%b' % literal in value or b'"id": %b' % literal in value
    return literal not in (b"", b"0")  # 0 may be written -0


def _undecodable(value: bytes, error: json.JSONDecodeError | RecursionError | None) -> Failure:
    try:
        value.decode()
    except UnicodeDecodeError as exc:
        return _not_utf8(exc)
    if isinstance(error, json.JSONDecodeError):
        message = f"the value is not JSON: {error.msg} at character {error.pos}"
    else:
        message = "the value is JSON that is nested too deeply to be read, about 1,000 levels"
    return Failure(FailureKind.NOT_JSON, message)


def _not_utf8(error: UnicodeDecodeError) -> Failure:
    byte = error.object[error.start]
    message = f"the value is not UTF-8: byte 0x{byte:02x} at {error.start}"
    return Failure(FailureKind.NOT_UTF8, message)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, (int, float)):
        return "number"
    return "array" if isinstance(value, list) else "object"
