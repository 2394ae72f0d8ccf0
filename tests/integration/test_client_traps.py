"""Traps of the Kafka client, each of which lost or doubled records once, against a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from kafka.errors import KafkaTimeoutError

from stream.control import ControlFollower
from stream.errors import CommitFailed, Fenced, StreamError
from stream.interfaces import Adapters
from stream.isolation import Caller
from stream.kafka.admin import Admin
from stream.kafka.readers import ControlReader
from stream.kafka.sink import PlainSink, Sink, TransactionalSink
from stream.kafka.source import GroupSource
from stream.outputs import TopicLimits
from stream.pipeline import Pipeline
from stream.records import Offsets, Output, Partition, Record
from stream.settings import PipelineSettings
from stream.shadow import ShadowCalls
from stream.worker import HUNG_EXIT_CODE
from tests.broker import Broker
from tests.integration.harness import (
    ROOT,
    Bench,
    FakeModel,
    answers,
    freeze,
    leaves_sockets,
    wait_until,
)

pytestmark = [pytest.mark.kafka, leaves_sockets]

SourceMaker = Callable[[Callable[[set[Partition], bool], None]], GroupSource]


@contextmanager
def running(
    bench: Bench,
    settings: PipelineSettings,
    sink: Callable[[GroupSource], Sink],
    source: SourceMaker | None = None,
    model: FakeModel | None = None,
) -> Iterator[Pipeline]:
    """A pipeline with doors of the test's choice; whatever ended it is raised at the end."""
    stopping, failures = threading.Event(), list[StreamError]()
    follower = ControlFollower(lambda: ControlReader(bench.kafka))
    follower.start(15)

    def limits() -> TopicLimits:
        with Admin(bench.kafka) as admin:
            return admin.limits(settings)

    doors = Adapters(
        source=source
        or (lambda revoked: GroupSource(bench.kafka, settings, rank=0, revoked=revoked)),
        sink=sink,  # type: ignore[arg-type]
        caller=Caller(model or FakeModel(), settings, stopping),
        shadow=ShadowCalls(model or FakeModel(), settings, stopping, rank=0),
        table=follower.table,
        limits=limits,
    )
    pipeline = Pipeline(settings, doors, rank=0, stopping=stopping)

    def run() -> None:
        try:
            pipeline.run()
        except StreamError as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield pipeline
    finally:
        stopping.set()
        thread.join(30)
        follower.stop()
        assert not thread.is_alive()
        assert not failures, failures


def joined(bench: Bench, settings: PipelineSettings, *, rank: int = 0) -> GroupSource:
    """A source that owns its partitions."""
    source = GroupSource(bench.kafka, settings, rank=rank, revoked=lambda gone, lost: None)
    wait_until(lambda: not source.poll(100) and bool(source.assignment()), "assigned")
    return source


def read(source: GroupSource, count: int) -> list[Record]:
    found: list[Record] = []

    def enough() -> bool:
        found.extend(source.poll(100))
        return len(found) >= count

    wait_until(enough, f"{count} records")
    return found


def committed(bench: Bench, settings: PipelineSettings) -> int:
    with Admin(bench.kafka) as admin:
        lags = admin.lag(settings.name, list(settings.input_topics))
    return -sum(lags.values())


def test_a_transaction_that_lost_a_record_is_not_committed(bench: Bench, broker: Broker) -> None:
    settings = bench.pipeline(create_topics=False)
    topic = broker.create_topic(settings.output_topic, max_message_bytes="2000")
    ledger = bench.ledger(settings)
    sink = TransactionalSink(bench.kafka, settings, rank=0, batch_bytes=1_000)
    small = Output(topic, b"k", b'{"id": 1}', [])
    large = Output(topic, b"k", b"x" * 5_000, [])
    with pytest.raises(CommitFailed):
        sink.commit([small, large, small], {}, None)
    sink.close()
    successor = TransactionalSink(bench.kafka, settings, rank=0)
    successor.commit([Output(topic, b"k", b'{"id": 2}', [])], {}, None)
    successor.close()
    assert [r.number for r in ledger.read_all()] == [2]


def test_a_broker_that_hangs_in_mid_transaction_commits_nothing(
    own_bench: Bench, own_broker: Broker
) -> None:
    settings = own_bench.pipeline(partitions=1, delivery_timeout_ms=2_000)
    ledger = own_bench.ledger(settings)
    outputs = [Output(settings.output_topic, b"k", b'{"id": 1}', [])]
    sink = TransactionalSink(own_bench.kafka, settings, rank=0)
    sink.commit([Output(settings.output_topic, b"k", b'{"id": 0}', [])], {}, None)
    pid = own_broker.process.pid
    assert pid is not None
    freeze(pid)
    try:
        with pytest.raises(CommitFailed):
            sink.commit(outputs, {}, None)
    finally:
        os.kill(pid, signal.SIGCONT)
    sink.close()
    successor = TransactionalSink(own_bench.kafka, settings, rank=0)
    successor.commit([Output(settings.output_topic, b"k", b'{"id": 2}', [])], {}, None)
    successor.close()
    assert [r.number for r in ledger.read_all()] == [0, 2]


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_what_is_closed_with_records_unsent_sends_no_more(
    own_bench: Bench, own_broker: Broker, delivery: str
) -> None:
    settings = own_bench.pipeline(partitions=1, delivery_timeout_ms=60_000)
    ledger = own_bench.ledger(settings)
    sink: TransactionalSink | PlainSink = TransactionalSink(own_bench.kafka, settings, rank=0)
    if delivery == "at-least-once":
        sink.close()
        sink = PlainSink(own_bench.kafka, settings, committer=NoCommits())
    sink.commit([Output(settings.output_topic, b"k", b'{"id": 0}', [])], {}, None)
    (thread,) = senders(settings)
    pid = own_broker.process.pid
    assert pid is not None
    freeze(pid)
    try:
        if delivery == "exactly-once":
            sink._producer.begin_transaction()
        sink._producer.send(settings.output_topic, key=b"k", value=b'{"id": 1}')
        began_s = time.monotonic()
        sink.close()
        assert time.monotonic() - began_s < 5.0
    finally:
        os.kill(pid, signal.SIGCONT)
    thread.join(20)
    assert not senders(settings)
    assert [r.number for r in ledger.read_all(committed=False)] == [0]


class NoCommits:
    def commit(self, offsets: Offsets) -> None:
        pass


def senders(settings: PipelineSettings) -> list[threading.Thread]:
    """The threads of a pipeline's producers."""
    return [t for t in threading.enumerate() if t.name.startswith(f"bertstream-{settings.name}")]


def test_a_record_whose_delivery_timed_out_is_not_passed_over_by_the_commit(
    own_bench: Bench, own_broker: Broker
) -> None:
    settings = own_bench.pipeline(partitions=1, delivery_timeout_ms=2_000)
    ledger = own_bench.ledger(settings)
    sink = TransactionalSink(own_bench.kafka, settings, rank=0)
    sink.commit([Output(settings.output_topic, b"k", b'{"id": 0}', [])], {}, None)
    pid = own_broker.process.pid
    assert pid is not None
    freeze(pid)
    # It is back when the record has been given up, in time for the commit to succeed.
    wakes = threading.Timer(4.0, os.kill, (pid, signal.SIGCONT))
    wakes.start()
    try:
        with pytest.raises(CommitFailed):
            sink.commit([Output(settings.output_topic, b"k", b'{"id": 1}', [])], {}, None)
    finally:
        wakes.join()
    sink.close()
    successor = TransactionalSink(own_bench.kafka, settings, rank=0)
    successor.commit([Output(settings.output_topic, b"k", b'{"id": 2}', [])], {}, None)
    successor.close()
    assert [r.number for r in ledger.read_all()] == [0, 2]


class DoubtfulSink(TransactionalSink):
    """Its third commit fails, either before the broker has decided or after."""

    commits = 0
    built = 0
    decided = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).built += 1
        commit = self._producer.commit_transaction

        def doubtful() -> None:
            type(self).commits += 1
            fails = type(self).commits == 3
            if not fails or self.decided:
                commit()
            if fails:
                raise KafkaTimeoutError("no answer to the commit")

        self._producer.commit_transaction = doubtful


@pytest.mark.parametrize("decided", [False, True])
def test_a_commit_in_doubt_neither_loses_nor_doubles(bench: Bench, decided: bool) -> None:
    """A new sink settles it: offsets of the old one must not leak into the next transaction."""
    kind = type("Doubtful", (DoubtfulSink,), {"decided": decided})
    settings = bench.pipeline()
    ledger = bench.ledger(settings)
    ledger.produce(3_000)

    def sink(source: GroupSource) -> Sink:
        made: Sink = kind(bench.kafka, settings, rank=0)
        return made

    with running(bench, settings, sink, model=FakeModel(delay_s=0.05)) as pipeline:
        ledger.wait_for_count(3_000)
        assert pipeline.progress().failed_commits == 1
    assert kind.built == 2
    ledger.assert_exactly_once()


def test_a_stale_member_cannot_commit(bench: Bench) -> None:
    settings = bench.pipeline(partitions=1)
    ledger = bench.ledger(settings)
    ledger.produce(10)
    source = GroupSource(bench.kafka, settings, rank=0, revoked=lambda gone, lost: None)
    read(source, 10)
    stale = source.group_metadata()
    sink = TransactionalSink(bench.kafka, settings, rank=0)
    with Admin(bench.kafka) as admin:
        assert admin.remove_static_member(settings.name, source.instance_id)
    outputs = [Output(settings.output_topic, b"k", b'{"id": 1}', [])]
    with pytest.raises((CommitFailed, Fenced)):
        sink.commit(outputs, {Partition(settings.input_topics[0], 0): 10}, stale)
    sink.close()
    source.close()
    assert not ledger.read_all()
    assert committed(bench, settings) == -10


def test_waiting_paused_skips_nothing(bench: Bench) -> None:
    settings = bench.pipeline(partitions=2)
    ledger = bench.ledger(settings)
    ledger.produce(200)
    source = GroupSource(bench.kafka, settings, rank=0, revoked=lambda gone, lost: None)
    found = read(source, 1)
    for _ in range(5):
        assert source.poll_nothing() == []
    found += read(source, 200 - len(found))
    source.close()
    for partition in (0, 1):
        offsets = [r.offset for r in found if r.partition == partition]
        assert offsets == list(range(len(offsets)))


def test_a_partition_that_arrives_beside_a_full_window_is_paused(bench: Bench) -> None:
    """Its records would displace what the client fetched of a paused one, maybe for ever."""
    settings = bench.pipeline(partitions=1)
    ledger = bench.ledger(settings)
    ledger.produce(100)
    source = GroupSource(bench.kafka, settings, rank=0, revoked=lambda gone, lost: None)
    brought: list[Record] = []

    def arrived() -> bool:
        brought.extend(source.poll_nothing())
        return bool(source.assignment())

    wait_until(arrived, "assigned")
    assert not brought
    found = read(source, 100)
    source.close()
    assert [r.offset for r in found] == list(range(100))


def test_going_back_where_nothing_was_committed(bench: Bench) -> None:
    """``start_from: latest`` of the client would skip what was read and not committed."""
    settings = bench.pipeline(partitions=1, start_from="latest")
    ledger = bench.ledger(settings)
    ledger.produce(5)
    source = joined(bench, settings)
    wait_until(lambda: source.poll(50) == [], "its position is known")
    ledger.produce(5)
    first = read(source, 5)
    source.seek_to_committed()
    again = read(source, 5)
    source.close()
    assert [r.offset for r in again] == [r.offset for r in first] == [5, 6, 7, 8, 9]


class OneThreadSource(GroupSource):
    """Notes from which threads the consumer is called."""

    threads: ClassVar[set[int]] = set()

    def poll(self, timeout_ms: int) -> list[Record]:
        self.threads.add(threading.get_ident())
        return super().poll(timeout_ms)

    def poll_nothing(self) -> list[Record]:
        self.threads.add(threading.get_ident())
        return super().poll_nothing()

    def commit(self, offsets: Any) -> None:
        self.threads.add(threading.get_ident())
        super().commit(offsets)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_the_rebalance_listener_does_not_call_the_consumer(bench: Bench, delivery: str) -> None:
    """It runs on the client's own thread: a call from there raises, and the client hides it."""
    settings = bench.pipeline(delivery=delivery)
    ledger = bench.ledger(settings)
    ledger.produce(1_000)
    kind = type("OneThread", (OneThreadSource,), {"threads": set()})
    gone: list[set[Partition]] = []

    def source(revoked: Callable[[set[Partition], bool], None]) -> GroupSource:
        def noted(partitions: set[Partition], lost: bool) -> None:
            revoked(partitions, lost)
            gone.append(partitions)

        made: GroupSource = kind(bench.kafka, settings, rank=0, revoked=noted)
        return made

    def sink(of: GroupSource) -> Sink:
        if delivery == "exactly-once":
            return TransactionalSink(bench.kafka, settings, rank=0)
        return PlainSink(bench.kafka, settings, committer=of)

    with running(bench, settings, sink, source, FakeModel(delay_s=0.2)):
        ledger.wait_for_count(200)
        other = bench.worker(settings, FakeModel(delay_s=0.2), rank=1)
        ledger.flow_until(lambda: bool(gone), "partitions go")
        ledger.flow_until(lambda: answers(other) > 0, "the other answers")
        ledger.wait_for(lambda results: len({r.number for r in results}) == ledger.sent)
    assert len(kind.threads) == 1
    if delivery == "exactly-once":
        ledger.assert_exactly_once()


def test_a_join_that_ends_between_two_polls_is_not_forgotten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader that joins because of a new partition has then nothing left to join for, so the
    client would look at neither the partition nor its heartbeats again."""
    monkeypatch.setattr("stream.kafka.connection.METADATA_MAX_AGE_MS", 200)
    settings = bench.pipeline(partitions=1)
    source = GroupSource(bench.kafka, settings, rank=0, revoked=lambda gone, lost: None)
    wait_until(lambda: not source.poll(100) and len(source.assignment()) == 1, "it owns one")
    bench.ledger(settings).grow(2)
    client = source._consumer
    wait_until(lambda: not client.poll(timeout_ms=0) and source._is_joining(), "it joins")
    wait_until(lambda: bool(client._coordinator._join_task.is_done), "the broker has answered")
    wait_until(lambda: not source.poll(100) and len(source.assignment()) == 2, "it owns two")
    source.close()


def test_a_client_call_that_hangs_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, release = threading.Event(), threading.Event()
    commit = TransactionalSink.commit

    def hang(self: TransactionalSink, *args: Any) -> None:
        hangs.set()
        assert release.wait(60)
        commit(self, *args)

    monkeypatch.setattr(TransactionalSink, "commit", hang)
    settings = bench.pipeline(stall_timeout_s=1.0)
    ledger = bench.ledger(settings)
    reasons: list[str] = []
    worker = bench.worker(settings, on_hang=reasons.append)
    ledger.produce(10)
    assert hangs.wait(30)
    wait_until(lambda: bool(reasons), "the watchdog barks", deadline_s=10)
    assert f"{settings.name}-0 has been stuck" in reasons[0]
    release.set()
    ledger.wait_for_count(10)
    assert worker.stop(timeout_s=20, leave=True)


def test_the_watchdog_ends_the_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from stream.worker import _end_process; _end_process('hung')"],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == HUNG_EXIT_CODE
    assert b"_end_process" in ended.stderr  # the stacks of all threads, to see where it hung
