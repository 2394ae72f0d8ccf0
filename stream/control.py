"""The routing table: records of the control topic, applied in order, and who follows them.

Knows no Kafka client: a consumer comes from a factory, a producer as an argument.
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
    """The model has no routes any more."""

    model: str


class Undecodable(NamedTuple):
    """A record of the control topic that says nothing; it is ignored."""

    reason: str


RouteChange = ControlRecord | Tombstone


def decode(key: bytes | None, value: bytes | None) -> RouteChange | Undecodable:
    """Read a record of the control topic; never raises."""
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
    """The table after a change; the same object where the change says nothing new.

    A lower epoch than the one held is ignored. An equal one is taken, as compaction keeps the
    last record of a key: who reads later must come to the same table. For the same reason the
    writer must be fenced: a late reader never sees the newer record under an older one.
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
    """The little that writing the control topic needs."""

    def send_and_wait(
        self, topic: str, *, key: bytes, value: bytes | None, timeout_s: float
    ) -> None:
        """Send one record and wait until the broker has it.

        Raises:
            StreamError: It has not.
        """
        ...


def publish(producer: ControlProducer, change: RouteChange, *, timeout_s: float = 10.0) -> None:
    """Write a change to the control topic and wait until the broker has it.

    Raises:
        StreamError: The broker has it not, or did not say in time.
    """
    value = None if isinstance(change, Tombstone) else change.to_bytes()
    producer.send_and_wait(
        CONTROL_TOPIC, key=change.model.encode(), value=value, timeout_s=timeout_s
    )


class ControlConsumer(Protocol):
    """Reads partition 0 of the control topic from its beginning; in no group."""

    def poll(self, timeout_s: float) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values of the next records; empty when none came in time.

        Raises:
            StreamError: The topic cannot be read.
        """
        ...

    def position(self) -> int:
        """Offset of the next record that ``poll`` will bring."""
        ...

    def end(self) -> int:
        """Offset after the last record, asked of the broker, within a bounded time.

        Raises:
            StreamError: No broker answered.
        """
        ...

    def close(self) -> None:
        """Free the connection; never raises."""
        ...


class FollowerTimes(NamedTuple):
    """How a follower waits, in seconds.

    Attributes:
        poll_s: One wait for records; bounds how long ``stop`` takes.
        probe_s: Between two questions for the topic's end; they prove that the table is
            current, which a quiet topic and a broker that is gone would not tell apart.
        backoff_s: Before the first reconnect; doubles up to ``max_backoff_s``.
    """

    poll_s: float = 0.5
    probe_s: float = 5.0
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0


DEFAULT_TIMES: Final = FollowerTimes()


class ControlFollower:
    """Holds the routing table as it stands on the control topic, in a thread of its own.

    After a broken connection it reads the topic from the beginning again, as tombstones may
    have been compacted away meanwhile; the last table stays until the new one is complete.
    """

    def __init__(
        self,
        consumer_factory: Callable[[], ControlConsumer],
        *,
        times: FollowerTimes = DEFAULT_TIMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a follower that does not run yet.

        Args:
            consumer_factory: Called in the follower's thread, for every connection anew;
                raises StreamError where it cannot connect.
            clock: Seconds, never going back.
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
            StreamError: It was not in time: the last error met, or BrokerUnreachable. The
                follower is stopped then.
        """
        self._thread.start()
        if self._ready.wait(timeout_s):
            return
        self._stopping.set()
        raise self._error or BrokerUnreachable(
            f"topic {CONTROL_TOPIC} was not read to its end within {timeout_s} s"
        )

    def table(self) -> RoutingTable:
        """The routing table; immutable, and read without a lock."""
        return self._table

    def age_s(self) -> float:
        """Seconds since the table was last known to be current; infinite before that.

        Above a few ``probe_s``, the broker is away or the thread has ended.
        """
        return self._clock() - self._current_at

    @property
    def error(self) -> StreamError | None:
        """Why the topic cannot be followed at the moment; None while it can."""
        return self._error

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread; False where it did not end in time."""
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
        """Keep the state, and log it when it changes: not at every attempt."""
        before, self._error = self._error, error
        if error is not None and (before is None or type(before) is not type(error)):
            logger.warning("Cannot follow %s, trying on: %s", CONTROL_TOPIC, error)
        elif error is None and before is not None:
            logger.info("Following %s again", CONTROL_TOPIC)


def _applied(table: RoutingTable, key: bytes | None, value: bytes | None) -> RoutingTable:
    change = decode(key, value)
    if isinstance(change, Undecodable):
        logger.warning("Ignored a record of %s: %s", CONTROL_TOPIC, change.reason)
        return table
    return apply(table, change)
