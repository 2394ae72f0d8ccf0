"""Constant load for a demonstration, and an independent count of the results."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Self

from ops.errors import OpsError
from serve.contract import AppName
from stream.kafka.topic_io import TopicWriter, read_topic
from stream.records import Record
from stream.settings import KafkaSettings, PipelineSettings

DRAIN_DEADLINE_S = 60.0
# A duplicate would arrive within this time.
LISTEN_ON_S = 2.0


class AnswerCounts:
    """Counts of a ``read_committed`` consumer; filled by reading threads, one of them for results.

    Attributes:
        sources: Number of answers to each input record, by its partition and offset.
        reordered: Number of results that came after a later result of the same key.
        longest_gap_s: Longest time between two results.
    """

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()
        self.dead_letters = self.reordered = 0
        self.longest_gap_s = 0.0
        self._by_version: Counter[str] = Counter()
        self._last_at: dict[str, float] = {}
        self._newest: dict[tuple[bytes | None, str], int] = {}
        self._seen_at: float | None = None

    def take(self, record: Record) -> None:
        """Count a result or a dead letter by the partition and offset of its input."""
        headers = dict(record.headers)
        source = (headers["bertstream-source"] or b"").decode()
        self.sources[source] += 1
        if "bertstream.errors.kind" in headers:
            self.dead_letters += 1
            return
        now = time.monotonic()
        if self._seen_at is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._seen_at)
        self._seen_at = now
        version = AppName.parse((headers["bertstream-model"] or b"").decode()).label
        self._by_version[version] += 1
        self._last_at[version] = time.time()
        partition, _, offset = source.rpartition("/")
        place = (record.key, partition)
        self.reordered += int(offset) < self._newest.get(place, -1)
        self._newest[place] = int(offset)

    def count(self, version: str) -> int:
        """Return the number of results of a version."""
        return self._by_version[version]

    def last_at(self, version: str) -> float:
        """Return when the last result of a version was read, in seconds since 1970; 0 for none."""
        return self._last_at.get(version, 0.0)

    def duplicated(self) -> int:
        """Return the number of answers beyond the first of each record."""
        return sum(times - 1 for times in self.sources.values())

    def in_words(self) -> str:
        """Return the number of results of each version, in words."""
        return ", ".join(f"{v}: {n}" for v, n in sorted(self._by_version.items())) or "nothing"


class Exchange(ABC):
    """Writes to a pipeline and reads its results, in threads; a context manager.

    Attributes:
        sent: Number of records sent so far.
    """

    def __init__(self, kafka: KafkaSettings, pipeline: PipelineSettings) -> None:
        """Create the threads; nothing is sent or read yet."""
        self.sent = 0
        self.stop = threading.Event()
        self._kafka, self._pipeline = kafka, pipeline
        self._fault: BaseException | None = None
        topics = (pipeline.output_topic, pipeline.dead_letters)
        self._readers = [
            threading.Thread(target=self._read, args=(topic,), daemon=True) for topic in topics
        ]
        self._writer = threading.Thread(target=self._write, name="load", daemon=True)

    def __enter__(self) -> Self:
        for thread in (*self._readers, self._writer):
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        for thread in (*self._readers, self._writer):
            thread.join(10)

    @abstractmethod
    def produce(self, writer: TopicWriter) -> None:
        """Write all records, until ``stop`` is set."""

    @abstractmethod
    def take(self, record: Record) -> None:
        """Count a result or a dead letter."""

    def is_writing(self) -> bool:
        """Return whether more records will be written.

        Raises:
            OpsError: Producing failed.
        """
        if self._fault is not None:
            raise OpsError(f"the demonstration's load failed: {self._fault}") from self._fault
        return self._writer.is_alive()

    def _write(self) -> None:
        try:
            with TopicWriter(self._kafka, self._pipeline.input_topics[0]) as writer:
                self.produce(writer)
        except Exception as exc:  # noqa: BLE001  `is_writing` raises any failure
            self._fault = exc

    def _read(self, topic: str) -> None:
        for record in read_topic(self._kafka, topic, from_beginning=True, stop=self.stop):
            self.take(record)


class Traffic(Exchange):
    """Produces records at a constant rate until ``finish`` is called."""

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: PipelineSettings,
        records: Iterator[tuple[bytes, bytes]],
        *,
        rate_per_s: float,
    ) -> None:
        super().__init__(kafka, pipeline)
        self.counts = AnswerCounts()
        self._records = records
        self._rate_per_s = rate_per_s
        self._full = threading.Event()

    def finish(self) -> None:
        """Stop producing, and read until every record is accounted for.

        Raises:
            OpsError: Producing failed.
        """
        self._full.set()
        deadline = time.monotonic() + DRAIN_DEADLINE_S
        while self.is_writing() or len(self.counts.sources) < self.sent:
            if time.monotonic() > deadline:
                break  # missing records count as lost
            time.sleep(0.1)
        time.sleep(LISTEN_ON_S)

    def produce(self, writer: TopicWriter) -> None:
        """See ``Exchange``."""
        began = time.monotonic()
        for key, value in self._records:
            if self._full.is_set() or self.stop.is_set():
                return
            writer.write(key, value)
            self.sent += 1
            due = began + self.sent / self._rate_per_s
            time.sleep(max(0.0, due - time.monotonic()))

    def take(self, record: Record) -> None:
        """See ``Exchange``."""
        self.counts.take(record)
