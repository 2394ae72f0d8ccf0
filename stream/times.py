"""Times in records: whole milliseconds since 1970, as Kafka has them."""

from __future__ import annotations

from datetime import UTC, datetime


def to_ms(moment: datetime) -> int:
    """The milliseconds of an aware time."""
    return int(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """The time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
