"""Tracks which records are done, and how far each partition may be committed. Pure.

Records of one partition are committed in the order in which they were read, in whatever order
their answers arrive; this preserves the order per key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from serve.contract import Outcome
from stream.records import Deleted, Output, Partition, Record


class Slot:
    """The place of one record in its partition.

    Attributes:
        record: The record as it was read.
        version: Version of the model that answers it.
        outcome: Outcome of the record; None until it is done.
        outputs: Records that are sent for it, at least one; empty until it is done.
    """

    __slots__ = ("outcome", "outputs", "record", "version")

    def __init__(self, record: Record, version: str) -> None:
        self.record = record
        self.version = version
        self.outcome: Outcome | None = None
        self.outputs: Sequence[Output] = ()


class Prefix(NamedTuple):
    """Slots and offsets that can be committed now.

    Attributes:
        slots: Slots that are done, in the order of their partition.
        offsets: Next offset to read, for each partition that has one.
        deleted: Deleted records that are skipped.
    """

    slots: list[Slot]
    offsets: dict[Partition, int]
    deleted: list[Deleted]


class OffsetTracker:
    """Slots of all records that were read and not yet taken for a commit, by partition.

    Attributes:
        value_bytes: Total size of the values of their records, in bytes.
    """

    def __init__(self) -> None:
        self._slots: dict[Partition, deque[Slot]] = {}
        self._deleted: dict[Partition, Deleted] = {}
        self.value_bytes = 0

    def add(self, record: Record, version: str) -> Slot:
        """Open a slot for a record; records of a partition must be added in order."""
        slot = Slot(record, version)
        partition = Partition(record.topic, record.partition)
        slots = self._slots.get(partition)
        if slots is None:
            slots = self._slots[partition] = deque()
        slots.append(slot)
        self.value_bytes += _size(slot)
        return slot

    def pass_over(self, deleted: Deleted) -> None:
        """Mark deleted records as done, to be committed; none of them has an open slot."""
        self._deleted[deleted.partition] = deleted

    def take(self) -> Prefix:
        """Remove and return the longest done prefix of every partition.

        The caller commits all of it; if that fails, it calls ``forget`` and reads from Kafka
        again: what was taken does not come back.
        """
        taken: list[Slot] = []
        deleted = [*self._deleted.values()]
        self._deleted.clear()
        offsets = {gone.partition: gone.following for gone in deleted}
        for partition, slots in self._slots.items():
            last = None
            while slots and slots[0].outputs:
                last = slots.popleft()
                taken.append(last)
                self.value_bytes -= _size(last)
            if last is not None:
                offsets[partition] = last.record.offset + 1
        return Prefix(taken, offsets, deleted)

    def has_prefix(self) -> bool:
        """Return whether ``take`` would return anything."""
        done = (slots and slots[0].outputs for slots in self._slots.values())
        return bool(self._deleted) or any(done)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Drop the slots of partitions that are lost or will be read again.

        Answers that arrive later are set on slots that are no longer used.
        """
        for partition in list(partitions):
            self.value_bytes -= sum(map(_size, self._slots.pop(partition, ())))
            self._deleted.pop(partition, None)

    def rewind(self) -> None:
        """Drop all slots; their records will be read again."""
        self.forget([*self._slots, *self._deleted])

    def open_slots(self, partitions: Iterable[Partition] | None = None) -> Iterator[Slot]:
        """Return the slots that are not done, of the given partitions or of all."""
        wanted = self._slots.keys() if partitions is None else partitions
        slots = chain.from_iterable(self._slots.get(partition, ()) for partition in wanted)
        return (slot for slot in slots if not slot.outputs)

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))


def _size(slot: Slot) -> int:
    return len(slot.record.value or b"")
