"""Lines of a file to records, and records to lines of a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson

from ops.errors import NoJsonObject
from stream.clients import TopicWriter
from stream.records import Record
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
    """The key of a JSON line: a field's value as text; None where there is none.

    Raises:
        NoJsonObject: It has no fields.
    """
    try:
        content = orjson.loads(value)
    except orjson.JSONDecodeError as exc:
        raise NoJsonObject(f"is not JSON ({exc})") from exc
    if not isinstance(content, dict):
        raise NoJsonObject("is JSON, but no object")
    found = None if field is None else content.get(field)
    if found is None:
        return None
    return found.encode() if isinstance(found, str) else orjson.dumps(found)


def as_json_line(record: Record) -> str:
    """A record whole, as one JSON object; a value that is JSON stands as JSON."""
    value: Any = None if record.value is None else _json_or_text(record.value)
    content = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
        "headers": {k: (v or b"").decode(errors="backslashreplace") for k, v in record.headers},
        "value": value,
    }
    return orjson.dumps(content).decode()


def as_text(record: Record) -> str:
    """A record for people: place, key, value."""
    key = "-" if record.key is None else record.key.decode(errors="backslashreplace")
    value = "null" if record.value is None else record.value.decode(errors="backslashreplace")
    return f"{record.partition}/{record.offset}  {key}  {value}"


def _json_or_text(value: bytes) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value.decode(errors="backslashreplace")
