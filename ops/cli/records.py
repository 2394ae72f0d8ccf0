"""Lines of a file to records, and records to lines of a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

import orjson

from ops.errors import NoJsonObject
from serve.json_fields import has_only_json, literal_fields
from serve.reading import BYTE_ORDER_MARK
from stream.clients import TopicWriter
from stream.records import Damaged, Record
from stream.settings import KafkaSettings


def produce_lines(
    kafka: KafkaSettings,
    topic: str,
    lines: Iterable[bytes],
    *,
    as_json: bool,
    key_field: str | None,
    rate: float,
) -> int:
    """Send each line that is not empty, as it stands; returns how many.

    Args:
        as_json: Take JSON objects only.
        key_field: Of a JSON line: its value becomes the key, as text; a line without it has
            no key.
        rate: Records per second; 0 for no limit.
    Raises:
        NoJsonObject: The first such line, and how many were sent before it.
    """
    count, refused = 0, ""
    start = time.monotonic()
    with TopicWriter(kafka, topic) as writer:
        for number, line in enumerate(lines, start=1):
            value = line.rstrip(b"\r\n")
            if not value:
                continue
            try:
                key = key_of(value, key_field) if as_json else None
            except NoJsonObject as exc:
                refused = f"line {number} {exc}"
                break  # not raised here: the writer would drop what is on its way
            writer.write(key, value)
            count += 1
            if rate:
                time.sleep(max(0.0, start + count / rate - time.monotonic()))
    if refused:
        raise NoJsonObject(
            f"{refused}; {count} records before it were sent to {topic}, and nothing "
            "from it on. Correct it, or send any text with --format text"
        )
    return count


def key_of(value: bytes, field: str | None) -> bytes | None:
    """The key of a JSON line: a field's value as text, numbers as they stand; None for none.

    Raises:
        NoJsonObject: It has no fields.
    """
    try:
        fields = literal_fields(value.removeprefix(BYTE_ORDER_MARK).decode())
    except (ValueError, RecursionError) as exc:
        raise NoJsonObject(f"is not JSON ({exc})") from exc
    if fields is None:
        raise NoJsonObject("is JSON, but no object")
    literal = "null" if field is None else fields.get(field, "null")
    if literal.startswith('"'):
        # Any bytes are a key, so half an emoji is one, too.
        return str(json.loads(literal)).encode("utf-8", "surrogatepass")
    return None if literal == "null" else literal.encode()


def as_json_line(record: Record) -> str:
    """A record whole, as one JSON object; a value that is JSON stands in it as it is."""
    content = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _text(record.key),
        "headers": [(_name(name), _text(value)) for name, value in record.headers],
        "value": None if record.value is None else _json_or_text(record.value),
    }
    if isinstance(record.headers, Damaged):
        content["damaged"] = record.headers.fault
    return orjson.dumps(content).decode()


def as_text(record: Record) -> str:
    """A record for people: place, key, value."""
    key = "-" if record.key is None else _text(record.key)
    value = "null" if record.value is None else _text(record.value)
    damaged = f"  damaged: {record.headers.fault}" if isinstance(record.headers, Damaged) else ""
    return f"{record.partition}/{record.offset}  {key}  {value}{damaged}"


def _json_or_text(value: bytes) -> orjson.Fragment | str | None:
    """JSON byte for byte, but for line breaks, which are blanks there; else text."""
    if _is_json(value):
        return orjson.Fragment(value.replace(b"\r", b" ").replace(b"\n", b" "))
    return _text(value)


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        try:
            return has_only_json(value.decode())
        except (ValueError, RecursionError):
            return False
    return True


def _name(name: str) -> str:
    # One that is not UTF-8 comes with half surrogates.
    return name.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="backslashreplace")
