"""Commands for records: lines of a file to records, and records to lines of a terminal."""

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


def produce(
    topic: str,
    file: Annotated[str, typer.Argument(help="Lines to send; - reads stdin.")] = "-",
    key_field: Annotated[
        str | None, typer.Option(help="JSON field whose value becomes the key.")
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="text: any line, as it stands; json: objects only. "
            "json with --key-field, else text.",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(help="Records per second; 0 for no limit.", min=0)] = 0,
    config: ConfigOption = None,
) -> None:
    """Send each line of a file as one record: JSON lines or plain text."""
    with errors_in_words():
        if key_field is not None and form == "text":
            fail("--key-field names a field of JSON lines: leave out --format text", EXIT_USAGE)
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
        int, typer.Option("--max", help="End after so many; 0 for no limit.", min=0)
    ] = 0,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="End after so many quiet seconds; 0 never.", min=0)
    ] = 0,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show committed records as they come."""
    from stream.kafka.topic_io import read_topic

    # Closed whatever happens: the client's thread would keep the command from ending.
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
    """The Kafka settings with the address in use: of a running platform, or as configured."""
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
    """Send each line that is not empty, as it stands; returns how many.

    Args:
        as_json: Take JSON objects only.
        key_field: Of a JSON line: its value becomes the key, as text; a line without it has
            no key.
        rate: Records per second; 0 for no limit.
    Raises:
        NoJsonObject: The first such line, and how many were sent before it.
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
