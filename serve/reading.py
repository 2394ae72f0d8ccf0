"""Extraction of text and id from a record's value, or of the reason for a failure. Pure.

Owns every failure that depends only on the bytes; the tokeniser handles length in tokens.
"""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

import orjson

from serve.contract import CallOptions, Failure, FailureKind
from serve.json_fields import has_only_json, literal_fields

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
HALF_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Reading(NamedTuple):
    """Text and id of a record.

    Attributes:
        text: Has at least one character that is not white space; half a surrogate pair, which is
            not a character, is replaced by U+FFFD, as encoders of such a text do.
        id: The literal of the record's ``id`` field, byte for byte; None where it has none.
    """

    text: str
    id: bytes | None


def read(value: bytes, options: CallOptions) -> Reading | Failure:
    """Find the text and the id in a record's value.

    Args:
        value: Value as read from Kafka; any bytes at all.
        options: The format, and the field that holds the text.
    Returns:
        The text and the id, or the failure.
    """
    if options.format == "text":
        return _read_text(value)
    return _read_json(value, options.text_field)


def _read_text(value: bytes) -> Reading | Failure:
    try:
        text = value.removeprefix(BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as exc:
        return _not_utf8(exc)
    return _checked(text, None, None)


def _read_json(value: bytes, text_field: str) -> Reading | Failure:
    value = value.removeprefix(BYTE_ORDER_MARK)
    if not value or value.isspace():
        return Failure(FailureKind.EMPTY_TEXT, "the value is empty or only white space")
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _read_with_care(value, text_field)
    if not isinstance(fields, dict):
        return _no_object(_kind(fields), text_field)
    if text_field not in fields:
        return _no_text(text_field)
    text = fields[text_field]
    if not isinstance(text, str):
        return _no_string(_kind(text), text_field)
    identity = fields.get("id")
    if identity is None:
        return _checked(text, None, text_field)
    literal = orjson.dumps(identity) if isinstance(identity, int | str) else b""
    if _is_written_so(literal, value):
        return _checked(text, literal, text_field)
    return _read_with_care(value, text_field)


def _is_written_so(literal: bytes, value: bytes) -> bool:
    """Return whether a number or string certainly has the same bytes in the value.

    Quotes in a string are escaped, so that a match is a field; at worst it is the ``id`` of an
    inner object, with the same text.
    """
    if literal.startswith(b'"'):
        return b'"id":%b' % literal in value or b'"id": %b' % literal in value
    return literal not in (b"", b"0")  # 0 may be written -0


def _read_with_care(value: bytes, text_field: str) -> Reading | Failure:
    """Read what the fast parser refuses or changes: only the text and the id must be valid."""
    # A byte that is not UTF-8 becomes half a surrogate pair, which UTF-8 text never contains.
    document = value.decode("utf-8", "surrogateescape")
    try:
        fields = literal_fields(document)
    except (json.JSONDecodeError, RecursionError) as exc:
        return _undecodable(value, exc)
    if fields is None:
        return _no_object(_kind(json.loads(document, parse_int=float)), text_field)
    if text_field not in fields:
        return _no_text(text_field)
    literal, identity = fields[text_field], fields.get("id", "null")
    if not literal.startswith('"'):
        return _no_string(_kind(json.loads(literal, parse_int=float)), text_field)
    try:
        carried = None if identity == "null" else identity.encode()
        literal.encode()
    except UnicodeEncodeError:
        return _undecodable(value, None)
    if carried is not None and not has_only_json(identity):
        message = "the field 'id' has a number that JSON does not allow; send it as a string"
        return Failure(FailureKind.WRONG_TYPE, message)
    return _checked(HALF_SURROGATE.sub("\ufffd", json.loads(literal)), carried, text_field)


def _checked(text: str, identity: bytes | None, field: str | None) -> Reading | Failure:
    if not text or text.isspace():
        where = "the value" if field is None else f"the field {field!r}"
        return Failure(FailureKind.EMPTY_TEXT, f"{where} is empty or only white space")
    return Reading(text, identity)


def _no_object(kind: str, text_field: str) -> Failure:
    message = f"the value is a JSON {kind}, not an object; send an object with the"
    return Failure(FailureKind.WRONG_TYPE, f"{message} field {text_field!r}")


def _no_text(text_field: str) -> Failure:
    message = f"the object has no field {text_field!r}; send it, or set text_field"
    return Failure(FailureKind.NO_TEXT, message)


def _no_string(kind: str, text_field: str) -> Failure:
    message = f"the field {text_field!r} is a JSON {kind}, not a string"
    return Failure(FailureKind.WRONG_TYPE, message)


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
