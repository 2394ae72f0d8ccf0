from __future__ import annotations

import orjson
import pytest
from confluent_kafka import Producer

from bench.counting import Counter, Feeder, Tally, tally
from tests.broker import Broker, NewTopic

pytestmark = pytest.mark.kafka
DEADLINE_S = 30.0


def test_the_counter_sees_real_faults_and_no_aborted_record(
    broker: Broker, topic_name: NewTopic
) -> None:
    topic = broker.create_topic(topic_name("counted"))
    feeder = Feeder(broker.bootstrap_servers, topic, keys=1)
    for _ in range(3):
        feeder.send("text")
    feeder.flush()
    other = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "transactional.id": f"{topic}-writer"}
    )
    other.init_transactions(DEADLINE_S)
    write(other, topic, [90], commit=False)
    write(other, topic, [1, 5, 4], commit=True)
    counter = Counter(broker.bootstrap_servers, topic)
    try:
        assert counter.wait_for(6, DEADLINE_S)
        assert [arrival.record_id for arrival in counter.arrivals()] == [0, 1, 2, 1, 5, 4]
        assert tally(6, counter.arrivals()) == Tally(6, lost=1, duplicated=1, reordered=1)
    finally:
        counter.close()


def write(producer: Producer, topic: str, ids: list[int], *, commit: bool) -> None:
    producer.begin_transaction()
    for record_id in ids:
        producer.produce(topic, orjson.dumps({"id": record_id}), "key-0")
    producer.flush(DEADLINE_S)
    if commit:
        producer.commit_transaction(DEADLINE_S)
    else:
        producer.abort_transaction(DEADLINE_S)
