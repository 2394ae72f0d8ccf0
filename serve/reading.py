"""How the value of a record becomes a text, or the reason why it has none. Pure.

Owns every reason that lies in the bytes alone; length in tokens is the tokeniser's affair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from serve.contract import CallOptions, Failure, FailureKind


class Reading(NamedTuple):
    """What a record says.

    Attributes:
        text: Has at least one character that is not white space.
        id: JSON of the record's ``id`` field; None where it has none.
    """

    text: str
    id: bytes | None


def read(value: bytes, options: CallOptions) -> Reading | Failure:
    """Find the text and the id in a record's value.

    Args:
        value: As it stood on Kafka; any bytes at all.
        options: Which format, and which field holds the text.
    Returns:
        The text and the id, or why there is none.
    """
    if options.format == "text":
        return _read_text(value)
    return _read_json(value, options.text_field)


def _read_text(value: bytes) -> Reading | Failure:
    try:
        text = value.decode()
    except UnicodeDecodeError as exc:
        return _not_utf8(exc)
    return _checked(text, None, "the value")


def _read_json(value: bytes, text_field: str) -> Reading | Failure:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        return _undecodable(value, exc)
    if not isinstance(fields, dict):
        message = f"the value is a JSON {_kind(fields)}, not an object; send an object with the"
        return Failure(FailureKind.WRONG_TYPE, f"{message} field {text_field!r}")
    if text_field not in fields:
        message = f"the object has no field {text_field!r}; send it, or set text_field"
        return Failure(FailureKind.NO_TEXT, message)
    text = fields[text_field]
    if not isinstance(text, str):
        message = f"the field {text_field!r} is a JSON {_kind(text)}, not a string"
        return Failure(FailureKind.WRONG_TYPE, message)
    try:
        identity = _identity(fields)
    except orjson.JSONEncodeError as exc:  # readable, and nested deeper than can be written
        return Failure(FailureKind.WRONG_TYPE, f"the field 'id' cannot be carried over: {exc}")
    return _checked(text, identity, f"the field {text_field!r}")


def _identity(fields: dict[str, Any]) -> bytes | None:
    identity = fields.get("id")
    return None if identity is None else orjson.dumps(identity)


def _checked(text: str, identity: bytes | None, where: str) -> Reading | Failure:
    if not text or text.isspace():
        return Failure(FailureKind.EMPTY_TEXT, f"{where} is empty or only white space")
    return Reading(text, identity)


def _undecodable(value: bytes, error: orjson.JSONDecodeError) -> Failure:
    try:
        value.decode()
    except UnicodeDecodeError as exc:
        return _not_utf8(exc)
    message = f"the value is not JSON: {error.msg} at character {error.pos}"
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
