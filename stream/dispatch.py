"""Cuts micro-batches from the records that wait, one queue per model version. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stream.offsets import Slot


class Queues:
    """Slots that wait for a call, in the order they were read, by version."""

    def __init__(self, *, max_records: int, max_bytes: int) -> None:
        """Make empty queues.

        Args:
            max_records: Of one micro-batch.
            max_bytes: Of the values of one micro-batch; a larger record goes alone.
        """
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._queues: dict[str, deque[Slot]] = {}
        self._bytes = 0

    def put(self, slot: Slot) -> None:
        """Append a slot whose record has a value."""
        self._queues.setdefault(slot.version, deque()).append(slot)
        self._bytes += _size(slot)

    def versions(self) -> set[str]:
        """Those that records wait for; from any thread."""
        return {version for version, queue in self._queues.copy().items() if queue}

    def is_full(self) -> bool:
        """Whether a whole micro-batch waits: reading more would only cost memory."""
        return len(self) >= self._max_records or self._bytes >= self._max_bytes

    def cut(self, *, partial: bool) -> list[Slot]:
        """Take the next micro-batch; empty where none is due.

        Args:
            partial: Take one that is not full, too. Under load it is better to let it grow
                while the replicas are busy.
        """
        version = next((version for version, queue in self._queues.items() if queue), None)
        if version is None or not (partial or self.is_full()):
            return []
        # Versions take turns: the few records of a canary hold up the commit of all behind them.
        queue = self._queues[version] = self._queues.pop(version)
        batch = [queue.popleft()]
        size = _size(batch[0])
        while queue and len(batch) < self._max_records:
            size += _size(queue[0])
            if size > self._max_bytes:
                break
            batch.append(queue.popleft())
        self._bytes -= sum(map(_size, batch))
        return batch

    def drop(self, unwanted: Callable[[Slot], bool]) -> list[Slot]:
        """Take slots out, of partitions that are gone for example."""
        dropped = [slot for queue in self._queues.values() for slot in queue if unwanted(slot)]
        for version, queue in self._queues.items():
            self._queues[version] = deque(slot for slot in queue if not unwanted(slot))
        self._bytes -= sum(map(_size, dropped))
        return dropped

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


def _size(slot: Slot) -> int:
    return len(slot.record.value or b"")
