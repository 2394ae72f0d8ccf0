"""Health on a real Kafka: a pipeline at work, one that falls behind, a broker that dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops.health.findings import Finding, Severity
from ops.health.kafka_probes import PROBE_TOPIC, ControlProbe, KafkaProbe, RoundTripProbe
from ops.health.monitor import HealthMonitor, Probe, Schedule
from ops.health.probes import telling
from ops.health.readings import Expected, RoundTrip
from ops.health.rules import Health
from ops.telemetry.follower import follow
from ops.telemetry.observations import Observations
from stream.errors import BrokerUnreachable, CommitFailed
from stream.kafka.admin import Admin
from stream.kafka.sink import PlainProducer
from stream.settings import KafkaSettings, PipelineSettings
from stream.topics import CONTROL_TOPIC, pipeline_topics, platform_topics
from tests.broker import Broker
from tests.integration.harness import Bench, FakeModel, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def now() -> datetime:
    return datetime.now(UTC)


def expected_of(*pipelines: PipelineSettings) -> Expected:
    topics = set(platform_topics()).union(*map(pipeline_topics, pipelines))
    return Expected(pipelines, frozenset(topics), frozenset())


@contextmanager
def told_by(kafka: KafkaSettings) -> Iterator[Observations]:
    """What the pipelines tell from now on, as the operator reads it."""
    observations, stop = Observations(), threading.Event()
    since_ms = int(time.time() * 1000)
    thread = threading.Thread(target=follow, args=(kafka, observations, since_ms, stop))
    thread.start()
    try:
        yield observations
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_pipeline_at_work_and_one_that_waits(bench: Bench, tmp_path: Path) -> None:
    pipeline = bench.pipeline(telemetry_interval_s=0.2)
    expected = expected_of(pipeline)
    model = FakeModel()
    with told_by(bench.kafka) as observations, ExitStack() as open_probes:
        asked = {
            "kafka": KafkaProbe(bench.kafka, expected, now),
            "round_trip": RoundTripProbe(bench.kafka),
            "control": ControlProbe(bench.kafka),
        }
        for probe in asked.values():
            open_probes.enter_context(closing(probe))
        watching = HealthMonitor(
            expected,
            {name: Schedule(probe, 30.0, every_s=0.0) for name, probe in asked.items()},
            lambda moment: telling(expected, observations, moment),
            clock=now,
            state_dir=tmp_path,
        )

        def look() -> Health:
            return watching.refresh(datetime.fromtimestamp(0, UTC), ())

        ledger = bench.ledger(pipeline)
        bench.worker(pipeline, model)
        ledger.produce(100)
        ledger.wait_for_count(100)
        wait_until(lambda: look().status is Severity.OK, "health")
        found = {finding.key: finding.what for finding in look().findings}
        assert found[f"pipeline/{pipeline.name}/lag"].startswith("0 records")
        assert found[f"pipeline/{pipeline.name}/consumers"].startswith("1 of 1")
        readings = look().readings
        assert readings is not None
        assert isinstance(readings.round_trip, RoundTrip)
        assert isinstance(readings.control, dict)
        assert readings.control[pipeline.model].epoch == 1
        with Admin(bench.kafka) as admin:
            assert PROBE_TOPIC in admin.topics()

        model.away.set()
        ledger.produce(30)
        key = f"pipeline/{pipeline.name}/consumer/0/trouble"

        def trouble() -> Finding | None:
            return next((f for f in look().findings if f.key == key), None)

        wait_until(lambda: trouble() is not None, "the consumer's own trouble")
        assert "no replica" in str(trouble())
        assert look().status is Severity.DOWN
        model.away.clear()
        wait_until(lambda: trouble() is None, "the trouble's end")


@leaves_sockets
def test_broker_that_dies_is_told_and_found_again(own_broker: Broker, own_bench: Bench) -> None:
    pipeline = own_bench.pipeline()
    kafka = own_bench.kafka
    probes: list[Probe] = [
        KafkaProbe(kafka, expected_of(pipeline), now),
        RoundTripProbe(kafka, timeout_s=3.0),
        ControlProbe(kafka),
    ]
    producer = PlainProducer(kafka)
    producer.send_and_wait(CONTROL_TOPIC, key=b"nonsense", value=b"{", timeout_s=20.0)
    producer.close()
    assert list(probes[2]()) == [pipeline.model]
    for probe in probes:
        probe()
    own_broker.process.kill()
    for probe in probes:
        began = time.monotonic()
        with pytest.raises((BrokerUnreachable, CommitFailed)):
            probe()
        assert time.monotonic() - began < 8.0
    own_broker.process.start()
    for probe in probes:
        assert probe()
        probe.close()
    # What holds the client's forgotten sockets ends a moment after it was closed.
    wait_until(lambda: not [t for t in threading.enumerate() if "producer" in t.name], "its end")
