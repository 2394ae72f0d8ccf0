"""Data types of a pipeline: input records, outputs and offsets. Pure; no Kafka client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes | None]]


class Partition(NamedTuple):
    """One partition of a topic; equal to any client's ``(topic, partition)`` tuple."""

    topic: str
    partition: int


class Damaged(list[tuple[str, bytes | None]]):
    """Headers of a record that arrived damaged: its readable parts cannot be trusted.

    Attributes:
        fault: Description of the damage, for people.
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
    """A record to send: a prediction, a dead letter or a telemetry window."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Deleted(NamedTuple):
    """Records that were deleted before the pipeline read them.

    Attributes:
        first: Offset of the first deleted record.
        following: First offset that still exists.
    """

    partition: Partition
    first: int
    following: int

    @property
    def records(self) -> int:
        """Return the maximum number of deleted records: some offsets may have had no record."""
        return self.following - self.first


class GroupOffsets(NamedTuple):
    """Progress of a group in a partition.

    Attributes:
        end: Offset after the last readable record; an open transaction begins here.
        committed: Next offset that the group reads.
        held: Number of offsets after ``end`` that an open transaction blocks.
    """

    end: int
    committed: int
    held: int = 0

    @property
    def lag(self) -> int:
        """Return the number of offsets that wait to be read."""
        return max(0, self.end - self.committed)


class OpenTransaction(NamedTuple):
    """An open transaction on a partition, and the records that wait behind it.

    Attributes:
        offset: Offset at which the transaction began.
        records: Number of offsets from there on, an upper bound of the records that wait.
        transactional_id: Id of its producer; None if the broker does not report it.
        open_s: Seconds since it was opened; None if the broker does not report it.
    """

    partition: Partition
    offset: int
    records: int
    transactional_id: str | None
    open_s: float | None

    def sentence(self) -> str:
        """Return a sentence for people: which records wait, and for which transaction."""
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
