"""Durations as people write and read them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.config.duration import in_words, parsed, written


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), ("0s", 0)]
)
def test_number_with_unit(text: str, seconds: int) -> None:
    assert parsed(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("bare", [90, 1.5])
def test_bare_number_is_refused_with_a_hint(bare: float) -> None:
    with pytest.raises(ValueError, match=f"needs its unit, such as {bare}s, {bare}m"):
        parsed(bare)


@pytest.mark.parametrize(
    "wrong", ["", "90", "1h30m", "1.5h", "-3h", "3 h", "3w", None, True, ["3h"]]
)
def test_anything_else_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="30m or 7d"):
        parsed(wrong)


def test_more_than_a_year_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 366d"):
        parsed("367d")


@given(st.integers(0, 366 * 86_400))
def test_written_is_parsed_back(seconds: int) -> None:
    assert parsed(written(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=2, hours=4, minutes=59), "2 d 4 h"),
        (timedelta(days=2, minutes=5), "2 d"),
        (timedelta(hours=24), "24 h"),
        (timedelta(hours=47, minutes=30), "47 h 30 min"),
        (timedelta(minutes=3, seconds=20), "3 min 20 s"),
        (timedelta(milliseconds=400), "0 s"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_told_by_two_units(span: timedelta, words: str) -> None:
    assert in_words(span) == words
