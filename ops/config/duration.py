"""Durations as people write and read them: ``90s``, ``30m``, ``24h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
LONGEST = timedelta(days=366)
DAYS_FROM = 2 * SECONDS["d"]
WRITTEN = re.compile(r"(\d{1,9})([smhd])")


def parsed(value: Any) -> timedelta:
    """Parse a duration.

    Raises:
        ValueError: The value is not a whole number with a unit, or exceeds a year.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs its unit, such as {value}s, {value}m or {value}h")
    match = WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a whole number and s, m, h or d, such as 90s, 30m or 7d")
    span = timedelta(seconds=int(match[1]) * SECONDS[match[2]])
    if span > LONGEST:
        raise ValueError(f"a duration is at most {written(LONGEST)}")
    return span


def written(span: timedelta) -> str:
    """Return the shortest text for a duration of whole seconds; ``parsed`` reverses it."""
    seconds = int(span.total_seconds())
    unit = next((u for u, length in SECONDS.items() if seconds and seconds % length == 0), "s")
    return f"{seconds // SECONDS[unit]}{unit}"


def in_words(span: timedelta) -> str:
    """Format a duration in its two largest units: ``2 d 4 h``; below two days in hours."""
    seconds = max(0, round(span.total_seconds()))
    units = [unit for unit in SECONDS if unit != "d" or seconds >= DAYS_FROM]
    counts = []
    for unit in units:
        count, seconds = divmod(seconds, SECONDS[unit])
        counts.append(f"{count} {'min' if unit == 'm' else unit}" if count else "")
    first = next((index for index, count in enumerate(counts) if count), 0)
    return " ".join(count for count in counts[first : first + 2] if count) or "0 s"


def _lasting(span: timedelta) -> timedelta:
    if not span:
        raise ValueError("it must be longer than 0s")
    return span


Duration = Annotated[timedelta, BeforeValidator(parsed), PlainSerializer(written, return_type=str)]
LastingDuration = Annotated[Duration, AfterValidator(_lasting)]
