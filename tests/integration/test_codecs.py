"""Records of every codec of Kafka, from another client and by the topic's own setting."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stream.kafka.topic_io import read_topic
from stream.topics import pipeline_topics, platform_topics
from tests.broker import Broker, NewTopic
from tests.integration.harness import Bench, leaves_sockets, wait_until

pytestmark = pytest.mark.kafka

# In the order of their numbers in a batch's attributes, from 1.
CODECS = ["gzip", "snappy", "lz4", "zstd"]
IS_CONTROL = 0x20


@pytest.mark.parametrize("by", ["producer", "topic"])
@pytest.mark.parametrize("codec", CODECS)
def test_records_of_every_codec_are_read(
    broker: Broker, topic_name: NewTopic, codec: str, by: str
) -> None:
    setting = {"compression_type": codec} if by == "topic" else {}
    topic = broker.create_topic(topic_name(), **setting)
    options = {"compression.type": codec} if by == "producer" else {}
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers} | options)
    values = [b"the same words again and again " * 8 + str(n).encode() for n in range(200)]
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0
    read = read_topic(broker.kafka, topic, from_beginning=True, timeout_s=10)
    assert [next(read).value for _ in values] == values
    read.close()  # type: ignore[attr-defined]


def use_codec(broker: Broker, topics: Iterable[str], codec: str) -> None:
    """Have the broker write a topic's batches in a codec, whatever comes."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry("compression.type", codec, incremental_operation=AlterConfigOpType.SET)
            ],
        )
        for topic in topics
    ]
    for done in admin.incremental_alter_configs(wanted).values():
        done.result(30)


def codecs_on_disk(broker: Broker, topic: str) -> set[int]:
    """Of the batches of a topic, by the lowest three bits of their attributes."""
    found = set()
    for log in broker.process.settings.data_dir.glob(f"data/**/{topic}-*/*.log"):
        content, at = log.read_bytes(), 0
        while at + 61 <= len(content) and (length := int.from_bytes(content[at + 8 : at + 12])):
            attributes = int.from_bytes(content[at + 21 : at + 23])
            if not attributes & IS_CONTROL:
                found.add(attributes & 7)
            at += 12 + length
    return found


@leaves_sockets
def test_a_pipeline_works_with_a_codec_on_all_its_topics(
    own_bench: Bench, own_broker: Broker
) -> None:
    for number, codec in enumerate(CODECS, start=1):
        pipeline = own_bench.pipeline(routed=False, partitions=2, telemetry_interval_s=0.2)
        topics = [*pipeline_topics(pipeline), *platform_topics()]
        use_codec(own_broker, topics, codec)
        own_bench.route(pipeline)
        ledger = own_bench.ledger(pipeline, **{"compression.type": codec})
        ledger.produce(300)
        ledger.send(None, b"a tombstone becomes a dead letter")
        ledger.flush()
        worker = own_bench.worker(pipeline)
        ledger.wait_for_count(300)
        wait_until(lambda: len(ledger.read_all(pipeline.dead_letters)) == 1, "the dead letter")  # noqa: B023
        ledger.assert_exactly_once()
        for topic in ("bertstream.control", "bertstream.telemetry", "bertstream.consumers"):
            wait_until(lambda: number in codecs_on_disk(own_broker, topic), topic)  # noqa: B023
        assert worker.stop(timeout_s=30, leave=True)
        for topic in pipeline_topics(pipeline):
            assert codecs_on_disk(own_broker, topic) == {number}, (codec, topic)
