"""The shapes that travel through a pipeline: records in, outputs out. Pure; no Kafka client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes | None]]


class Partition(NamedTuple):
    """One partition of a topic; equal to any client's ``(topic, partition)`` tuple."""

    topic: str
    partition: int


class Damaged(list[tuple[str, bytes | None]]):
    """Headers of a record that arrived damaged: what is left of it proves nothing.

    Attributes:
        fault: What is wrong, for people.
    """

    def __init__(self, headers: Headers, fault: str) -> None:
        super().__init__(headers)
        self.fault = fault


class Record(Protocol):
    """A record as the consumer delivers it; the attributes are kafka-python's.

    ``timestamp`` is in milliseconds since the epoch; ``value`` is None for a tombstone.
    """

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


class Output(NamedTuple):
    """A record to be sent: a prediction, a dead letter or a telemetry window."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Deleted(NamedTuple):
    """Records that were deleted before the pipeline read them.

    Attributes:
        first: Offset of the first.
        following: The first that is still there.
    """

    partition: Partition
    first: int
    following: int

    @property
    def records(self) -> int:
        """How many at most: offsets may have had no record."""
        return self.following - self.first


class GroupOffsets(NamedTuple):
    """How far a group is in a partition.

    Attributes:
        end: Behind the last record.
        committed: Where the group goes on.
    """

    end: int
    committed: int


Offsets = Mapping[Partition, int]
"""Next offset to read, per partition: what Kafka calls the committed offset."""
