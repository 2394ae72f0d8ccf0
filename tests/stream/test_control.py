from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.control import (
    EMPTY_TABLE,
    ControlConsumer,
    ControlFollower,
    FollowerTimes,
    RouteChange,
    Tombstone,
    Undecodable,
    apply,
    decode,
    publish,
)
from stream.errors import BrokerRefused, BrokerUnreachable, StreamError
from stream.schema import ControlRecord, VersionRoute
from stream.topics import CONTROL_TOPIC

DEADLINE_S = 10.0
TIMES = FollowerTimes(poll_s=0.02, probe_s=0.02, backoff_s=0.005, max_backoff_s=0.01)


def routes(model: str = "sentiment", *, epoch: int = 1, version: str = "1") -> ControlRecord:
    return ControlRecord(model=model, epoch=epoch, versions={version: VersionRoute(weight=1.0)})


class Topic:
    """The control topic in memory: keeps records, forgets like compaction, breaks on demand."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: list[tuple[bytes | None, bytes | None]] = []
        self.error: StreamError | None = None
        self.attempts = 0
        self.opened = 0
        self.closed = 0
        self.polls = 0
        self.on_the_way = 0
        self._read_to: int | None = None

    def send_and_wait(
        self, topic: str, *, key: bytes, value: bytes | None, timeout_s: float
    ) -> None:
        assert topic == CONTROL_TOPIC
        self.write(key, value)

    def write(self, key: bytes | None, value: bytes | None) -> None:
        with self.changed:
            self.records.append((key, value))
            self._read_to = None
            self.changed.notify_all()

    def breaks(self, error: StreamError) -> None:
        with self.changed:
            self.error = error
            self._read_to = None
            self.changed.notify_all()

    def returns(self) -> None:
        with self.changed:
            self.error = None
            self._read_to = None

    def forget(self) -> None:
        with self.changed:
            self.records = []

    def connect(self) -> ControlConsumer:
        with self.changed:
            self.attempts += 1
            self.changed.notify_all()
            self.check()
            self.opened += 1
            return Reader(self)

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def note_read(self, position: int) -> None:
        self._read_to = position
        self.polls += 1
        self.changed.notify_all()

    def arrived(self) -> int:
        """How many records a poll can bring; the end counts those on the way too."""
        return len(self.records) - self.on_the_way

    def wait_until_read(self) -> None:
        """Until a reader comes back for more after the last record: it has applied it."""
        with self.changed:
            assert self.changed.wait_for(
                lambda: self._read_to is not None and self._read_to >= self.arrived(),
                DEADLINE_S,
            )

    def wait_for_polls(self, more: int) -> None:
        with self.changed:
            wanted = self.polls + more
            assert self.changed.wait_for(lambda: self.polls >= wanted, DEADLINE_S)

    def wait_for_attempts(self, more: int) -> None:
        with self.changed:
            wanted = self.attempts + more
            assert self.changed.wait_for(lambda: self.attempts >= wanted, DEADLINE_S)


class Reader:
    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._position = 0

    def poll(self, timeout_s: float) -> list[tuple[bytes | None, bytes | None]]:
        topic = self._topic
        with topic.changed:
            topic.check()
            topic.note_read(self._position)
            topic.changed.wait_for(
                lambda: topic.error is not None or topic.arrived() > self._position, timeout_s
            )
            topic.check()
            new = topic.records[self._position : topic.arrived()]
            self._position += len(new)
            return new

    def position(self) -> int:
        return self._position

    def end(self) -> int:
        with self._topic.changed:
            self._topic.check()
            return len(self._topic.records)

    def close(self) -> None:
        self._topic.closed += 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def follower(topic: Topic) -> Iterator[ControlFollower]:
    following = ControlFollower(topic.connect, times=TIMES)
    following.start(DEADLINE_S)
    yield following
    assert following.stop(DEADLINE_S)
    assert topic.closed == topic.opened


def test_a_record_survives_the_wire() -> None:
    record = ControlRecord(
        model="sentiment",
        epoch=7,
        versions={
            "3": VersionRoute(digest="sha256:ab", weight=0.9),
            "4": VersionRoute(weight=0.1),
            "5": VersionRoute(weight=0),
        },
        shadow="5",
    )
    assert decode(b"sentiment", record.to_bytes()) == record
    assert decode(b"sentiment", None) == Tombstone("sentiment")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, routes().to_bytes(), "no key"),
        (b"sentiment", b"\xff", "sentiment: value"),
        (b"sentiment", b"{}", "sentiment: model"),
        (b"sentiment", b'{"model":"sentiment","epoch":1,"versions":{"1":{}}}', "versions.1.weight"),
        (b"topics", routes("sentiment").to_bytes(), "key names topics, its value sentiment"),
    ],
)
def test_a_record_that_says_nothing_has_a_reason(
    key: bytes | None, value: bytes | None, reason: str
) -> None:
    decoded = decode(key, value)
    assert isinstance(decoded, Undecodable)
    assert reason in decoded.reason


@settings(deadline=None)
@given(st.none() | st.binary(), st.none() | st.binary())
def test_no_bytes_crash_the_decoder(key: bytes | None, value: bytes | None) -> None:
    decode(key, value)


def test_older_epochs_are_ignored_and_equal_ones_are_taken() -> None:
    table = apply(EMPTY_TABLE, routes(epoch=5, version="5"))
    assert apply(table, routes(epoch=4, version="4")) is table
    assert apply(table, routes(epoch=5, version="5")) is table
    assert apply(table, routes(epoch=5, version="6"))["sentiment"].versions.keys() == {"6"}
    assert apply(table, routes(epoch=6, version="7"))["sentiment"].versions.keys() == {"7"}


def test_a_tombstone_removes_one_model() -> None:
    table = apply(apply(EMPTY_TABLE, routes("a", epoch=9)), routes("b"))
    without = apply(table, Tombstone("a"))
    assert without.keys() == {"b"}
    assert apply(without, Tombstone("a")) is without
    assert apply(without, routes("a", epoch=1)).keys() == {"a", "b"}


def test_a_table_is_never_changed_in_place() -> None:
    table = apply(EMPTY_TABLE, routes())
    apply(table, routes(epoch=2, version="2"))
    apply(table, Tombstone("sentiment"))
    assert table == {"sentiment": routes()}
    assert not EMPTY_TABLE
    with pytest.raises(TypeError):
        table["other"] = routes()  # type: ignore[index]


CHANGES = st.lists(
    st.builds(Tombstone, st.sampled_from("ab"))
    | st.builds(routes, st.sampled_from("ab"), version=st.sampled_from("123"))
)


@settings(deadline=None)
@given(CHANGES)
def test_who_reads_after_compaction_has_the_same_table(changes: list[RouteChange]) -> None:
    counted = [
        change if isinstance(change, Tombstone) else change.model_copy(update={"epoch": epoch // 2})
        for epoch, change in enumerate(changes)
    ]
    last = {change.model: change for change in counted}
    assert reduce(apply, counted, EMPTY_TABLE) == reduce(apply, last.values(), EMPTY_TABLE)


def test_the_topic_is_read_to_its_end_before_start_returns(topic: Topic) -> None:
    for epoch in range(1, 4):
        publish(topic, routes(epoch=epoch, version=str(epoch)))
    follower = ControlFollower(topic.connect, times=TIMES)
    assert follower.table() == {}
    assert follower.age_s() == math.inf
    follower.start(DEADLINE_S)
    assert follower.table() == {"sentiment": routes(epoch=3, version="3")}
    assert follower.error is None
    assert follower.stop(DEADLINE_S)


def test_changes_arrive_while_it_runs(topic: Topic, follower: ControlFollower) -> None:
    publish(topic, routes(epoch=1))
    topic.wait_until_read()
    before = follower.table()
    assert before == {"sentiment": routes(epoch=1)}
    publish(topic, routes(epoch=2, version="2"))
    topic.wait_until_read()
    assert follower.table() == {"sentiment": routes(epoch=2, version="2")}
    publish(topic, Tombstone("sentiment"))
    topic.wait_until_read()
    assert follower.table() == {}
    assert before == {"sentiment": routes(epoch=1)}


def test_an_undecodable_record_is_a_warning(
    topic: Topic, follower: ControlFollower, caplog: pytest.LogCaptureFixture
) -> None:
    publish(topic, routes())
    topic.write(b"sentiment", b"not json")
    topic.wait_until_read()
    assert follower.table() == {"sentiment": routes()}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "sentiment: value" in caplog.text


def test_a_broker_that_goes_and_returns(
    topic: Topic, follower: ControlFollower, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish(topic, routes())
    topic.wait_until_read()
    gone = BrokerUnreachable("nobody answers")
    topic.breaks(gone)
    topic.wait_for_attempts(4)
    assert follower.error is gone
    assert follower.table() == {"sentiment": routes()}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    topic.breaks(BrokerRefused("wrong password"))
    topic.wait_for_attempts(3)
    topic.returns()
    publish(topic, routes(epoch=2, version="2"))
    topic.wait_until_read()
    assert follower.error is None
    assert follower.table() == {"sentiment": routes(epoch=2, version="2")}
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


def test_a_tombstone_that_was_compacted_away_is_not_missed(
    topic: Topic, follower: ControlFollower
) -> None:
    publish(topic, routes())
    topic.wait_until_read()
    topic.breaks(BrokerUnreachable("nobody answers"))
    topic.wait_for_attempts(2)
    topic.forget()
    topic.returns()
    topic.wait_until_read()
    assert follower.table() == {}


def test_a_table_read_by_half_is_not_shown(topic: Topic, follower: ControlFollower) -> None:
    publish(topic, routes("a"))
    publish(topic, routes("b"))
    topic.wait_until_read()
    topic.breaks(BrokerUnreachable("nobody answers"))
    topic.wait_for_attempts(2)
    topic.on_the_way = 1
    topic.returns()
    topic.wait_until_read()
    assert follower.table().keys() == {"a", "b"}
    assert isinstance(follower.error, BrokerUnreachable)


def test_start_waits_for_the_end(topic: Topic) -> None:
    publish(topic, routes())
    topic.on_the_way = 1
    follower = ControlFollower(topic.connect, times=TIMES)
    with pytest.raises(BrokerUnreachable, match="was not read to its end"):
        follower.start(0.1)
    assert follower.stop(DEADLINE_S)


def test_age_grows_while_the_broker_is_away(topic: Topic) -> None:
    clock = Clock()
    follower = ControlFollower(topic.connect, times=TIMES, clock=clock)
    follower.start(DEADLINE_S)
    assert follower.age_s() == 0
    topic.breaks(BrokerUnreachable("nobody answers"))
    topic.wait_for_attempts(2)
    clock.now = 100.0
    assert follower.age_s() == 100
    topic.returns()
    topic.wait_until_read()
    assert follower.age_s() == 0
    assert follower.stop(DEADLINE_S)


def test_a_quiet_topic_stays_current(topic: Topic) -> None:
    clock = Clock()
    follower = ControlFollower(topic.connect, times=TIMES, clock=clock)
    follower.start(DEADLINE_S)
    clock.now = 100.0
    # The first may have begun before the clock moved; the second begins behind the probe.
    topic.wait_for_polls(2)
    assert follower.age_s() == 0
    assert topic.attempts == 1
    assert follower.stop(DEADLINE_S)


def test_start_says_why_it_could_not(topic: Topic) -> None:
    topic.breaks(BrokerRefused("wrong password"))
    follower = ControlFollower(topic.connect, times=TIMES)
    with pytest.raises(BrokerRefused, match="wrong password"):
        follower.start(0.5)
    assert follower.stop(DEADLINE_S)


def test_start_does_not_wait_for_a_connection_that_hangs() -> None:
    released = threading.Event()

    def hang() -> ControlConsumer:
        released.wait(DEADLINE_S)
        raise BrokerUnreachable("released")

    follower = ControlFollower(hang, times=TIMES)
    with pytest.raises(BrokerUnreachable, match=r"within 0\.05 s"):
        follower.start(0.05)
    assert not follower.stop(0.05)
    released.set()
    assert follower.stop(DEADLINE_S)
