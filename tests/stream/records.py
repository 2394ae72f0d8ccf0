"""Records as a consumer delivers them, for tests without a broker."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PlainRecord:
    topic: str = "in"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = b"k"
    value: bytes | None = b'{"text": "a"}'
    headers: list[tuple[str, bytes]] = field(default_factory=list)
