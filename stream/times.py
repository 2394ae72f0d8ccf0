"""Times in records: whole milliseconds since 1970, as in Kafka."""

from __future__ import annotations

from datetime import UTC, datetime


def to_ms(moment: datetime) -> int:
    """Return a timezone-aware time as milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """Return milliseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
