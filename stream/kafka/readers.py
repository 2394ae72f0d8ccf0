"""Readers of the platform's own topics, without a group: routes, telemetry and heartbeats."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from kafka import TopicPartition
from kafka.errors import KafkaError
from pydantic import BaseModel

from stream.kafka import decoding
from stream.kafka.connection import broker_errors, common_options
from stream.records import Damaged, Record
from stream.schema import ComparisonRecord, ConsumerRecord, PlatformRecord, TelemetryRecord
from stream.settings import KafkaSettings
from stream.topics import COMPARISONS_TOPIC, CONSUMERS_TOPIC, CONTROL_TOPIC, TELEMETRY_TOPIC

logger = logging.getLogger(__name__)

READ_S = 5.0

RecordModel = TypeVar("RecordModel", bound=BaseModel)

_TELLING: dict[str, type[PlatformRecord]] = {
    TELEMETRY_TOPIC: TelemetryRecord,
    COMPARISONS_TOPIC: ComparisonRecord,
    CONSUMERS_TOPIC: ConsumerRecord,
}


class ControlReader:
    """Reads partition 0 of the control topic for a ``ControlFollower``, without a group."""

    def __init__(self, kafka: KafkaSettings, *, topic: str = CONTROL_TOPIC) -> None:
        """Connect and go to the beginning.

        Args:
            topic: Another small topic with one partition.
        Raises:
            BrokerUnreachable: No broker answered in time. Retriable.
        """
        self._topic = topic
        self._partition = TopicPartition(topic, 0)
        with broker_errors(f"reading {topic} at {kafka.bootstrap_servers}"):
            self._consumer = decoding.consumer(
                **common_options(kafka), client_id="bertstream-control", enable_auto_commit=False
            )
            self._consumer.assign([self._partition])
            self._consumer.seek_to_beginning(self._partition)

    def poll(self, timeout_s: float) -> list[tuple[bytes | None, bytes | None]]:
        """See ``ControlConsumer``."""
        with broker_errors(f"reading {self._topic}"):
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        found = []
        for record in polled.get(self._partition, ()):
            if isinstance(record.headers, Damaged):
                logger.error("%s/0/%s: %s", self._topic, record.offset, record.headers.fault)
            else:
                found.append((record.key, record.value))
        return found

    def position(self) -> int:
        """See ``ControlConsumer``."""
        with broker_errors(f"reading {self._topic}"):
            return int(self._consumer.position(self._partition, timeout_ms=5_000) or 0)

    def end(self) -> int:
        """See ``ControlConsumer``."""
        with broker_errors(f"asking for the end of {self._topic}"):
            ends = self._consumer.end_offsets([self._partition], timeout_ms=5_000)
        return int(ends[self._partition])

    def close(self) -> None:
        """See ``ControlConsumer``."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1_000)
        except KafkaError as exc:
            logger.info("closing the reader of %s: %s", self._topic, exc)


class TelemetryReader:
    """Reads what the pipelines report, from a given time on, without a group."""

    def __init__(self, kafka: KafkaSettings, *, since_ms: int) -> None:
        """Connect and go to a time, in ms since 1970.

        Raises:
            BrokerUnreachable: No broker answered in time. Retriable.
        """
        partitions = [TopicPartition(topic, 0) for topic in _TELLING]
        with broker_errors(f"reading telemetry at {kafka.bootstrap_servers}"):
            self._consumer = decoding.consumer(
                **common_options(kafka), enable_auto_commit=False, isolation_level="read_committed"
            )
            self._consumer.assign(partitions)
            self._ends = self._consumer.end_offsets(partitions)
            places = self._consumer.offsets_for_times(
                dict.fromkeys(partitions, since_ms), timeout_ms=5_000
            )
            for partition, place in places.items():
                offset = self._ends[partition] if place is None else place.offset
                self._consumer.seek(partition, offset)

    def has_caught_up(self) -> bool:
        """Return whether all records written before this reader started have been read."""
        return all(self._consumer.position(part) >= end for part, end in self._ends.items())

    def poll(self, timeout_s: float) -> list[PlatformRecord]:
        """Return the records since the last call; empty if none arrived in time.

        Raises:
            BrokerUnreachable: A request of the client failed. Retriable with a new reader.
        """
        with broker_errors("reading telemetry"):
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [
            record
            for partition, records in polled.items()
            for record in _valid(_TELLING[partition.topic], partition.topic, records)
        ]

    def close(self) -> None:
        """Close the connection; never raises."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1_000)
        except KafkaError as exc:
            logger.info("closing the reader of telemetry: %s", exc)


def recent_telemetry(kafka: KafkaSettings, *, since_ms: int) -> list[TelemetryRecord]:
    """Return windows that ended since a time, in ms since 1970, from the telemetry topic.

    Raises:
        BrokerUnreachable: No broker answered in time. Retriable.
    """
    return _recent(kafka, TELEMETRY_TOPIC, TelemetryRecord, since_ms)


def recent_consumers(kafka: KafkaSettings, *, since_ms: int) -> list[ConsumerRecord]:
    """Return the last state of each consumer that reported since a time, in ms since 1970.

    Raises:
        BrokerUnreachable: No broker answered in time. Retriable.
    """
    found = _recent(kafka, CONSUMERS_TOPIC, ConsumerRecord, since_ms)
    return list({(record.pipeline, record.consumer): record for record in found}.values())


def _valid(
    shape: type[RecordModel], topic: str, records: Iterable[Record]
) -> Iterator[RecordModel]:
    """Yield the valid records; skip others, as any producer may write to the topic."""
    for record in records:
        try:
            if isinstance(record.headers, Damaged):
                raise ValueError(record.headers.fault)
            yield shape.model_validate_json(record.value or b"")
        except ValueError as exc:
            place = f"{topic}/{record.partition}/{record.offset}"
            logger.warning("%s is skipped: %s", place, exc)


def _recent(
    kafka: KafkaSettings, topic: str, shape: type[RecordModel], since_ms: int
) -> list[RecordModel]:
    """Return a topic's records from a time up to its current end."""
    partition = TopicPartition(topic, 0)
    with broker_errors(f"reading {topic} at {kafka.bootstrap_servers}"):
        consumer = decoding.consumer(
            **common_options(kafka), enable_auto_commit=False, isolation_level="read_committed"
        )
        try:
            consumer.assign([partition])
            found = consumer.offsets_for_times({partition: since_ms}, timeout_ms=5_000)[partition]
            end = consumer.end_offsets([partition], timeout_ms=5_000)[partition]
            if found is None:
                return []
            consumer.seek(partition, found.offset)
            read: list[RecordModel] = []
            deadline = time.monotonic() + READ_S
            while consumer.position(partition) < end and time.monotonic() < deadline:
                polled = consumer.poll(timeout_ms=500).get(partition, ())
                read += _valid(shape, topic, polled)
            return read
        finally:
            consumer.close(autocommit=False, timeout_ms=1_000)
