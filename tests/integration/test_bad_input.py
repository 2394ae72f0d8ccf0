"""What comes of records, models and brokers that are not as they should be."""

from __future__ import annotations

import time
from collections.abc import Callable

import orjson
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from pydantic import SecretStr

from stream.kafka.admin import Admin
from stream.kafka.readers import recent_consumers
from stream.schema import DeadLetterHeaders
from stream.settings import PipelineSettings
from stream.topics import pipeline_topics
from tests.broker import Broker
from tests.integration.harness import Bench, FakeModel, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, leaves_sockets]


def lag(bench: Bench, pipeline: PipelineSettings) -> int:
    with Admin(bench.kafka) as admin:
        return sum(admin.lag(pipeline.name, list(pipeline.input_topics)).values())


def test_a_tombstone_is_a_dead_letter(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    ledger.send(None, b"gone")
    ledger.produce(3)
    bench.worker(pipeline)
    ledger.wait_for_count(3)
    (letter,) = ledger.dead_letters(1)
    assert letter.key == b"gone"
    assert letter.value is None
    assert letter.header("bertstream.errors.kind") == "tombstone"
    assert letter.header("bertstream.errors.attempt") == "0"


@pytest.mark.parametrize("fault", ["poison", "killer"])
def test_the_one_record_that_a_model_fails_on_is_found(bench: Bench, fault: str) -> None:
    pipeline = bench.pipeline(partitions=1, max_attempts=2)
    ledger = bench.ledger(pipeline)
    ledger.produce(60)
    value = orjson.dumps({"id": 1_000, "text": fault})
    ledger.send(value, b"bad", headers=[("trace", b"1"), ("trace", None)])
    ledger.produce(60)
    worker = bench.worker(pipeline)
    results = ledger.wait_for_count(120)
    (letter,) = ledger.dead_letters(1)
    assert (letter.key, letter.value) == (b"bad", value)
    assert letter.headers[:2] == [("trace", b"1"), ("trace", None)]
    headers = DeadLetterHeaders.model_validate(
        {name: text.decode() for name, text in letter.headers[2:]}
    )
    assert headers.kind == "poison"
    assert headers.model == "m@1"
    assert (headers.topic, headers.partition, headers.offset) == (
        pipeline.input_topics[0],
        "0",
        "60",
    )
    assert headers.source == f"{pipeline.input_topics[0]}/0/60"
    assert int(headers.attempt) >= 3
    assert {r.number for r in results} == set(range(120))
    assert max(int(r.header("bertstream-attempt")) for r in results) >= 3
    assert worker.stop(timeout_s=20, leave=True)
    assert lag(bench, pipeline) == 0


def test_a_result_that_the_topic_refuses_is_a_dead_letter(bench: Bench, broker: Broker) -> None:
    pipeline = bench.pipeline(create_topics=False)
    broker.create_topic(pipeline.input_topics[0])
    # Small enough that the client's batches of good results are over it, too, and are divided.
    broker.create_topic(pipeline.output_topic, max_message_bytes="8000")
    broker.create_topic(pipeline.dead_letters)
    ledger = bench.ledger(pipeline)
    ledger.produce(100)
    value = orjson.dumps({"id": 1_000, "text": "huge"})
    ledger.send(value, b"k")
    ledger.produce(100)
    bench.worker(pipeline, FakeModel(huge_bytes=20_000))
    ledger.wait_for_count(200)
    (letter,) = ledger.dead_letters(1)
    assert (letter.key, letter.value) == (b"k", value)
    assert letter.header("bertstream.errors.kind") == "result-too-large"
    assert "8000" in letter.header("bertstream.errors.message")
    ledger.assert_exactly_once()


def test_a_record_of_one_megabyte_passes(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    ledger.produce(3, text="x" * 1_040_000)
    bench.worker(pipeline)
    ledger.wait_for_count(3)
    ledger.assert_exactly_once()


def test_key_and_headers_are_carried_over(bench: Bench) -> None:
    pipeline = bench.pipeline(partitions=1)
    ledger = bench.ledger(pipeline)
    own = [("traceparent", b"00-abc"), ("twice", b"1"), ("twice", b"\xff"), ("twice", None)]
    own.append(("ce_id", b"order-7"))
    ledger.send(b'{"id": 5, "text": "a"}', b"\x00\xff", headers=own)
    ledger.send(b'{"id": 6, "text": "a"}')
    bench.worker(pipeline)
    with_key, without = ledger.wait_for_count(2)
    assert with_key.key == b"\x00\xff"
    assert with_key.headers[:5] == own
    assert orjson.loads(with_key.value)["id"] == "order-7"
    assert with_key.header("bertstream-source") == f"{pipeline.input_topics[0]}/0/0"
    assert with_key.header("bertstream-model") == "m@1"
    assert without.key is None
    assert without.number == 6


def test_a_missing_topic_is_named_and_waited_for(bench: Bench, broker: Broker) -> None:
    pipeline = bench.pipeline(create_topics=False)
    worker = bench.worker(pipeline)
    wait_until(lambda: pipeline.output_topic in (worker.state().trouble or ""), "it is named")
    for topic in pipeline_topics(pipeline):
        broker.create_topic(topic)
    ledger = bench.ledger(pipeline)
    ledger.produce(5)
    ledger.wait_for_count(5)
    assert worker.state().trouble is None


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("purpose", ["output_topic", "dead_letters"])
def test_a_topic_made_compacted_under_way_is_named_and_nothing_is_lost(
    bench: Bench, delivery: str, purpose: str
) -> None:
    pipeline = bench.pipeline(partitions=1, delivery=delivery)
    topic = getattr(pipeline, purpose)
    ledger = bench.ledger(pipeline)
    worker = bench.worker(pipeline)
    ledger.produce(5)
    ledger.wait_for_count(5)
    set_topic(bench, topic, "cleanup.policy", "compact")
    ledger.send(b'{"id": 5, "text": "a"}' if purpose == "output_topic" else None)
    ledger.sent += purpose == "output_topic"
    ledger.produce(5)
    wait_until(
        lambda: f"topic {topic} is for" in (worker.state().trouble or ""), "the topic is named"
    )
    assert "cleanup.policy=delete" in (worker.state().trouble or "")
    assert not worker.state().ended
    set_topic(bench, topic, "cleanup.policy", "delete")
    ledger.wait_for_count(ledger.sent)
    wait_until(lambda: worker.state().trouble is None, "all is well again")
    if delivery == "exactly-once":
        ledger.assert_exactly_once()
    assert len(ledger.read_all(pipeline.dead_letters)) == (purpose == "dead_letters")


def set_topic(bench: Bench, topic: str, name: str, value: str) -> None:
    """Change a setting of a topic."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={name: value})
    admin = KafkaAdminClient(**bench.kafka.client_options())
    try:
        admin.alter_configs([resource])
    finally:
        admin.close()


def test_without_a_route_it_waits(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="stream.backoff")
    pipeline = bench.pipeline(routed=False)
    ledger = bench.ledger(pipeline)
    ledger.produce(200)
    model = FakeModel()
    worker = bench.worker(pipeline, model)
    wait_until(lambda: "no route" in (worker.state().trouble or ""), "it says what it waits for")
    assert not model.calls
    bench.route(pipeline)
    ledger.wait_for_count(200)
    wait_until(lambda: worker.state().trouble is None, "all is well")
    said = [record.message for record in caplog.records if pipeline.name in record.message]
    assert sum("no route" in message for message in said) == 1
    assert sum("recovered" in message for message in said) == 1
    ledger.assert_exactly_once()


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    own_bench: Bench, own_broker: Broker
) -> None:
    pipeline = own_bench.pipeline()
    ledger = own_bench.ledger(pipeline)
    ledger.produce(100)
    own_broker.process.kill()
    worker = own_bench.worker(pipeline)
    wait_until(lambda: worker.state().trouble is not None, "it says so")
    assert not worker.state().ended
    own_broker.process.start()
    ledger.wait_for_count(100)
    assert worker.state().trouble is None


def test_a_broken_model_stops_the_pipeline_and_drains_nothing(bench: Bench) -> None:
    pipeline = bench.pipeline(max_poison_run=5)
    ledger = bench.ledger(pipeline)
    ledger.produce(400)
    worker = bench.worker(pipeline, FakeModel(broken=True))
    wait_until(lambda: worker.state().ended, "it stops")
    assert "SystemFault" in (worker.state().trouble or "")
    assert not ledger.read_all()
    assert not ledger.read_all(pipeline.dead_letters)
    assert lag(bench, pipeline) == 400


def test_a_model_that_is_away_is_waited_for(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    model = FakeModel()
    model.away.set()
    bench.worker(pipeline, model)
    ledger.produce(200)
    wait_until(lambda: len(model.calls) >= 5, "it asks again and again")
    model.away.clear()
    ledger.wait_for_count(200)
    ledger.assert_exactly_once()
    assert not ledger.read_all(pipeline.dead_letters)


def test_a_model_that_stays_away_stops_the_pipeline(bench: Bench) -> None:
    pipeline = bench.pipeline(model_deadline_s=0.5)
    ledger = bench.ledger(pipeline)
    ledger.produce(10)
    model = FakeModel()
    model.away.set()
    worker = bench.worker(pipeline, model)
    wait_until(lambda: worker.state().ended, "it stops")
    assert "was unavailable" in (worker.state().trouble or "")
    assert lag(bench, pipeline) == 10


def test_at_least_once_loses_nothing(bench: Bench) -> None:
    pipeline = bench.pipeline(delivery="at-least-once")
    ledger = bench.ledger(pipeline)
    ledger.produce(5_000)
    consumer = bench.process(pipeline, delay_s=0.05)
    for count in (500, 2_000):
        ledger.wait_for_count(count)
        killed_at = consumer.kill()
        consumer = bench.process(pipeline, delay_s=0.05)
        ledger.wait_for_newer(killed_at)
    ledger.wait_for(lambda results: len({r.number for r in results}) == 5_000)
    assert consumer.stop() == 0
    assert lag(bench, pipeline) == 0


def test_several_input_topics(bench: Bench, topic_name: Callable[..., str]) -> None:
    topics = (topic_name("a")[:60], topic_name("b")[:60], topic_name("c")[:60])
    pipeline = bench.pipeline(input_topics=topics, partitions=2)
    ledger = bench.ledger(pipeline)
    for topic in topics:
        ledger.produce(100, topic=topic)
    bench.worker(pipeline)
    results = ledger.wait_for_count(300)
    assert {r.header("bertstream-source").split("/")[0] for r in results} == set(topics)
    assert {r.number for r in ledger.read_all()} == set(range(300))
    assert len(ledger.read_all()) == 300


def test_tls_and_login_end_to_end(secure_broker: Broker) -> None:
    kafka = secure_broker.kafka
    assert kafka.sasl_password is not None
    bench = Bench(
        kafka,
        **{
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.username": kafka.sasl_username,
            "sasl.password": kafka.sasl_password.get_secret_value(),
            "ssl.ca.location": str(kafka.ssl_cafile),
        },
    )
    try:
        pipeline = bench.pipeline()
        ledger = bench.ledger(pipeline)
        ledger.produce(500)
        bench.worker(pipeline)
        ledger.wait_for_count(500)
        ledger.assert_exactly_once()
    finally:
        bench.close()


def test_with_a_wrong_password_it_ends_and_says_why(secure_broker: Broker) -> None:
    bench = Bench(secure_broker.kafka)
    pipeline = bench.pipeline()
    wrong = Bench(secure_broker.kafka.model_copy(update={"sasl_password": SecretStr("wrong")}))
    try:
        worker = wrong.worker(pipeline)
        wait_until(lambda: worker.state().ended, "it ends")
        trouble = worker.state().trouble or ""
        assert trouble.startswith("BrokerRefused: ")
        assert "does not let app in" in trouble
        assert worker.state().progress is None
    finally:
        wrong.close()
        bench.close()


def test_a_consumer_tells_what_it_waits_for(bench: Bench) -> None:
    """Beside the loop: one that has no route, or no model, commits nothing that could tell."""
    pipeline = bench.pipeline(partitions=1, routed=False, telemetry_interval_s=0.2)
    model = FakeModel()
    model.away.set()
    ledger = bench.ledger(pipeline)
    ledger.produce(3)
    began_ms = int(time.time() * 1000)
    bench.worker(pipeline, model)

    def told(trouble: str | None) -> Callable[[], bool]:
        def is_told() -> bool:
            consumers = recent_consumers(bench.kafka, since_ms=began_ms)
            own = [record for record in consumers if record.pipeline == pipeline.name]
            return any(trouble in (r.trouble or "") if trouble else not r.trouble for r in own)

        return is_told

    wait_until(told(f"no route for model {pipeline.model}"), "trouble with the route")
    bench.route(pipeline)
    wait_until(told("no replica"), "trouble with the model")
    model.away.clear()
    ledger.wait_for_count(3)
    wait_until(told(None), "no trouble")
    (record,) = (
        r for r in recent_consumers(bench.kafka, since_ms=began_ms) if r.pipeline == pipeline.name
    )
    assert (record.epoch, record.versions, record.waiting) == (1, (), 0)
