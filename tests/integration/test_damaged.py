"""Records that no client can decode, on a real broker: the stream goes on, and says what it met."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from kafka import KafkaProducer

from stream.kafka.decoding import HeaderName
from stream.kafka.readers import TelemetryReader, recent_telemetry
from stream.kafka.topic_io import TopicWriter, read_topic
from stream.records import Damaged, Record
from stream.topics import TELEMETRY_TOPIC
from tests.broker import Broker
from tests.integration.harness import Bench, leaves_sockets

pytestmark = [pytest.mark.kafka, leaves_sockets]

NAME = HeaderName(b"\xff\xfe".decode("utf-8", "surrogateescape"))


def change(log: Path, old: bytes, new: bytes) -> None:
    """Change what the broker has written, as a failing disk does: it does not look again."""
    content = log.read_bytes()
    assert content.count(old) == 1
    with log.open("r+b") as file:
        file.seek(content.index(old))
        file.write(new)
        file.flush()
        os.fsync(file.fileno())


def test_a_header_name_that_is_no_utf8_arrives_as_it_came(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    ledger.produce(5)
    producer = KafkaProducer(bootstrap_servers=bench.kafka.bootstrap_servers)
    headers = [("good", b"1"), (NAME, b"2"), (NAME, b"3")]
    value = orjson.dumps({"id": 5, "text": "x"})
    producer.send(pipeline.input_topics[0], value, b"k", headers)
    producer.send(pipeline.input_topics[0], b'{"id": 99, "text": "poison"}', b"k", headers)
    producer.close()
    ledger.sent = 6
    ledger.produce(5)
    bench.worker(pipeline)
    for topic, mark in ((pipeline.output_topic, b'"id":5,'), (pipeline.dead_letters, b"poison")):
        read = read_topic(bench.kafka, topic, from_beginning=True, timeout_s=60)
        found = next(record for record in read if mark in (record.value or b""))
        read.close()
        assert [(name.encode(), text) for name, text in found.headers[:3]] == [
            (b"good", b"1"),
            (b"\xff\xfe", b"2"),
            (b"\xff\xfe", b"3"),
        ]
    numbers = {orjson.loads(r.value or b"")["id"] for r in _all(bench, pipeline.output_topic, 11)}
    assert numbers == set(range(11))


def test_a_changed_batch_becomes_dead_letters_and_the_stream_goes_on(
    bench: Bench, broker: Broker
) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    ledger.produce(10)
    value = orjson.dumps({"id": 1_000, "text": "as it was"})
    ledger.send(value, b"bad")
    ledger.flush()
    ledger.produce(10)
    folder = broker.process.settings.data_dir
    (log,) = folder.rglob(f"{pipeline.input_topics[0]}-0/*.log")
    change(log, b"as it was", b"as it is ")
    worker = bench.worker(pipeline)
    ledger.wait_for_count(20)
    (letter,) = ledger.read_all(pipeline.dead_letters)
    assert letter.key == b"bad"
    assert letter.value == value.replace(b"as it was", b"as it is ")
    assert letter.header("bertstream.errors.kind") == "corrupt"
    assert letter.header("bertstream.errors.offset") == "10"
    assert "checksum" in letter.header("bertstream.errors.message")
    ledger.assert_exactly_once()
    assert worker.stop(timeout_s=20, leave=True)
    damaged = [
        record.offset
        for record in _all(bench, pipeline.input_topics[0], 21)
        if isinstance(record.headers, Damaged)
    ]
    assert damaged == [10]


def test_what_is_no_telemetry_is_passed_over(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    with TopicWriter(bench.kafka, TELEMETRY_TOPIC) as writer:
        writer.write(None, b"of somebody else")
    reader = TelemetryReader(bench.kafka, since_ms=0)
    bench.worker(pipeline)
    ledger.produce(5)
    ledger.wait_for_count(5)
    found = False
    for _ in range(300):
        told = reader.poll(0.2)
        found = any(getattr(one, "pipeline", None) == pipeline.name for one in told)
        if found:
            break
    reader.close()
    assert found
    assert isinstance(recent_telemetry(bench.kafka, since_ms=0), list)


def _all(bench: Bench, topic: str, count: int) -> list[Record]:
    read = read_topic(bench.kafka, topic, from_beginning=True, timeout_s=30)
    found = [record for _, record in zip(range(count), read, strict=False)]
    read.close()
    return found
