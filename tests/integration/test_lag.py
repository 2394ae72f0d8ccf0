"""Lag is what can be read: no markers, nothing aborted, nothing deleted, nothing held back."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.kafka.admin import Admin
from stream.records import GroupOffsets, Partition
from stream.settings import PipelineSettings
from tests.integration.harness import Bench, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, leaves_sockets]


def offsets(bench: Bench, pipeline: PipelineSettings) -> GroupOffsets:
    with Admin(bench.kafka) as admin:
        (found,) = admin.offsets(pipeline.name, list(pipeline.input_topics)).values()
    return found


def transaction(bench: Bench, topic: str, count: int) -> Producer:
    """A producer with records in an open transaction."""
    producer = Producer(
        {
            "bootstrap.servers": bench.kafka.bootstrap_servers,
            "transactional.id": f"shop-{uuid.uuid4().hex[:8]}",
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, b'{"id": %d}' % (90_000 + number))
    assert producer.flush(30) == 0
    return producer


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_nothing_waits_behind_what_was_aborted(bench: Bench, delivery: str) -> None:
    pipeline = bench.pipeline(partitions=1, delivery=delivery)
    ledger = bench.ledger(pipeline)
    worker = bench.worker(pipeline)
    ledger.produce(5)
    ledger.wait_for_count(5)
    transaction(bench, pipeline.input_topics[0], 20).abort_transaction(30)
    wait_until(lambda: offsets(bench, pipeline) == GroupOffsets(26, 26), "all is passed")
    ledger.produce(5)
    ledger.wait_for_count(10)
    wait_until(lambda: offsets(bench, pipeline) == GroupOffsets(31, 31), "lag falls to nothing")
    progress = worker.state().progress
    assert progress is not None
    assert progress.failed_commits == 0
    ledger.assert_exactly_once()


def test_deleted_records_do_not_wait(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    bench.ledger(pipeline).produce(10)
    assert offsets(bench, pipeline) == GroupOffsets(10, 0)
    client = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    (done,) = client.delete_records([TopicPartition(pipeline.input_topics[0], 0, 7)]).values()
    done.result(20)
    assert offsets(bench, pipeline) == GroupOffsets(10, 7)
    assert offsets(bench, pipeline).lag == 3


def test_an_open_transaction_is_named(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    ledger.produce(5)
    producer = transaction(bench, pipeline.input_topics[0], 3)
    ledger.produce(4)
    found = offsets(bench, pipeline)
    assert found == GroupOffsets(5, 0, held=7)
    with Admin(bench.kafka) as admin:
        (held,) = admin.held({Partition(pipeline.input_topics[0], 0): found})
    assert (held.offset, held.records) == (5, 7)
    assert held.transactional_id is not None
    assert held.transactional_id.startswith("shop-")
    assert held.open_s is not None
    assert 0 <= held.open_s < 300
    assert "7 records" in held.sentence()
    assert "shop-" in held.sentence()
    producer.commit_transaction(30)
    assert offsets(bench, pipeline) == GroupOffsets(13, 0)
    with Admin(bench.kafka) as admin:
        assert admin.held({Partition(pipeline.input_topics[0], 0): offsets(bench, pipeline)}) == []
