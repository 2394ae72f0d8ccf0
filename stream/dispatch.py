"""Micro-batches of the waiting records, with one queue per model version. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from stream.offsets import Slot


class Queues:
    """Queues of slots that wait for a call, one per version, in the order they were read."""

    def __init__(self, *, max_records: int, max_bytes: int) -> None:
        """Create empty queues.

        Args:
            max_records: Maximum records of one micro-batch.
            max_bytes: Maximum size of the values of one micro-batch; a larger record goes alone.
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
        """Return the versions with waiting records; may be called from any thread."""
        return {version for version, queue in self._queues.copy().items() if queue}

    def is_full(self) -> bool:
        """Return whether a full micro-batch waits: reading more would only cost memory."""
        return len(self) >= self._max_records or self._bytes >= self._max_bytes

    def cut(self, *, partial: bool) -> list[Slot]:
        """Take the next micro-batch; empty if none is due.

        Args:
            partial: Also take one that is not full. Under load it is better to let it grow
                while the replicas are busy.
        """
        version = next((version for version, queue in self._queues.items() if queue), None)
        if version is None or not (partial or self.is_full()):
            return []
        # Round-robin over versions: a canary's few records block the commit of all behind them.
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
        """Remove and return the unwanted slots, for example those of revoked partitions."""
        dropped = [slot for queue in self._queues.values() for slot in queue if unwanted(slot)]
        for version, queue in self._queues.items():
            self._queues[version] = deque(slot for slot in queue if not unwanted(slot))
        self._bytes -= sum(map(_size, dropped))
        return dropped

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))


def _size(slot: Slot) -> int:
    return len(slot.record.value or b"")
