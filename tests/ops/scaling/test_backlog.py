"""What is known of a pipeline's input."""

from __future__ import annotations

from collections.abc import Mapping

from ops.scaling.backlog import UNKNOWN, BacklogReader
from stream.errors import BrokerUnreachable, StreamError
from stream.records import GroupOffsets, Partition
from stream.settings import PipelineSettings

WORDS = PipelineSettings(name="words", model="m", input_topics=("in",), output_topic="out")


class Broker:
    """Two partitions; answers or does not."""

    def __init__(self) -> None:
        self.now_s, self.end, self.committed = 0.0, 0, 0
        self.away: StreamError | None = None
        self.opened = self.closed = 0

    def connect(self) -> Broker:
        if self.away:
            raise self.away
        self.opened += 1
        return self

    def offsets(self, group: str, topics: list[str]) -> Mapping[Partition, GroupOffsets]:
        if self.away:
            raise self.away
        assert (group, topics) == ("words", ["in"])
        return {
            Partition("in", 0): GroupOffsets(self.end, self.committed),
            Partition("in", 1): GroupOffsets(10, 10),
        }

    def close(self) -> None:
        self.closed += 1


def reader_of(broker: Broker) -> BacklogReader:
    return BacklogReader([WORDS], broker.connect, half_life_s=1e-3, clock=lambda: broker.now_s)


def test_rates_and_partitions() -> None:
    broker = Broker()
    reader = reader_of(broker)
    assert reader.of("words") == UNKNOWN
    reader.read()
    broker.now_s, broker.end, broker.committed = 2.0, 300, 100
    reader.read()
    found = reader.of("words")
    assert found.rates is not None
    assert (found.rates.lag, found.rates.arrival_per_s, found.rates.drain_per_s) == (200, 150, 50)
    assert (found.partitions, found.read_at_s, found.reachable_since_s) == (2, 2.0, 0.0)
    assert (broker.opened, broker.closed) == (1, 0)


def test_broker_that_is_away_leaves_what_was_read_and_is_tried_anew() -> None:
    broker = Broker()
    reader = reader_of(broker)
    reader.read()
    broker.away, broker.now_s = BrokerUnreachable("away"), 5.0
    reader.read()
    reader.read()
    found = reader.of("words")
    assert (found.read_at_s, found.reachable_since_s, found.partitions) == (0.0, None, 2)
    assert broker.closed == 1
    broker.away, broker.now_s = None, 9.0
    reader.read()
    assert reader.of("words").reachable_since_s == 9.0
    assert broker.opened == 2
