"""Independent check of the topics: produce records and count the results that become readable.

Uses a different Kafka client from the product (confluent-kafka), so that a fault of the product's
client cannot hide itself. Arrival times are taken by the reader.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

POLL_S = 0.1
METADATA_TIMEOUT_S = 15.0
FLUSH_TIMEOUT_S = 60.0
# Results that become readable this soon after the first belong to its transaction.
FIRST_GROUP_S = 0.05
# The client's default of 10 s would be counted as the product's recovery.
RECONNECT_MAX_MS = 300
# The client logs to stderr whenever a broker stops, which the benchmarks do on purpose.
QUIET_LOG = 2


class Arrival(NamedTuple):
    """A result that has become readable.

    Attributes:
        at: Time of arrival, in seconds of ``time.perf_counter``.
    """

    at: float
    partition: int
    key: bytes | None
    value: bytes

    @property
    def record_id(self) -> int:
        """Id that the input record got when it was produced."""
        return int(orjson.loads(self.value)["id"])


class Tally(NamedTuple):
    """Comparison of produced records with results."""

    produced: int
    lost: int
    duplicated: int
    reordered: int

    @property
    def is_exact(self) -> bool:
        """Whether every record arrived once and every key arrived in order."""
        return not (self.lost or self.duplicated or self.reordered)


def tally(produced: int, arrivals: Sequence[Arrival]) -> Tally:
    """Count lost, duplicated and reordered records.

    Args:
        produced: Records with the ids 0 .. produced - 1, rising within each key.
        arrivals: Results in the order of reading.
    """
    seen: set[int] = set()
    highest: dict[bytes | None, int] = {}
    duplicated = reordered = 0
    for arrival in arrivals:
        record_id = arrival.record_id
        if record_id in seen:
            duplicated += 1
            continue
        seen.add(record_id)
        reordered += record_id < highest.get(arrival.key, -1)
        highest[arrival.key] = max(record_id, highest.get(arrival.key, -1))
    lost = len(set(range(produced)) - seen)
    return Tally(produced, lost, duplicated, reordered)


def records_per_s(arrivals: Sequence[Arrival]) -> float:
    """Return the rate from the first to the last transaction, which excludes the start-up.

    Raises:
        ValueError: All results arrived at once, so no rate can be computed.
    """
    first, last = arrivals[0].at, arrivals[-1].at
    later = [arrival for arrival in arrivals if arrival.at > first + FIRST_GROUP_S]
    if not later:
        raise ValueError(f"{len(arrivals)} results arrived at once; produce more records")
    return len(later) / (last - first)


def latencies_ms(sent: Mapping[int, float], arrivals: Sequence[Arrival]) -> list[float]:
    """Return milliseconds from production to readability of each arrival with a known send time."""
    return [
        1000 * (arrival.at - sent[record_id])
        for arrival in arrivals
        if (record_id := arrival.record_id) in sent
    ]


class Counter:
    """Reads the committed records of a topic from its beginning, in its own thread."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        """Start reading; the topic must exist."""
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"counter-{topic}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": QUIET_LOG,
                "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
            }
        )
        self._arrivals: list[Arrival] = []
        self._arrived = threading.Condition()
        self._fault: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"count {topic}", daemon=True)
        self._thread.start()

    def arrivals(self, since: int = 0) -> list[Arrival]:
        """Return the arrivals in order, without the first ``since``."""
        with self._arrived:
            return self._arrivals[since:]

    def count(self) -> int:
        """Return the number of arrivals."""
        with self._arrived:
            return len(self._arrivals)

    def wait_for(self, count: int, deadline_s: float) -> bool:
        """Wait for ``count`` arrivals; return False if the deadline passes first."""
        with self._arrived:
            reached = self._arrived.wait_for(
                lambda: len(self._arrivals) >= count or self._fault is not None, deadline_s
            )
            if self._fault is not None:
                raise self._fault
            return reached

    def close(self) -> None:
        """Stop the thread and close the connection."""
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        try:
            self._assign()
            while not self._stopping.is_set():
                message = self._consumer.poll(POLL_S)
                # An error here means that a broker is unavailable; the client reconnects by itself.
                if message is not None and message.error() is None:
                    self._take(message)
        except KafkaException as exc:
            with self._arrived:
                self._fault = exc
                self._arrived.notify_all()

    def _assign(self) -> None:
        metadata = self._consumer.list_topics(self._topic, METADATA_TIMEOUT_S)
        partitions = metadata.topics[self._topic].partitions
        self._consumer.assign([TopicPartition(self._topic, number, 0) for number in partitions])

    def _take(self, message: Message) -> None:
        arrival = Arrival(
            time.perf_counter(), message.partition() or 0, message.key(), message.value() or b""
        )
        with self._arrived:
            self._arrivals.append(arrival)
            self._arrived.notify_all()


class Feeder:
    """Idempotent producer of numbered records that keeps the time when each was sent."""

    def __init__(self, bootstrap_servers: str, topic: str, *, keys: int = 64) -> None:
        """Connect; record ``i`` gets the key number ``i % keys``."""
        self._topic = topic
        self._keys = keys
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 0,
                "log_level": QUIET_LOG,
                # No record may be lost while a broker is unavailable.
                "message.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self.sent: dict[int, float] = {}
        self.refused: list[str] = []

    @property
    def produced(self) -> int:
        """Number of records sent, which is also the id of the next record."""
        return len(self.sent)

    def send(self, text: str, *, size_bytes: int = 0) -> int:
        """Send a text as the next record without waiting and return its id.

        Args:
            size_bytes: Minimum size of the record's value, reached by padding.
        """
        record_id = self.produced
        value = orjson.dumps({"id": record_id, "text": text})
        missing = size_bytes - len(value)
        if missing > 0:
            value = orjson.dumps({"id": record_id, "text": text + "." * missing})
        self.sent[record_id] = time.perf_counter()
        self._producer.produce(
            self._topic, value, f"key-{record_id % self._keys}", on_delivery=self._delivered
        )
        self._producer.poll(0)
        return record_id

    def flush(self) -> None:
        """Wait until the broker has acknowledged every record.

        Raises:
            RuntimeError: Records are unacknowledged, so the run proves nothing about losses.
        """
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self.refused:
            raise RuntimeError(f"{left} unsent, {len(self.refused)} refused: {self.refused[:3]}")

    def _delivered(self, error: Any, _: Message) -> None:
        if error is not None:
            self.refused.append(str(error))
