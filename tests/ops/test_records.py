"""Lines to records and back."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from ops.records import as_json_line, as_text, key_of


class Seen(NamedTuple):
    value: bytes | None
    key: bytes | None = b"k"
    headers: tuple[tuple[str, bytes], ...] = (("h", b"v"),)
    topic: str = "t"
    partition: int = 2
    offset: int = 7
    timestamp: int = 1


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"user": "u1"}', b"u1"),
        (b'{"user": 5}', b"5"),
        (b'{"user": null}', None),
        (b'{"other": 1}', None),
        (b"[1]", None),
        (b"no json", None),
    ],
)
def test_key_is_the_fields_value(line: bytes, key: bytes | None) -> None:
    assert key_of(line, "user") == key
    assert key_of(line, None) is None


def test_json_line_holds_the_record_whole() -> None:
    shown = json.loads(as_json_line(Seen(b'{"a": 1}')))
    assert shown["value"] == {"a": 1}
    assert (shown["key"], shown["headers"], shown["offset"]) == ("k", {"h": "v"}, 7)
    assert json.loads(as_json_line(Seen(None, key=None)))["value"] is None
    assert json.loads(as_json_line(Seen(b"\xff")))["value"] == "\\xff"


def test_text_shows_place_key_and_value() -> None:
    assert as_text(Seen(b"hello")) == "2/7  k  hello"
    assert as_text(Seen(None, key=None)) == "2/7  -  null"
