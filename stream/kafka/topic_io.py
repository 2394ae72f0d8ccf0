"""Plain producing and consuming for the command line; any other client works as well.

One of the adapters to the Kafka client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any, Self

from kafka import KafkaProducer, TopicPartition

from stream.errors import CommitFailed, TopicMissing
from stream.kafka import decoding
from stream.kafka.admin import Admin
from stream.kafka.connection import broker_errors, common_options, end_producer
from stream.records import Record
from stream.settings import KafkaSettings

MAX_UNSENT = 10_000


class TopicWriter:
    """Writes records to one topic; a context manager that waits until all are acknowledged."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Connect.

        Raises:
            BrokerUnreachable: No broker answered in time. Retriable.
            TopicMissing: The topic does not exist. Not retriable.
        """
        self._topic = topic
        with Admin(kafka) as admin:
            if topic not in admin.topics():
                raise TopicMissing(f"topic {topic} does not exist at {kafka.bootstrap_servers}")
        with broker_errors(f"writing to {topic} at {kafka.bootstrap_servers}"):
            self._producer = KafkaProducer(
                **common_options(kafka),
                acks="all",
                linger_ms=20,
                batch_size=128 * 1024,
                max_request_size=64 * 1024 * 1024,
                delivery_timeout_ms=30_000,
                max_block_ms=10_000,
            )
        self._sent: list[Any] = []

    def write(
        self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """Send one record; wait if too many are unacknowledged.

        Raises:
            CommitFailed: An earlier record was refused. Retriable.
        """
        with broker_errors(f"writing to {self._topic}", CommitFailed):
            self._sent.append(
                self._producer.send(self._topic, key=key, value=value, headers=headers)
            )
            if len(self._sent) >= MAX_UNSENT:
                self._settle()

    def _settle(self) -> None:
        self._producer.flush(timeout=30)
        for future in self._sent:
            future.get(timeout=0)
        self._sent.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if kind is None:
                with broker_errors(f"writing to {self._topic}", CommitFailed):
                    self._settle()
        finally:
            end_producer(self._producer)


def read_topic(
    kafka: KafkaSettings,
    topic: str,
    *,
    from_beginning: bool,
    timeout_s: float | None = None,
    stop: threading.Event | None = None,
) -> Generator[Record]:
    """Yield committed records of all partitions as they arrive, without a group.

    Args:
        from_beginning: Start with the oldest record, otherwise with the next one.
        timeout_s: End after this time without a record; None never ends.
        stop: Ends the reading when set.
    Raises:
        TopicMissing: The topic does not exist. Not retriable.
    """
    with broker_errors(f"reading {topic} at {kafka.bootstrap_servers}"):
        consumer = decoding.consumer(
            **common_options(kafka), enable_auto_commit=False, isolation_level="read_committed"
        )
    try:
        with broker_errors(f"reading {topic} at {kafka.bootstrap_servers}"):
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                raise TopicMissing(f"topic {topic} does not exist at {kafka.bootstrap_servers}")
            partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(partitions)
            (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*partitions)
        quiet_since = time.monotonic()
        while timeout_s is None or time.monotonic() - quiet_since < timeout_s:
            if stop is not None and stop.is_set():
                return
            with broker_errors(f"reading {topic}"):
                polled = consumer.poll(timeout_ms=200)
            for records in polled.values():
                yield from records
                quiet_since = time.monotonic()
    finally:
        consumer.close(autocommit=False, timeout_ms=1_000)
