"""Each record has one result and keys stay in order, whatever dies, hangs, joins or leaves."""

from __future__ import annotations

import logging
import signal
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from stream.kafka.admin import Admin
from tests.broker import Broker
from tests.integration.consumer_process import ENDED
from tests.integration.harness import (
    Bench,
    FakeModel,
    answers,
    freeze,
    leaves_sockets,
    wait_until,
)

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.kafka, leaves_sockets]


def test_kill_9_in_mid_stream(bench: Bench) -> None:
    pipeline = bench.pipeline(session_timeout_ms=20_000)
    ledger = bench.ledger(pipeline)
    ledger.produce(12_000)
    recoveries = []
    consumer = bench.process(pipeline, delay_s=0.05)
    for share in (1, 4, 7):
        ledger.wait_for_count(share * 1_000)
        killed_at = consumer.kill()
        consumer = bench.process(pipeline, delay_s=0.05)
        recoveries.append(ledger.wait_for_newer(killed_at))
    ledger.wait_for_count(12_000)
    assert consumer.stop() == 0
    ledger.assert_exactly_once()
    logger.warning("recovery after kill -9, s: %s", [round(s, 2) for s in recoveries])
    # Well below the session timeout: a static member does not wait for it.
    assert min(recoveries) < 8.0


def test_broker_restarts_in_mid_stream(own_bench: Bench, own_broker: Broker) -> None:
    pipeline = own_bench.pipeline()
    ledger = own_bench.ledger(pipeline)
    ledger.produce(8_000)
    worker = own_bench.worker(pipeline, FakeModel(delay_s=0.1))
    ledger.wait_for_count(500)
    own_broker.process.stop()
    own_broker.process.start()
    seen = len(ledger.wait_for_newer(time.time()) and ledger.received)
    ledger.wait_for_count(min(seen + 500, 7_000))
    own_broker.process.kill()
    own_broker.process.start()
    ledger.wait_for_count(8_000)
    assert worker.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()


def test_rebalance_in_mid_batch(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    ledger.produce(1_000)
    first = bench.worker(pipeline, FakeModel(delay_s=0.3), rank=0)
    ledger.wait_for_count(300)
    second = bench.worker(pipeline, FakeModel(delay_s=0.3), rank=1)
    ledger.flow_until(lambda: answers(second) >= 300, "the second consumer answers")
    before = answers(first)
    ledger.flow_until(lambda: answers(first) > before, "the first goes on beside it")
    assert second.stop(timeout_s=20, leave=True)
    ledger.wait_for_count(ledger.sent)
    assert first.stop(timeout_s=20, leave=True)
    assert answers(first) + answers(second) == ledger.sent
    ledger.assert_exactly_once()


def test_partitions_added_while_it_runs_are_read(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline)
    ledger.produce(10)
    ledger.wait_for_count(10)
    ledger.grow(2)
    ledger.produce(10, partition=1)
    ledger.wait_for_count(20, deadline_s=40)
    ledger.assert_exactly_once()


def test_the_older_of_two_consumers_of_one_rank_is_fenced(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    held = FakeModel()
    older = bench.worker(pipeline, held)
    ledger.produce(500)
    ledger.wait_for_count(500)
    held.open.clear()
    ledger.produce(2_000)
    wait_until(lambda: held.calls and older.state().progress.in_flight > 0, "calls in flight")
    committed = answers(older)
    younger = bench.worker(pipeline, FakeModel())
    wait_until(lambda: answers(younger) > 0, "the younger takes over")
    held.open.set()
    wait_until(lambda: older.state().ended, "the older stops")
    ledger.wait_for_count(2_500)
    assert "Fenced" in older.state().trouble
    assert answers(older) == committed
    assert not younger.state().ended
    assert younger.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()


def test_a_zombie_that_still_has_answers_commits_nothing(bench: Bench) -> None:
    """The younger one's records are not even read yet when the older tries to commit."""
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    model = FakeModel(delay_s=0.1)
    older = bench.worker(pipeline, model)
    ledger.produce(4_000)
    ledger.wait_for_count(500)
    younger = bench.worker(pipeline, FakeModel(delay_s=0.1))
    wait_until(lambda: older.state().ended, "the older stops")
    assert "Fenced" in older.state().trouble
    ledger.wait_for_count(4_000)
    assert not younger.state().ended, younger.state()
    assert younger.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()


def test_records_that_an_upstream_has_not_committed_are_not_answered(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    upstream = Producer(
        {"bootstrap.servers": bench.kafka.bootstrap_servers, "transactional.id": pipeline.model}
    )
    upstream.init_transactions(20)
    for number in (7, 0):
        upstream.begin_transaction()
        upstream.produce(pipeline.input_topics[0], b'{"id": %d, "text": "a"}' % number)
        assert upstream.flush(20) == 0
        if number:
            upstream.abort_transaction(20)
    bench.worker(pipeline)
    ledger = bench.ledger(pipeline)
    ledger.sent = 1
    upstream.commit_transaction(20)
    ledger.wait_for_count(1)
    ledger.assert_exactly_once()
    assert [result.number for result in ledger.received] == [0]


def test_stop_commits_what_is_in_flight_and_leaves_the_group(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    model = FakeModel(delay_s=1.0)
    worker = bench.worker(pipeline, model)
    ledger.produce(1_000)
    wait_until(lambda: len(model.calls) >= 2, "calls in flight")
    called = len(model.calls)
    assert worker.stop(timeout_s=20, leave=True)
    state = worker.state()
    assert state.ended
    assert state.trouble is None
    assert answers(worker) >= called * 1
    assert len(ledger.read_all()) == answers(worker) > 0
    with Admin(bench.kafka) as admin:
        topics, waiting = list(pipeline.input_topics), 1_000 - answers(worker)
        # Results are readable a moment before the offsets of the same transaction.
        wait_until(
            lambda: sum(admin.lag(pipeline.name, topics).values()) == waiting,
            "offsets are committed",
        )
    client = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    described = client.describe_consumer_groups([pipeline.name])[pipeline.name].result(10)
    assert not described.members


def test_a_consumer_that_was_frozen_past_its_session_doubles_nothing(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    ledger.produce(1_000)
    frozen = bench.process(pipeline, delay_s=0.3)
    ledger.wait_for_count(300)
    other = bench.worker(pipeline, FakeModel(delay_s=0.3), rank=1)
    ledger.flow_until(lambda: answers(other) > 0, "both answer")
    ledger.produce(2_000)
    freeze(frozen.pid)
    started = time.monotonic()
    with Admin(bench.kafka) as admin:
        client = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})

        def is_out() -> bool:
            group = client.describe_consumer_groups([pipeline.name])[pipeline.name].result(10)
            return len(group.members) == 1

        wait_until(is_out, "the group drops the frozen member")
        assert time.monotonic() - started > 4
        before = answers(other)
        wait_until(lambda: answers(other) >= before + 300, "the other has its partitions")
        frozen.send(signal.SIGCONT)
        ledger.wait_for_count(ledger.sent)
        assert other.stop(timeout_s=20, leave=True)
        # Where its transaction has run out meanwhile, it is fenced and ends by itself.
        assert frozen.stop() in (0, ENDED)
        topics = list(pipeline.input_topics)
        wait_until(
            lambda: not sum(admin.lag(pipeline.name, topics).values()), "offsets are committed"
        )
    ledger.assert_exactly_once()
