"""What the pipelines told lately, kept in memory, and made into the evidence of a step.

Everything here can be read again from Kafka: an operator that takes over starts with nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from stream.schema import ComparisonRecord, ConsumerRecord, PlatformRecord, TelemetryRecord

# Windows kept of one model. At 5 s a window, two versions and two consumers, over three hours.
MAX_WINDOWS = 10_000
MAX_LOSSES = 1_000
# A window may be told later than others that began after it ended: its consumer was busy or had
# to tell it again, or the clock of its machine is behind.
LATE_MS = 60_000

# A heartbeat older than that is of a consumer that is gone.
CONSUMER_SILENCE = timedelta(seconds=30)

Element = TypeVar("Element")
WindowRecord = TypeVar("WindowRecord", TelemetryRecord, ComparisonRecord)
NO_WINDOWS: Sequence[TelemetryRecord] = ()
NO_COMPARISONS: Sequence[ComparisonRecord] = ()


class ReadPosition(NamedTuple):
    """How much of a model's windows and comparisons somebody has looked at."""

    windows: int = 0
    comparisons: int = 0


NOTHING = ReadPosition()


class DeletedRecords(NamedTuple):
    """Records that were deleted before a pipeline read them.

    Attributes:
        place: Of the first: ``topic/partition/offset``.
        records: How many at most: offsets may have had no record.
        at_ms: When it was told, in ms since 1970.
    """

    pipeline: str
    place: str
    records: int
    at_ms: int

    def sentence(self) -> str:
        """What happened, for people."""
        partition, _, first = self.place.rpartition("/")
        last = int(first) + self.records - 1
        return (
            f"{self.records:,} records of {partition}, offsets {first} to {last}, were deleted "
            f"before pipeline {self.pipeline} read them"
        )


class Observations:
    """Telemetry, comparisons and heartbeats by model; for several threads."""

    def __init__(self, *, counted_from_ms: int = 0, is_current: bool = True) -> None:
        """Nothing was told yet.

        Args:
            counted_from_ms: Windows that ended before are not among ``answers``: whoever was
                there before has counted them.
            is_current: Nothing is still to be read that was told before; whoever reads sets it.
                Until then a consumer that is not heard of may be at work all the same.
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

    def add(self, told: Iterable[PlatformRecord]) -> None:
        """Take in what was read, in the order of the topics."""
        with self._lock:
            for record in told:
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
                        pass  # a window of no model is nobody's

    def _lose(self, loss: DeletedRecords) -> None:
        self._deleted.pop((loss.pipeline, loss.place), None)
        self._deleted[loss.pipeline, loss.place] = loss
        if len(self._deleted) > MAX_LOSSES:
            del self._deleted[next(iter(self._deleted))]

    def losses(self) -> list[DeletedRecords]:
        """Records that were deleted before they were read; the latest last."""
        with self._lock:
            return [*self._deleted.values()]

    def windows(self, model: str, *, since_ms: int) -> list[TelemetryRecord]:
        """Those that began at a moment or later."""
        with self._lock:
            return _since(self._windows.get(model, ()), since_ms)

    def comparisons(self, model: str, *, since_ms: int) -> list[ComparisonRecord]:
        """Those that began at a moment or later."""
        with self._lock:
            return _since(self._comparisons.get(model, ()), since_ms)

    def news(
        self, model: str, seen: ReadPosition
    ) -> tuple[list[TelemetryRecord], list[ComparisonRecord], ReadPosition]:
        """What came since somebody looked, and where to go on from."""
        with self._lock:
            counted = self._counted.get(model, NOTHING)
            windows = _last(self._windows.get(model, NO_WINDOWS), counted.windows - seen.windows)
            fresh = counted.comparisons - seen.comparisons
            return windows, _last(self._comparisons.get(model, NO_COMPARISONS), fresh), counted

    def answers(self, model: str, version: str) -> int:
        """Records that a version has answered, of all windows that are counted."""
        with self._lock:
            return self._answers[model, version]

    def newest_ms(self) -> dict[str, int]:
        """When the newest window of each pipeline ended, however long ago that is."""
        with self._lock:
            return dict(self._newest_ms)

    def consumers(self, *, since_ms: int) -> list[ConsumerRecord]:
        """How each consumer stood last, of those that told so since a moment."""
        with self._lock:
            return [told for told in self._consumers.values() if told.at_ms >= since_ms]


def _since(windows: Sequence[WindowRecord], since_ms: int) -> list[WindowRecord]:
    """From the right: the newest stand there, and few are asked for."""
    found = []
    for window in reversed(windows):
        # Consumers' windows overlap: further left may stand one that began later.
        if window.end_ms < since_ms - LATE_MS:
            break
        if window.start_ms >= since_ms:
            found.append(window)
    return found[::-1]


def _last(windows: Sequence[Element], count: int) -> list[Element]:
    newest = [*islice(reversed(windows), count)]
    return newest[::-1]
