"""Where a group begins, and what becomes of records that are deleted before they are read."""

from __future__ import annotations

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.kafka.admin import Admin
from stream.kafka.readers import recent_telemetry
from stream.settings import PipelineSettings
from tests.integration.harness import Bench, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, leaves_sockets]


def delete_before(bench: Bench, pipeline: PipelineSettings, partition: int, offset: int) -> None:
    """Move the start of a partition, as retention does."""
    client = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    place = TopicPartition(pipeline.input_topics[0], partition, offset)
    (done,) = client.delete_records([place]).values()
    assert done.result(20).low_watermark == offset


def committed(bench: Bench, pipeline: PipelineSettings) -> dict[int, int]:
    with Admin(bench.kafka) as admin:
        found = admin.offsets(pipeline.name, list(pipeline.input_topics))
    return {partition.partition: at.committed for partition, at in found.items()}


def has_begun(bench: Bench, pipeline: PipelineSettings) -> bool:
    client = AdminClient({"bootstrap.servers": bench.kafka.bootstrap_servers})
    asked = ConsumerGroupTopicPartitions(pipeline.name)
    (found,) = client.list_consumer_group_offsets([asked]).values()
    return len(found.result(20).topic_partitions or ()) == 2


def deleted(bench: Bench, pipeline: PipelineSettings) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in recent_telemetry(bench.kafka, since_ms=0):
        if record.pipeline == pipeline.name:
            found |= record.deleted
    return found


def test_latest_is_for_a_group_that_has_committed_nothing(bench: Bench) -> None:
    """A partition that is added later is read from its start, whoever reads it first."""
    pipeline = bench.pipeline(partitions=2, start_from="latest")
    ledger = bench.ledger(pipeline)
    ledger.send(b'{"id": 10000}', partition=0)
    ledger.send(b'{"id": 10001}', partition=1)
    ledger.flush()
    worker = bench.worker(pipeline)
    wait_until(lambda: committed(bench, pipeline) == {0: 1, 1: 1}, "it begins at the end")
    ledger.produce(10, partition=0)
    ledger.wait_for_count(10)
    assert worker.stop(timeout_s=20, leave=True)
    ledger.grow(3)
    ledger.produce(10, partition=2)
    ledger.produce(10, partition=1)
    bench.worker(pipeline)
    ledger.wait_for_count(30)
    ledger.assert_exactly_once()
    assert not deleted(bench, pipeline)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("start_from", ["earliest", "latest"])
def test_records_that_are_deleted_unread_are_told_and_the_rest_is_read(
    bench: Bench, start_from: str, delivery: str
) -> None:
    pipeline = bench.pipeline(partitions=2, start_from=start_from, delivery=delivery)
    ledger = bench.ledger(pipeline)
    worker = bench.worker(pipeline)
    wait_until(lambda: has_begun(bench, pipeline), "it is decided where its group begins")
    ledger.produce(10, partition=0)
    ledger.wait_for_count(10)
    assert worker.stop(timeout_s=20, leave=True)
    start = committed(bench, pipeline)[0]
    for partition in (0, 1):
        for _ in range(7):
            ledger.send(b'{"id": 10000}', partition=partition)
    ledger.flush()
    delete_before(bench, pipeline, 0, start + 7)
    delete_before(bench, pipeline, 1, 7)
    ledger.produce(5, partition=1)
    worker = bench.worker(pipeline)
    ledger.wait_for_count(15)
    topic = pipeline.input_topics[0]
    expected = {f"{topic}/0/{start}": 7, f"{topic}/1/0": 7}
    wait_until(lambda: deleted(bench, pipeline) == expected, "it is told", deadline_s=30)
    wait_until(lambda: committed(bench, pipeline)[0] == start + 7, "what is gone is passed over")
    assert worker.stop(timeout_s=20, leave=True)
    worker = bench.worker(pipeline)
    ledger.produce(5, partition=0)
    ledger.wait_for_count(20)
    ledger.assert_exactly_once()
    told = [r for r in recent_telemetry(bench.kafka, since_ms=0) if r.pipeline == pipeline.name]
    assert sum(sum(record.deleted.values()) for record in told) == 14
    assert all(record.version is None for record in told if record.deleted)
