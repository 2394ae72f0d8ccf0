"""Lines to records and back."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import NamedTuple

import pytest

from ops.cli.records import as_json_line, as_text, key_of, produce_lines
from ops.errors import NoJsonObject
from stream.kafka.topic_io import read_topic
from tests.broker import Broker, NewTopic

READ_DEADLINE_S = 20.0


class Seen(NamedTuple):
    value: bytes | None
    key: bytes | None = b"k"
    headers: tuple[tuple[str, bytes | None], ...] = (("h", b"v"),)
    topic: str = "t"
    partition: int = 2
    offset: int = 7
    timestamp: int = 1


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"user": "u1"}', b"u1"),
        (b'{"user": 5}', b"5"),
        (b'{"user": 12345678901234567890123}', b"12345678901234567890123"),
        (b'{"user": 1.10, "x": NaN}', b"1.10"),
        (b'{"user": "caf\\u00e9"}', "café".encode()),
        (b'{"user": null}', None),
        (b'{"other": 1}', None),
    ],
)
def test_key_is_the_fields_value(line: bytes, key: bytes | None) -> None:
    assert key_of(line, "user") == key
    assert key_of(line, None) is None


@pytest.mark.parametrize(("line", "why"), [(b"[1]", "not an object"), (b"no json", "not JSON")])
@pytest.mark.parametrize("field", ["user", None])
def test_line_without_fields_is_refused(line: bytes, field: str | None, why: str) -> None:
    with pytest.raises(NoJsonObject, match=why):
        key_of(line, field)


@pytest.mark.kafka
def test_line_that_is_no_json_ends_the_sending_and_says_what_was_sent(
    broker: Broker, topic_name: NewTopic
) -> None:
    topic = broker.create_topic(topic_name())
    lines = [b'{"user": "a"}\n', b"\n", b'{"user": "b"}\n', b"{oh\n", b'{"user": "c"}\n']
    with pytest.raises(NoJsonObject, match=r"line 4 is not JSON .*; 2 records before it"):
        produce_lines(broker.kafka, topic, lines, as_json=True, key_field="user", rate=0)
    assert produce_lines(broker.kafka, topic, lines, as_json=False, key_field=None, rate=0) == 4
    records = read_topic(broker.kafka, topic, from_beginning=True, timeout_s=READ_DEADLINE_S)
    with contextlib.closing(records):
        keys = [record.key for record in itertools.islice(records, 6)]
    assert keys == [b"a", b"b", None, None, None, None]


def test_json_line_holds_the_record_whole() -> None:
    shown = json.loads(as_json_line(Seen(b'{"a": 1}')))
    assert shown["value"] == {"a": 1}
    assert (shown["key"], shown["headers"], shown["offset"]) == ("k", [["h", "v"]], 7)
    assert json.loads(as_json_line(Seen(None, key=None)))["value"] is None
    assert json.loads(as_json_line(Seen(b"\xff")))["value"] == "\\xff"


DEEP = "[" * 254 + "]" * 254


@pytest.mark.parametrize(
    "value",
    [
        "12345678901234567890123",
        "1.10",
        '{"id": 1E400, "x": ' + DEEP + "}",
        '{"text": "half \\ud83d"}',
        '"caf\\u00e9"',
        "7" * 5000,
    ],
)
def test_json_stands_in_the_line_byte_for_byte(value: str) -> None:
    line = as_json_line(Seen(value.encode()))
    assert line.endswith(f'"value":{value}}}')
    json.loads(line, parse_int=str)


def test_value_of_several_lines_is_one_line() -> None:
    assert as_json_line(Seen(b'{\r\n"a": "\\n"}')).endswith('"value":{  "a": "\\n"}}')


@pytest.mark.parametrize("value", ["NaN", '{"a": [Infinity]}', "[" * 5000 + "]" * 5000, "{no"])
def test_what_is_no_json_is_text(value: str) -> None:
    assert json.loads(as_json_line(Seen(value.encode())))["value"] == value


def test_headers_are_pairs_in_their_order() -> None:
    headers = (("a", b"1"), ("b", None), ("a", b"\xff"), ("\udcff", b"2"))
    seen = Seen(b"1", headers=headers)
    found = json.loads(as_json_line(seen))["headers"]
    assert found == [["a", "1"], ["b", None], ["a", "\\xff"], ["\\xff", "2"]]


def test_text_shows_place_key_and_value() -> None:
    assert as_text(Seen(b"hello")) == "2/7  k  hello"
    assert as_text(Seen(None, key=None)) == "2/7  -  null"


def test_text_of_a_dead_letter_has_the_reason() -> None:
    headers = [
        ("trace", b"1"),
        ("bertstream.errors.kind", b"no-text"),
        ("bertstream.errors.message", b"send it"),
    ]
    assert as_text(Seen(b"{}", headers=headers)) == "2/7  k  {}  no-text  send it"
