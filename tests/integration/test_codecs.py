"""Records of every codec of Kafka, from another client and by the topic's own setting."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from stream.clients import read_topic
from tests.broker import Broker, NewTopic

pytestmark = pytest.mark.kafka

CODECS = ["gzip", "snappy", "lz4", "zstd"]


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
