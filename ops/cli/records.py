"""Commands for records: send lines of a file, and print records of a topic."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer

from ops.cli.options import ConfigOption, JsonOption
from ops.cli.terminal import EXIT_USAGE, configuration, err, errors_in_words, fail, json_line, out
from ops.config.state_dir import DEFAULT_FILE
from ops.errors import NoJsonObject, NotRunning
from serve.json_fields import has_only_json, literal_fields
from serve.reading import BYTE_ORDER_MARK
from stream.records import Damaged, Record

if TYPE_CHECKING:
    from stream.settings import KafkaSettings

Format = Literal["json", "text"]
# Headers of a dead letter that explain it.
REASONS = ("bertstream.errors.kind", "bertstream.errors.message")


def produce(
    topic: str,
    file: Annotated[str, typer.Argument(help="Lines to send; - for stdin.")] = "-",
    key_field: Annotated[
        str | None, typer.Option(help="JSON field whose value becomes the key.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="text: any line, unchanged; json: objects only. "
            "Default: json with --key-field, else text.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Records per second; 0 for no limit.", min=0)] = 0,
    config: ConfigOption = None,
) -> None:
    """Send each line of a file as one record: JSON lines or plain text."""
    with errors_in_words():
        if key_field is not None and form == "text":
            fail("--key-field needs JSON lines: leave out --format text", EXIT_USAGE)
        kafka = _kafka(config)
        if file != "-" and not Path(file).is_file():
            fail(f"there is no file {file}", EXIT_USAGE)
        lines = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
        with lines:
            count = produce_lines(
                kafka,
                topic,
                lines,
                as_json=form == "json" or key_field is not None,
                key_field=key_field,
                rate=rate,
            )
        err.print(f"{count} records sent to {topic}")


def consume(
    topic: str,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record.")
    ] = False,
    max_records: Annotated[
        int, typer.Option("--max", help="Stop after N records; 0 for no limit.", min=0)
    ] = 0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Stop after N quiet seconds; 0 for never.", min=0)
    ] = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show committed records as they arrive."""
    from stream.kafka.topic_io import read_topic

    # Always closed: otherwise the client's thread would keep the command from ending.
    with (
        errors_in_words(),
        closing(
            read_topic(
                _kafka(config), topic, from_beginning=from_beginning, timeout_s=timeout_s or None
            )
        ) as records,
    ):
        for count, record in enumerate(records, start=1):
            if as_json:
                json_line(as_json_line(record))
            else:
                out.print(as_text(record), soft_wrap=True, markup=False)
            if count == max_records:
                break


def _kafka(config: Path | None) -> KafkaSettings:
    """Return Kafka settings with the address of the running platform, or as configured."""
    from ops.config.settings import EMBEDDED, PlatformConfig
    from ops.platform.installation import PlatformState, embedded_broker

    named = config is not None or DEFAULT_FILE.exists()
    settings = configuration(config) if named else PlatformConfig()
    if settings.kafka.bootstrap_servers != EMBEDDED:
        return settings.kafka
    embedded = embedded_broker(settings.state_dir)
    if not embedded.is_running():
        raise NotRunning("the embedded Kafka does not run; `bertstream up` starts it")
    state = PlatformState(instance="", bootstrap_servers=embedded.bootstrap_servers)
    return state.kafka(settings.kafka)


def produce_lines(
    kafka: KafkaSettings,
    topic: str,
    lines: Iterable[bytes],
    *,
    as_json: bool,
    key_field: str | None,
    rate: float,
) -> int:
    """Send each line that is not empty, unchanged, and return the number of records.

    Args:
        as_json: Accept JSON objects only.
        key_field: Field of a JSON line whose value becomes the key, as text; a line without
            the field has no key.
        rate: Records per second; 0 for no limit.
    Raises:
        NoJsonObject: A line is not a JSON object; names it and the number of records sent before.
    """
    from stream.kafka.topic_io import TopicWriter

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
                break  # not raised here: the writer would drop records that are being sent
            writer.write(key, value)
            count += 1
            if rate:
                time.sleep(max(0.0, start + count / rate - time.monotonic()))
    if refused:
        raise NoJsonObject(
            f"{refused}; {count} records before it were sent to {topic}, and none "
            "from it on. Correct the line, or send any text with --format text"
        )
    return count


def key_of(value: bytes, field: str | None) -> bytes | None:
    """Return the key of a JSON line: a field's value as text, numbers as written; None for none.

    Raises:
        NoJsonObject: The line is not a JSON object.
    """
    try:
        fields = literal_fields(value.removeprefix(BYTE_ORDER_MARK).decode())
    except (ValueError, RecursionError) as exc:
        raise NoJsonObject(f"is not JSON ({exc})") from exc
    if fields is None:
        raise NoJsonObject("is JSON, but not an object")
    literal = "null" if field is None else fields.get(field, "null")
    if literal.startswith('"'):
        # A key can be any bytes, so a lone surrogate is valid.
        return str(json.loads(literal)).encode("utf-8", "surrogatepass")
    return None if literal == "null" else literal.encode()


def as_json_line(record: Record) -> str:
    """Return a complete record as one JSON object, which embeds a JSON value unchanged."""
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
    """Return a record for people: partition and offset, key, value."""
    key = "-" if record.key is None else _text(record.key)
    value = "null" if record.value is None else _text(record.value)
    damaged = f"  damaged: {record.headers.fault}" if isinstance(record.headers, Damaged) else ""
    reason = "".join(f"  {_text(content)}" for name, content in record.headers if name in REASONS)
    return f"{record.partition}/{record.offset}  {key}  {value}{reason}{damaged}"


def _json_or_text(value: bytes) -> orjson.Fragment | str | None:
    """Return JSON byte for byte, except that line breaks become blanks; anything else as text."""
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
    # Bytes that are not UTF-8 arrive as lone surrogates.
    return name.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="backslashreplace")
