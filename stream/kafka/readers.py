"""Readers of the platform's own topics, in no group: routes, telemetry and heartbeats."""

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
    """Reads the control topic for a ``ControlFollower``: partition 0, in no group."""

    def __init__(self, kafka: KafkaSettings, *, topic: str = CONTROL_TOPIC) -> None:
        """Connect and go to the beginning.

        Args:
            topic: Another that is as small and has one partition, too.
        Raises:
            BrokerUnreachable: Nobody answered in time.
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
    """Reads what the pipelines tell, from a moment on; in no group."""

    def __init__(self, kafka: KafkaSettings, *, since_ms: int) -> None:
        """Connect and go to the moment, in ms since 1970.

        Raises:
            BrokerUnreachable: Nobody answered in time.
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
        """Whether all is read that was told before this reader began."""
        return all(self._consumer.position(part) >= end for part, end in self._ends.items())

    def poll(self, timeout_s: float) -> list[PlatformRecord]:
        """What came since the last call; empty where nothing did in time.

        Raises:
            BrokerUnreachable: The client gave up on a request. Retriable, with a new reader.
        """
        with broker_errors("reading telemetry"):
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        return [
            told
            for partition, records in polled.items()
            for told in _valid(_TELLING[partition.topic], partition.topic, records)
        ]

    def close(self) -> None:
        """Free the connection; never raises."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=1_000)
        except KafkaError as exc:
            logger.info("closing the reader of telemetry: %s", exc)


def recent_telemetry(kafka: KafkaSettings, *, since_ms: int) -> list[TelemetryRecord]:
    """Windows that ended since a moment, in ms since 1970, from the telemetry topic.

    Raises:
        BrokerUnreachable: Nobody answered in time.
    """
    return _recent(kafka, TELEMETRY_TOPIC, TelemetryRecord, since_ms)


def recent_consumers(kafka: KafkaSettings, *, since_ms: int) -> list[ConsumerRecord]:
    """How each consumer stood last, of those that told so since a moment, in ms since 1970.

    Raises:
        BrokerUnreachable: Nobody answered in time.
    """
    found = _recent(kafka, CONSUMERS_TOPIC, ConsumerRecord, since_ms)
    return list({(record.pipeline, record.consumer): record for record in found}.values())


def _valid(
    shape: type[RecordModel], topic: str, records: Iterable[Record]
) -> Iterator[RecordModel]:
    """What was told; what is none of it, as anybody may write, is passed over."""
    for record in records:
        try:
            if isinstance(record.headers, Damaged):
                raise ValueError(record.headers.fault)
            yield shape.model_validate_json(record.value or b"")
        except ValueError as exc:
            place = f"{topic}/{record.partition}/{record.offset}"
            logger.warning("%s is passed over: %s", place, exc)


def _recent(
    kafka: KafkaSettings, topic: str, shape: type[RecordModel], since_ms: int
) -> list[RecordModel]:
    """A topic's records since a moment; bounded by its end now."""
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
            told: list[RecordModel] = []
            deadline = time.monotonic() + READ_S
            while consumer.position(partition) < end and time.monotonic() < deadline:
                polled = consumer.poll(timeout_ms=500).get(partition, ())
                told += _valid(shape, topic, polled)
            return told
        finally:
            consumer.close(autocommit=False, timeout_ms=1_000)
