"""The routing table: records of the control topic, applied in order, and their follower.

Does not use a Kafka client: a consumer comes from a factory, a producer as an argument.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from pydantic import ValidationError

from stream.errors import BrokerUnreachable, StreamError
from stream.schema import ControlRecord
from stream.topics import CONTROL_TOPIC

logger = logging.getLogger(__name__)


RoutingTable = Mapping[str, ControlRecord]
EMPTY_TABLE: Final[RoutingTable] = MappingProxyType({})


class Tombstone(NamedTuple):
    """The model no longer has a route."""

    model: str


class Undecodable(NamedTuple):
    """An invalid record of the control topic; it is ignored."""

    reason: str


RouteChange = ControlRecord | Tombstone


def decode(key: bytes | None, value: bytes | None) -> RouteChange | Undecodable:
    """Decode a record of the control topic; never raises."""
    if key is None:
        return Undecodable("it has no key; the key names the model")
    model = key.decode("utf-8", "backslashreplace")
    if value is None:
        return Tombstone(model)
    try:
        record = ControlRecord.model_validate_json(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        return Undecodable(f"{model}: {place or 'value'}: {first['msg']}")
    if record.model != model:
        return Undecodable(f"its key names {model}, its value {record.model}")
    return record


def apply(table: RoutingTable, change: RouteChange) -> RoutingTable:
    """Return the table after a change; the same object if the change has no effect.

    A lower epoch than the current one is ignored. An equal one is applied, as compaction keeps the
    last record of a key: a later reader must get the same table. For the same reason the writer
    must be fenced: a late reader never sees a newer record that an older one follows.
    """
    if isinstance(change, Tombstone):
        if change.model not in table:
            return table
        return MappingProxyType({m: r for m, r in table.items() if m != change.model})
    held = table.get(change.model)
    if held is not None and (change.epoch < held.epoch or change == held):
        return table
    return MappingProxyType({**table, change.model: change})


class ControlProducer(Protocol):
    """The part of a producer that writing the control topic needs."""

    def send_and_wait(
        self, topic: str, *, key: bytes, value: bytes | None, timeout_s: float
    ) -> None:
        """Send one record and wait until the broker has it.

        Raises:
            StreamError: The broker did not confirm the record.
        """
        ...


def publish(producer: ControlProducer, change: RouteChange, *, timeout_s: float = 10.0) -> None:
    """Write a change to the control topic and wait until the broker has it.

    Raises:
        StreamError: The broker did not confirm the record in time.
    """
    value = None if isinstance(change, Tombstone) else change.to_bytes()
    producer.send_and_wait(
        CONTROL_TOPIC, key=change.model.encode(), value=value, timeout_s=timeout_s
    )


class ControlConsumer(Protocol):
    """Reads partition 0 of the control topic from its beginning, without a group."""

    def poll(self, timeout_s: float) -> list[tuple[bytes | None, bytes | None]]:
        """Return keys and values of the next records; empty if none arrived in time.

        Raises:
            StreamError: The topic cannot be read.
        """
        ...

    def position(self) -> int:
        """Return the offset of the next record that ``poll`` will return."""
        ...

    def end(self) -> int:
        """Ask the broker for the offset after the last record, within a bounded time.

        Raises:
            StreamError: No broker answered.
        """
        ...

    def close(self) -> None:
        """Close the connection; never raises."""
        ...


class FollowerTimes(NamedTuple):
    """Waiting times of a follower, in seconds.

    Attributes:
        poll_s: One wait for records; bounds the duration of ``stop``.
        probe_s: Time between two requests for the topic's end; they prove that the table is
            current, as without them a quiet topic looks like an unavailable broker.
        backoff_s: Pause before the first reconnect; doubles up to ``max_backoff_s``.
    """

    poll_s: float = 0.5
    probe_s: float = 5.0
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0


DEFAULT_TIMES: Final = FollowerTimes()


class ControlFollower:
    """Keeps the current routing table of the control topic, in its own thread.

    After a broken connection it reads the topic from the beginning again, as compaction may have
    removed tombstones meanwhile; the last table stays in effect until the new one is complete.
    """

    def __init__(
        self,
        consumer_factory: Callable[[], ControlConsumer],
        *,
        times: FollowerTimes = DEFAULT_TIMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a follower that does not run yet.

        Args:
            consumer_factory: Called in the follower's thread, once for every connection; raises
                StreamError if it cannot connect.
            clock: Monotonic clock, in seconds.
        """
        self._consumer_factory = consumer_factory
        self._times = times
        self._clock = clock
        self._table = EMPTY_TABLE
        self._current_at = -math.inf
        self._error: StreamError | None = None
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control-follower", daemon=True)

    def start(self, timeout_s: float) -> None:
        """Start following and wait until the topic was read to its end once.

        Raises:
            StreamError: The topic was not read in time: the last error, or BrokerUnreachable.
                The follower is then stopped.
        """
        self._thread.start()
        if self._ready.wait(timeout_s):
            return
        self._stopping.set()
        raise self._error or BrokerUnreachable(
            f"topic {CONTROL_TOPIC} was not read to its end within {timeout_s} s"
        )

    def table(self) -> RoutingTable:
        """Return the routing table; immutable, and read without a lock."""
        return self._table

    def age_s(self) -> float:
        """Return the seconds since the table was last known to be current; infinite before that.

        Above a few ``probe_s``, the broker is unavailable or the thread has ended.
        """
        return self._clock() - self._current_at

    @property
    def error(self) -> StreamError | None:
        """Return why the topic cannot be followed at the moment; None if it can."""
        return self._error

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; return False if it did not end in time."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        backoff_s = self._times.backoff_s
        while not self._stopping.is_set():
            connected_at = self._clock()
            try:
                self._follow_one_connection()
            except StreamError as exc:
                self._note(exc)
            if self._current_at >= connected_at:
                backoff_s = self._times.backoff_s
            self._stopping.wait(backoff_s)
            backoff_s = min(2 * backoff_s, self._times.max_backoff_s)

    def _follow_one_connection(self) -> None:
        consumer = self._consumer_factory()
        try:
            self._follow(consumer)
        finally:
            consumer.close()

    def _follow(self, consumer: ControlConsumer) -> None:
        table, complete = EMPTY_TABLE, False
        end, probed_at = consumer.end(), self._clock()
        unconfirmed = True
        while not self._stopping.is_set():
            if unconfirmed and consumer.position() >= end:
                complete, unconfirmed = True, False
                self._table = table
                self._current_at = probed_at
                self._note(None)
                self._ready.set()
            for key, value in consumer.poll(self._times.poll_s):
                table = _applied(table, key, value)
            if complete:
                self._table = table
            if self._clock() - probed_at >= self._times.probe_s:
                end, probed_at, unconfirmed = consumer.end(), self._clock(), True

    def _note(self, error: StreamError | None) -> None:
        """Record the current error, None for none, and log it only when its type changes."""
        before, self._error = self._error, error
        if error is not None and (before is None or type(before) is not type(error)):
            logger.warning("Cannot follow %s, retrying: %s", CONTROL_TOPIC, error)
        elif error is None and before is not None:
            logger.info("Following %s again", CONTROL_TOPIC)


def _applied(table: RoutingTable, key: bytes | None, value: bytes | None) -> RoutingTable:
    change = decode(key, value)
    if isinstance(change, Undecodable):
        logger.warning("Ignored a record of %s: %s", CONTROL_TOPIC, change.reason)
        return table
    return apply(table, change)
