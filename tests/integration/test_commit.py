"""A commit is whole or nothing, also where the Kafka client would let a part of it through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from stream.errors import CommitFailed
from stream.kafka.admin import Admin
from stream.kafka.sink import PlainSink, Sink, TransactionalSink
from stream.kafka.source import GroupSource
from stream.records import Offsets, Output, Partition
from tests.integration.harness import Bench, FakeModel, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, leaves_sockets]


def written(bench: Bench, topic: str) -> int:
    """Records of a topic, those of open transactions too."""
    with Admin(bench.kafka) as admin:
        found = admin.offsets("nobody", [topic]).values()
    return sum(at.end + at.held for at in found)


class OutputsOfATopicThatGoes(list[Output]):
    """Outputs for two topics, of which one is deleted while they are being sent."""

    def __init__(self, bench: Bench, *, stays: str, goes: str) -> None:
        topics = (stays, goes, goes, stays)
        super().__init__(Output(t, b"k", b'{"id": %d}' % i, []) for i, t in enumerate(topics))
        self._bench = bench
        self._stays, self._goes = stays, goes

    def __iter__(self) -> Iterator[Output]:
        yield from self[:2]
        # It must be part of the transaction before it goes.
        wait_until(lambda: written(self._bench, self._goes) == 1, "the first are written")
        client = AdminClient({"bootstrap.servers": self._bench.kafka.bootstrap_servers})
        client.delete_topics([self._goes])[self._goes].result(10)
        yield from self[2:]
        # The flush that follows has a whole delivery timeout left: it sees the record given up.
        wait_until(lambda: written(self._bench, self._stays) == 2, "the last is written")


class Committer:
    """Notes what a sink commits outside of a transaction."""

    def __init__(self) -> None:
        self.committed: list[Offsets] = []

    def commit(self, offsets: Offsets) -> None:
        self.committed.append(offsets)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_commit_without_one_of_its_records_is_refused(bench: Bench, delivery: str) -> None:
    """A send that runs out of time leaves the client's transaction fit to be committed."""
    settings = bench.pipeline(delivery=delivery, delivery_timeout_ms=1_000, partitions=1)
    outputs = OutputsOfATopicThatGoes(
        bench, stays=settings.output_topic, goes=settings.dead_letters
    )
    committer = Committer()
    sink: Sink
    if delivery == "exactly-once":
        sink = TransactionalSink(bench.kafka, settings, rank=0)
        offsets: Offsets = {}
    else:
        sink = PlainSink(bench.kafka, settings, committer=committer)
        offsets = {Partition(settings.input_topics[0], 0): 1}
    with pytest.raises(CommitFailed):
        sink.commit(outputs, offsets, None)
    sink.close()
    assert not committer.committed
    if delivery == "exactly-once":
        TransactionalSink(bench.kafka, settings, rank=0).close()
        assert not bench.ledger(settings).read_all()


def test_offsets_of_a_failed_commit_do_not_join_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client keeps them, and sends them along with those of its next transaction."""
    model, membership, asked = FakeModel(), GroupSource.group_metadata, list[Any]()

    def stale_once(source: GroupSource) -> Any:
        asked.append(membership(source))
        if len(asked) > 1:
            return asked[-1]
        model.slow.clear()
        return asked[0]._replace(generation_id=asked[0].generation_id - 1)

    monkeypatch.setattr(GroupSource, "group_metadata", stale_once)
    settings = bench.pipeline(partitions=2)
    ledger = bench.ledger(settings)
    ledger.produce(20, partition=0, text="slow")
    worker = bench.worker(settings, model)

    def failed() -> int:
        state = worker.state().progress
        return state.failed_commits if state else 0

    wait_until(lambda: failed() == 1, "the stale member is refused")
    wait_until(lambda: sum(map(len, model.calls)) == 40, "its records are read again")
    ledger.produce(20, partition=1)
    ledger.wait_for_count(20)
    first, second = (Partition(settings.input_topics[0], number) for number in (0, 1))
    with Admin(bench.kafka) as admin:
        topics, expected = list(settings.input_topics), {first: 20, second: 0}
        # Results are readable a moment before the offsets of the same transaction.
        wait_until(lambda: admin.lag(settings.name, topics) == expected, "the lag is of one")
    model.slow.set()
    ledger.wait_for_count(40)
    assert worker.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()
