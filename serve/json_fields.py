"""The fields of a JSON object as literal text, where a parser would change them. Pure.

Accepts what Python's ``json`` accepts: numbers of any size, NaN, infinities, half surrogate pairs.
"""

from __future__ import annotations

import json
import re
from typing import Final

_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str)
_BLANKS: Final = re.compile(r"[ \t\n\r]*")


def literal_fields(text: str) -> dict[str, str] | None:
    """Find the fields of a JSON object.

    Returns:
        The literal of each field by its name, the last one where a name is repeated; None where
        the text is JSON but not an object.
    Raises:
        json.JSONDecodeError: The text is not JSON.
        RecursionError: The text nests deeper than Python's stack, about 1,000 levels.
    """
    place = _behind_blanks(text, 0)
    if not text.startswith("{", place):
        _, end = _DECODER.raw_decode(text, place)
        _require_end(text, end)
        return None
    fields: dict[str, str] = {}
    place = _behind_blanks(text, place + 1)
    if text.startswith("}", place):
        _require_end(text, place + 1)
        return fields
    while True:
        _require(text, place, '"', "a field's name in double quotes")
        name, end = _DECODER.raw_decode(text, place)
        place = _behind_blanks(text, end)
        _require(text, place, ":", "a colon")
        start = _behind_blanks(text, place + 1)
        _, end = _DECODER.raw_decode(text, start)
        fields[name] = text[start:end]
        place = _behind_blanks(text, end)
        if text.startswith("}", place):
            _require_end(text, place + 1)
            return fields
        _require(text, place, ",", "a comma or the end of the object")
        place = _behind_blanks(text, place + 1)


def has_only_json(literal: str) -> bool:
    """Return whether a literal is free of NaN and infinities, which JSON does not allow."""
    found: list[str] = []
    json.loads(literal, parse_constant=found.append, parse_int=str, parse_float=str)
    return not found


def _behind_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    assert match is not None  # it also matches the empty string
    return match.end()


def _require(text: str, place: int, character: str, name: str) -> None:
    if not text.startswith(character, place):
        raise json.JSONDecodeError(f"expected {name}", text, place)


def _require_end(text: str, place: int) -> None:
    place = _behind_blanks(text, place)
    if place != len(text):
        raise json.JSONDecodeError("unexpected text after the value", text, place)
