"""Heartbeats go on whatever the broker does, and the last says how it ended."""

from __future__ import annotations

import threading

from stream.errors import BrokerUnreachable, CommitFailed
from stream.heartbeat import Heartbeat
from stream.schema import ConsumerRecord
from stream.topics import CONSUMERS_TOPIC

STATE = ConsumerRecord(
    pipeline="p",
    consumer=1,
    model="m",
    pid=7,
    at_ms=1,
    epoch=None,
    versions=(),
    waiting=0,
    committed_ago_s=None,
    trouble=None,
    ended=False,
)


class Broker:
    """Refuses the first connection and the second record, and keeps the others."""

    def __init__(self) -> None:
        self.connections = self.sends = self.closed = 0
        self.records: list[ConsumerRecord] = []
        self.has_two = threading.Event()

    def connect(self) -> Broker:
        self.connections += 1
        if self.connections == 1:
            raise BrokerUnreachable("not yet")
        return self

    def send_and_wait(
        self, topic: str, *, key: bytes, value: bytes | None, timeout_s: float
    ) -> None:
        assert (topic, key) == (CONSUMERS_TOPIC, b"p/1")
        assert timeout_s > 0
        self.sends += 1
        if self.sends == 2:
            raise CommitFailed("gone for a moment")
        self.records.append(ConsumerRecord.model_validate_json(value or b""))
        if len(self.records) == 2:
            self.has_two.set()

    def close(self) -> None:
        self.closed += 1


def test_beats_until_stopped_and_then_once_more() -> None:
    broker = Broker()
    ended = threading.Event()
    heartbeat = Heartbeat(
        lambda: STATE.model_copy(update={"ended": ended.is_set()}), broker.connect, interval_s=0.01
    )
    assert broker.has_two.wait(10)
    ended.set()
    assert heartbeat.stop()
    assert broker.records[-1].ended
    # One connection was refused and one was thrown away after the record that failed.
    assert broker.connections == 3
    assert broker.closed == 2
