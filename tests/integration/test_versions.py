"""Several versions of a model on one live stream: none of what a release does loses a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest

from stream.kafka.readers import TelemetryReader, recent_telemetry
from stream.schema import ComparisonRecord, TelemetryRecord
from stream.settings import PipelineSettings
from stream.telemetry import merge
from tests.integration.harness import Bench, FakeModel, FakeModels, leaves_sockets, wait_until

pytestmark = [pytest.mark.kafka, leaves_sockets]

DELIVERIES = pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
CANARY = {"1": 0.5, "2": 0.5}


def telemetry(bench: Bench, pipeline: PipelineSettings, version: str) -> TelemetryRecord | None:
    found = [
        window
        for window in recent_telemetry(bench.kafka, since_ms=0)
        if (window.pipeline, window.version) == (pipeline.name, version)
    ]
    return merge(found) if found else None


def comparisons(bench: Bench, pipeline: PipelineSettings) -> list[ComparisonRecord]:
    with closing(TelemetryReader(bench.kafka, since_ms=0)) as reader:
        found = reader.poll(0.2)
        while not reader.has_caught_up():
            found += reader.poll(0.2)
    of_pair = (record for record in found if isinstance(record, ComparisonRecord))
    return [record for record in of_pair if record.pipeline == pipeline.name]


def total(found: list[ComparisonRecord], name: str) -> int:
    return sum(getattr(record, name) for record in found)


def answered_by(ledger_results: list[str]) -> Counter[str]:
    return Counter(model.rpartition("@")[2] for model in ledger_results)


@DELIVERIES
def test_what_a_canary_fails_on_the_live_version_answers(bench: Bench, delivery: str) -> None:
    pipeline = bench.pipeline(routed=False, delivery=delivery, telemetry_interval_s=0.2)
    bench.route(pipeline, CANARY, fallback="1")
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=FakeModel(broken=True)))
    ledger.produce(400)
    ledger.wait_for_count(400)
    ledger.assert_exactly_once()
    assert answered_by([r.header("bertstream-model") for r in ledger.received]) == {"1": 400}

    def is_charged() -> bool:
        ledger.produce(1)  # telemetry goes with records
        window = telemetry(bench, pipeline, "2")
        return window is not None and sum(window.rescued.values()) > 100

    wait_until(is_charged, "the canary is charged")


def test_a_canary_that_hangs_holds_nothing_up_for_long(bench: Bench) -> None:
    pipeline = bench.pipeline(routed=False, fallback_after_s=0.3)
    bench.route(pipeline, CANARY, fallback="1")
    hanging = FakeModel()
    hanging.open.clear()
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=hanging))
    ledger.produce(200)
    ledger.wait_for_count(200)
    ledger.assert_exactly_once()


def test_a_rollback_takes_records_back_from_a_version_that_hangs(bench: Bench) -> None:
    """Without a fallback, too: the route alone decides who answers."""
    pipeline = bench.pipeline(routed=False)
    bench.route(pipeline, CANARY)
    hanging = FakeModel()
    hanging.open.clear()
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=hanging))
    ledger.produce(300)
    wait_until(lambda: bool(hanging.calls), "the second version is asked")
    bench.route(pipeline, {"1": 1.0}, epoch=2)
    ledger.wait_for_count(300)
    ledger.assert_exactly_once()
    assert {r.header("bertstream-model").rpartition("@")[2] for r in ledger.received} == {"1"}


@DELIVERIES
def test_weights_that_change_on_the_live_stream_lose_and_reorder_nothing(
    bench: Bench, delivery: str
) -> None:
    pipeline = bench.pipeline(routed=False, delivery=delivery)
    bench.route(pipeline)
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=FakeModel(delay_s=0.02)))
    for epoch, share in enumerate([0.05, 0.5, 1.0, 0.25, 0.0], start=2):
        ledger.produce(400)
        ledger.wait_for_count(ledger.sent - 200)
        bench.route(pipeline, {"1": 1 - share, "2": share}, epoch=epoch, fallback="1")
    ledger.produce(400)
    ledger.wait_for_count(ledger.sent)
    ledger.assert_exactly_once()
    counts = answered_by([r.header("bertstream-model") for r in ledger.received])
    assert counts["2"] > 100
    assert counts["1"] > 400


def test_a_shadow_is_compared_and_never_published(bench: Bench) -> None:
    pipeline = bench.pipeline(routed=False, telemetry_interval_s=0.2)
    bench.route(pipeline, {"1": 1.0, "2": 0.0}, shadow="2", fallback="1")
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(label="A"), v2=FakeModel(label="B")))

    def has_compared(count: int) -> Callable[[], bool]:
        def check() -> bool:
            ledger.produce(10)
            found = comparisons(bench, pipeline)
            return total(found, "compared") >= count and any(one.live_calls for one in found)

        return check

    wait_until(has_compared(50), "the shadow answers")
    found = comparisons(bench, pipeline)
    for one in found:
        assert (one.live, one.candidate, one.agreed, one.failed) == ("1", "2", 0, 0)
        assert one.matrix == ({"A": {"B": one.compared}} if one.compared else {})
        assert sum(one.live_calls.values()) == sum(one.candidate_calls.values())
    assert any(one.live_calls for one in found)
    assert next(one.samples for one in found if one.compared)[0].live == "A"
    ledger.wait_for_count(ledger.sent)
    ledger.assert_exactly_once()
    assert {r.header("bertstream-model").rpartition("@")[2] for r in ledger.received} == {"1"}


def test_a_shadow_that_fails_is_charged_by_record(bench: Bench) -> None:
    pipeline = bench.pipeline(routed=False, telemetry_interval_s=0.2)
    bench.route(pipeline, {"1": 1.0, "2": 0.0}, shadow="2")

    class Picky(FakeModel):
        """Fails on one record in ten."""

        def call(self, version, values):  # type: ignore[no-untyped-def]
            self.broken = any(b'0,"text' in value for value in values)
            return super().call(version, values)

    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=Picky()))

    def has_compared() -> bool:
        ledger.produce(10)
        return total(comparisons(bench, pipeline), "compared") >= 100

    wait_until(has_compared, "the shadow answers")
    found = comparisons(bench, pipeline)
    compared, failed = total(found, "compared"), total(found, "failed")
    assert failed == pytest.approx(compared / 10, abs=5)
    assert total(found, "agreed") == compared - failed


def test_a_shadow_that_hangs_costs_nothing(bench: Bench) -> None:
    pipeline = bench.pipeline(routed=False)
    bench.route(pipeline, {"1": 1.0, "2": 0.0}, shadow="2")
    hanging = FakeModel()
    hanging.open.clear()
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel(), v2=hanging))
    ledger.produce(2_000)
    ledger.wait_for_count(2_000)
    ledger.assert_exactly_once()
    assert len(hanging.calls) == 1


def test_reader_of_telemetry_has_caught_up_once_all_that_was_told_before_is_read(
    bench: Bench,
) -> None:
    pipeline = bench.pipeline(telemetry_interval_s=0.2)
    ledger = bench.ledger(pipeline)
    bench.worker(pipeline, FakeModels(v1=FakeModel()))
    ledger.produce(100)
    ledger.wait_for_count(100)

    def is_told() -> bool:
        ledger.produce(1)  # telemetry goes with records
        return telemetry(bench, pipeline, "1") is not None

    wait_until(is_told, "a window is on the topic")
    reader, told = TelemetryReader(bench.kafka, since_ms=0), []
    assert not reader.has_caught_up()

    def has_caught_up() -> bool:
        told.extend(reader.poll(0.2))
        return reader.has_caught_up()

    wait_until(has_caught_up, "the reader has caught up")
    reader.close()
    assert any(pipeline.name == record.pipeline for record in told)
