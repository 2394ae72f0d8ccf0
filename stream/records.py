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
        end: Behind the last record that can be read: in front of an open transaction.
        committed: Where the group goes on.
        held: Offsets behind ``end`` that an open transaction holds back.
    """

    end: int
    committed: int
    held: int = 0

    @property
    def lag(self) -> int:
        """Offsets that wait."""
        return max(0, self.end - self.committed)


class OpenTransaction(NamedTuple):
    """An open transaction on a partition, and what waits behind it.

    Attributes:
        offset: Where it began.
        records: Offsets from there on, at most so many records.
        transactional_id: Of its producer; None where the broker does not say.
        open_s: For how long it has been open; None where the broker does not say.
    """

    partition: Partition
    offset: int
    records: int
    transactional_id: str | None
    open_s: float | None

    def sentence(self) -> str:
        """What is held back and by whom, for people."""
        topic, number = self.partition
        whose = "an open transaction"
        if self.transactional_id is not None:
            whose = f"the open transaction of {self.transactional_id!r}"
        since = "" if self.open_s is None else f", open for {self.open_s:.0f} s"
        return (
            f"{self.records:,} records of {topic}/{number} wait behind {whose} at offset "
            f"{self.offset}{since}"
        )


Offsets = Mapping[Partition, int]
"""Next offset to read, per partition: what Kafka calls the committed offset."""
