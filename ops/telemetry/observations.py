"""Keeps what pipelines reported recently in memory, to make the evidence of a step from it.

Everything here can be read again from Kafka: an operator that takes over starts empty.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from stream.schema import ComparisonRecord, ConsumerRecord, PlatformRecord, TelemetryRecord

# Windows kept per model: over three hours of 5 s windows of two versions and two consumers.
MAX_WINDOWS = 10_000
MAX_LOSSES = 1_000
# A window may be reported later than others that began after it ended: its consumer was busy or
# had to report it again, or the clock of its machine is behind.
LATE_MS = 60_000

# A heartbeat older than this belongs to a consumer that has ended.
CONSUMER_SILENCE = timedelta(seconds=30)

Element = TypeVar("Element")
WindowRecord = TypeVar("WindowRecord", TelemetryRecord, ComparisonRecord)
NO_WINDOWS: Sequence[TelemetryRecord] = ()
NO_COMPARISONS: Sequence[ComparisonRecord] = ()


class ReadPosition(NamedTuple):
    """Numbers of a model's windows and comparisons that a reader has seen."""

    windows: int = 0
    comparisons: int = 0


NOTHING = ReadPosition()


class DeletedRecords(NamedTuple):
    """Records that were deleted before a pipeline read them.

    Attributes:
        place: Place of the first one: ``topic/partition/offset``.
        records: Largest possible number: some offsets may have had no record.
        at_ms: When the loss was reported, in ms since 1970.
    """

    pipeline: str
    place: str
    records: int
    at_ms: int

    def sentence(self) -> str:
        """Describe the loss in one sentence."""
        partition, _, first = self.place.rpartition("/")
        last = int(first) + self.records - 1
        return (
            f"{self.records:,} records of {partition}, offsets {first} to {last}, were deleted "
            f"before pipeline {self.pipeline} read them"
        )


class Observations:
    """Telemetry, comparisons and heartbeats by model; for several threads."""

    def __init__(self, *, counted_from_ms: int = 0, is_current: bool = True) -> None:
        """Start without any reports.

        Args:
            counted_from_ms: Windows that ended earlier are not counted by ``answers``: the
                previous operator has counted them.
            is_current: Whether all earlier reports have been read; the reader sets it. Until
                then a consumer without a heartbeat may still be running.
        """
        self.is_current = is_current
        self._lock = threading.Lock()
        self._counted_from_ms = counted_from_ms
        self._counted: dict[str, ReadPosition] = {}
        self._answers: Counter[tuple[str, str]] = Counter()
        self._windows: dict[str, deque[TelemetryRecord]] = {}
        self._comparisons: dict[str, deque[ComparisonRecord]] = {}
        self._consumers: dict[tuple[str, int], ConsumerRecord] = {}
        self._newest_ms: dict[str, int] = {}
        self._deleted: dict[tuple[str, str], DeletedRecords] = {}

    def add(self, records: Iterable[PlatformRecord]) -> None:
        """Add the records that were read, in the order of the topics."""
        with self._lock:
            for record in records:
                match record:
                    case TelemetryRecord(model=str(model)):
                        name = record.pipeline or ""
                        for place, count in record.deleted.items():
                            self._lose(DeletedRecords(name, place, count, record.end_ms))
                        newest_ms = self._newest_ms.get(name, record.end_ms)
                        self._newest_ms[name] = max(record.end_ms, newest_ms)
                        self._windows.setdefault(model, deque(maxlen=MAX_WINDOWS)).append(record)
                        windows, comparisons = self._counted.get(model, NOTHING)
                        self._counted[model] = ReadPosition(windows + 1, comparisons)
                        if record.end_ms >= self._counted_from_ms:
                            self._answers[model, record.version or ""] += record.answers
                    case ComparisonRecord():
                        kept = self._comparisons.setdefault(record.model, deque(maxlen=MAX_WINDOWS))
                        kept.append(record)
                        windows, comparisons = self._counted.get(record.model, NOTHING)
                        self._counted[record.model] = ReadPosition(windows, comparisons + 1)
                    case ConsumerRecord():
                        self._consumers[(record.pipeline, record.consumer)] = record
                    case _:
                        pass  # a window without a model is not needed

    def _lose(self, loss: DeletedRecords) -> None:
        self._deleted.pop((loss.pipeline, loss.place), None)
        self._deleted[loss.pipeline, loss.place] = loss
        if len(self._deleted) > MAX_LOSSES:
            del self._deleted[next(iter(self._deleted))]

    def losses(self) -> list[DeletedRecords]:
        """Return the records that were deleted before they were read, the latest last."""
        with self._lock:
            return [*self._deleted.values()]

    def windows(self, model: str, *, since_ms: int) -> list[TelemetryRecord]:
        """Return the windows that began at ``since_ms`` or later."""
        with self._lock:
            return _since(self._windows.get(model, ()), since_ms)

    def comparisons(self, model: str, *, since_ms: int) -> list[ComparisonRecord]:
        """Return the comparisons that began at ``since_ms`` or later."""
        with self._lock:
            return _since(self._comparisons.get(model, ()), since_ms)

    def news(
        self, model: str, seen: ReadPosition
    ) -> tuple[list[TelemetryRecord], list[ComparisonRecord], ReadPosition]:
        """Return what arrived after a position, and the new position."""
        with self._lock:
            counted = self._counted.get(model, NOTHING)
            windows = _last(self._windows.get(model, NO_WINDOWS), counted.windows - seen.windows)
            fresh = counted.comparisons - seen.comparisons
            return windows, _last(self._comparisons.get(model, NO_COMPARISONS), fresh), counted

    def answers(self, model: str, version: str) -> int:
        """Return how many records a version has answered in all counted windows."""
        with self._lock:
            return self._answers[model, version]

    def newest_ms(self) -> dict[str, int]:
        """Return when the newest window of each pipeline ended, however long ago that is."""
        with self._lock:
            return dict(self._newest_ms)

    def consumers(self, *, since_ms: int) -> list[ConsumerRecord]:
        """Return the last heartbeat of each consumer that sent one since a given time."""
        with self._lock:
            return [last for last in self._consumers.values() if last.at_ms >= since_ms]


def _since(windows: Sequence[WindowRecord], since_ms: int) -> list[WindowRecord]:
    """Search from the right: the newest windows are there, and few are requested."""
    found = []
    for window in reversed(windows):
        # Consumers' windows overlap: one further left may have begun later.
        if window.end_ms < since_ms - LATE_MS:
            break
        if window.start_ms >= since_ms:
            found.append(window)
    return found[::-1]


def _last(windows: Sequence[Element], count: int) -> list[Element]:
    newest = [*islice(reversed(windows), count)]
    return newest[::-1]
