"""Kafka probes: topics, lags, the round trip of a record, routes on the control topic."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from ops.errors import NoRoundTrip
from ops.health.readings import Expected, KafkaReading, LagSample, RoundTrip
from stream.control import EMPTY_TABLE, RoutingTable, Undecodable, apply, decode
from stream.errors import StreamError
from stream.kafka.admin import Admin
from stream.kafka.readers import ControlReader
from stream.kafka.sink import PlainProducer
from stream.records import OpenTransaction, Partition
from stream.schema import ControlRecord
from stream.settings import KafkaSettings
from stream.topics import TopicSpec

PROBE_TOPIC: Final = "bertstream.probe"
PROBE_RETENTION_MS = 3600 * 1000
ROUND_TRIP_S = 5.0
CONNECT_S = 4.0
KEPT_LAGS = timedelta(minutes=3)


class KafkaProbe:
    """Reads topics, lags and open transactions from the brokers."""

    def __init__(
        self, kafka: KafkaSettings, expected: Expected, clock: Callable[[], datetime]
    ) -> None:
        self._kafka, self._expected, self._clock = kafka, expected, clock
        self._admin: Admin | None = None
        self._lags: dict[str, deque[LagSample]] = {}
        self._open: dict[str, dict[tuple[Partition, int], datetime]] = {}

    def __call__(self) -> KafkaReading:
        """Query the brokers; reconnect once after an error.

        Raises:
            StreamError: No broker answers, or one refuses the request.
        """
        if self._admin is not None:
            try:
                return self._ask(self._admin)
            except StreamError:
                self.close()  # perhaps only this connection is broken
        self._admin = Admin(self._kafka, deadline_s=CONNECT_S)
        try:
            return self._ask(self._admin)
        except StreamError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._admin is not None:
            self._admin.close()
        self._admin = None

    def _ask(self, admin: Admin) -> KafkaReading:
        topics = admin.topics()
        unread, held = {}, {}
        for pipeline in self._expected.pipelines:
            if not topics.issuperset(pipeline.input_topics):
                continue
            try:
                offsets = admin.offsets(pipeline.name, [*pipeline.input_topics])
                held[pipeline.name] = self._aged(pipeline.name, admin.held(offsets))
            except StreamError as exc:  # only this group fails: the broker has just answered
                unread[pipeline.name] = str(exc)
            else:
                self._keep(pipeline.name, sum(at.lag for at in offsets.values()))
        kept = {name: tuple(samples) for name, samples in self._lags.items()}
        return KafkaReading(frozenset(topics), kept, unread, held)

    def _aged(self, pipeline: str, found: list[OpenTransaction]) -> tuple[OpenTransaction, ...]:
        """Add the time since first seen if the broker does not report a transaction's age."""
        now = self._clock()
        before = self._open.get(pipeline, {})
        seen = {(one.partition, one.offset): now for one in found}
        self._open[pipeline] = seen | {key: at for key, at in before.items() if key in seen}
        return tuple(
            one
            if one.open_s is not None
            else one._replace(
                open_s=(now - self._open[pipeline][one.partition, one.offset]).total_seconds()
            )
            for one in found
        )

    def _keep(self, pipeline: str, lag: int) -> None:
        samples = self._lags.setdefault(pipeline, deque())
        samples.append(LagSample(self._clock(), lag))
        while samples[-1].at - samples[0].at > KEPT_LAGS:
            samples.popleft()


class RoundTripProbe:
    """Produces a record on a dedicated topic and waits until it has read it back."""

    def __init__(self, kafka: KafkaSettings, *, timeout_s: float = ROUND_TRIP_S) -> None:
        self._kafka, self._timeout_s = kafka, timeout_s
        self._producer: PlainProducer | None = None
        self._reader: ControlReader | None = None

    def __call__(self) -> RoundTrip:
        """Measure one round trip, without the time to connect.

        Raises:
            StreamError: The record cannot be written or read.
            NoRoundTrip: The record was not read back in time.
        """
        producer, reader = self._connected()
        mark = uuid.uuid4().bytes
        try:
            _read_to_end(reader)
            began = time.monotonic()
            producer.send_and_wait(PROBE_TOPIC, key=b"probe", value=mark, timeout_s=self._timeout_s)
            while (left_s := self._timeout_s - (time.monotonic() - began)) > 0:
                if any(value == mark for _, value in reader.poll(left_s)):
                    return RoundTrip((time.monotonic() - began) * 1000)
        except StreamError:
            self._drop_reader()
            raise
        self._drop_reader()
        raise NoRoundTrip(f"a record on {PROBE_TOPIC} was not read back in {self._timeout_s:g} s")

    def close(self) -> None:
        """Close the connections."""
        self._drop_reader()
        if self._producer is not None:
            self._producer.close()
        self._producer = None

    def _connected(self) -> tuple[PlainProducer, ControlReader]:
        if self._producer is None:
            with Admin(self._kafka, deadline_s=CONNECT_S) as admin:
                limits = {"retention.ms": str(PROBE_RETENTION_MS)}
                limits["segment.ms"] = str(PROBE_RETENTION_MS)
                admin.ensure_topics({PROBE_TOPIC: TopicSpec(1, limits)})
            self._producer = PlainProducer(self._kafka)
        if self._reader is None:
            self._reader = ControlReader(self._kafka, topic=PROBE_TOPIC)
        return self._producer, self._reader

    def _drop_reader(self) -> None:
        """Close the reader only: the producer reconnects by itself, and closing it with an
        unsent record would leak the client's thread."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


class ControlProbe:
    """Reads the routes back from the control topic."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._reader: ControlReader | None = None
        self._table: RoutingTable = EMPTY_TABLE

    def __call__(self) -> Mapping[str, ControlRecord]:
        """Return the routing table that the topic holds.

        Raises:
            StreamError: The topic cannot be read.
        """
        try:
            if self._reader is None:
                self._table = EMPTY_TABLE
                self._reader = ControlReader(self._kafka)
            for key, value in _read_to_end(self._reader):
                change = decode(key, value)
                if not isinstance(change, Undecodable):
                    self._table = apply(self._table, change)
        except StreamError:
            self.close()
            raise
        return dict(self._table)

    def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


def _read_to_end(reader: ControlReader) -> list[tuple[bytes | None, bytes | None]]:
    """Return all records up to the current end; the deadline of the schedule bounds the time."""
    found = []
    end = reader.end()
    while reader.position() < end:
        found += reader.poll(0.5)
    return found
