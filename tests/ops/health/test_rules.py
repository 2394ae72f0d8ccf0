"""What each reading means: findings, how bad, since when, and the one grade."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.health.findings import Finding, Severity, fine, remembered, worst
from ops.health.pipeline_rules import pipeline_findings, trend
from ops.health.readings import (
    AppReading,
    Certificate,
    DatabaseReading,
    Expected,
    Fault,
    GoldenReading,
    KafkaReading,
    LagSample,
    MachineReading,
    PipelineReports,
    Readings,
    RoundTrip,
    RouteReading,
)
from ops.health.rules import Health, judge
from ops.telemetry.observations import DeletedRecords
from stream.records import OpenTransaction, Partition
from stream.schema import ConsumerRecord, ControlRecord, VersionRoute
from stream.settings import PipelineSettings

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
BEGAN = NOW - timedelta(minutes=10)
OK, DEGRADED, DOWN = Severity
PIPELINE = PipelineSettings(
    name="reviews", model="sentiment", input_topics=("in",), output_topic="out", consumers=2
)
EXPECTED = Expected(
    pipelines=(PIPELINE,),
    topics=frozenset({"in", "out"}),
    models=frozenset({"sentiment"}),
)
ROUTE = ControlRecord(
    model="sentiment",
    epoch=7,
    versions={"3": VersionRoute(weight=1.0), "4": VersionRoute(weight=0.0)},
    shadow="4",
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def consumer(rank: int = 0, **changes: Any) -> ConsumerRecord:
    told = {
        "pipeline": "reviews",
        "consumer": rank,
        "model": "sentiment",
        "pid": 1,
        "at_ms": int(ago(2).timestamp() * 1000),
        "epoch": 7,
        "versions": (),
        "waiting": 0,
        "committed_ago_s": 1.0,
        "trouble": None,
        "ended": False,
    }
    return ConsumerRecord.model_validate(told | changes)


def lags(*counts: int) -> KafkaReading:
    """One lag every 10 s, the last one now."""
    last = len(counts) - 1
    samples = [LagSample(ago(10 * (last - place)), count) for place, count in enumerate(counts)]
    return KafkaReading(EXPECTED.topics, {"reviews": tuple(samples)})


def database(**changes: Any) -> DatabaseReading:
    routes = {"sentiment": RouteReading(ROUTE, published=True, since=BEGAN)}
    return replace(DatabaseReading(4.0, routes, "one", NOW + timedelta(seconds=9)), **changes)


def disk(free: float, total: float = 1e12, *files: Certificate) -> MachineReading:
    return MachineReading("state", int(free), int(total), files)


def expires(left: timedelta) -> MachineReading:
    return disk(5e11, 1e12, Certificate("api.tls_certfile", "a.pem", NOW + left))


def app(running: int = 1, target: int = 1, status: str = "RUNNING", **rest: Any) -> AppReading:
    return AppReading(status, rest.pop("message", ""), target, running, **rest)


APPS = {"pipeline-reviews": app(2, 2), "sentiment@3": app(), "sentiment@4": app()}
HEALTHY = Readings(
    at=NOW,
    began=BEGAN,
    kafka=lags(0, 0, 0, 0, 0, 0, 0, 0),
    round_trip=RoundTrip(9.0),
    control={"sentiment": ROUTE},
    apps=APPS,
    database=database(),
    golden={"sentiment@3": GoldenReading(NOW, 16, 16)},
    machine=expires(timedelta(days=90)),
    telling=PipelineReports((consumer(0), consumer(1)), {"reviews": ago(6)}, {"reviews": 100.0}),
)
OLDER = ROUTE.model_copy(update={"epoch": 6})
BROKEN: dict[str, Any] = {"why": "it does not answer", "since": ago(30)}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def telling(*consumers: ConsumerRecord, **rest: Any) -> dict[str, Any]:
    return {"telling": replace(HEALTHY.telling, consumers=consumers, **rest)}


def test_records_that_are_gone_are_told_of_for_an_hour() -> None:
    losses = (
        DeletedRecords("reviews", "in/3/10", 5, _ms(ago(3_601))),
        DeletedRecords("others", "in/3/10", 5, _ms(ago(5))),
    )
    readings = replace(HEALTHY, **telling(consumer(0), consumer(1), losses=losses))
    assert not [f.key for f in pipeline_findings(EXPECTED, readings) if "deleted" in f.key]


def route(**changes: Any) -> dict[str, Any]:
    reading = replace(RouteReading(ROUTE, published=True, since=ago(60)), **changes)
    return {"database": database(routes={"sentiment": reading})}


def standing(*counts: int, **last: Any) -> dict[str, Any]:
    """Lags while nothing comes out, and what consumer 1 tells."""
    return {"kafka": lags(*counts)} | telling(consumer(0), consumer(1, **last), drained_per_s={})


def held(open_s: float) -> dict[str, Any]:
    one = OpenTransaction(Partition("in", 3), 5, 7, "shop", open_s)
    return {"kafka": KafkaReading(EXPECTED.topics, {}, held={"reviews": (one,)})}


def test_a_transaction_of_ordinary_length_is_no_finding() -> None:
    readings = replace(HEALTHY, **held(30.0))
    assert not [f.key for f in pipeline_findings(EXPECTED, readings) if "held" in f.key]


def apps(**changes: AppReading | None) -> dict[str, Any]:
    named = {name.replace("_", "@"): reading for name, reading in changes.items()}
    return {"apps": {name: a for name, a in (APPS | named).items() if a is not None}}


# What is read, and what of it is found: key, severity, words of the sentence.
CASES: list[tuple[dict[str, Any], str, Severity, str]] = [
    ({"kafka": Fault(**BROKEN)}, "kafka/brokers", DOWN, "it does not answer"),
    ({"kafka": KafkaReading(frozenset({"in"}), {})}, "kafka/topics", DOWN, "no topic out"),
    (
        {"kafka": KafkaReading(EXPECTED.topics, {}, {"reviews": "no coordinator"})},
        "pipeline/reviews/lag",
        DEGRADED,
        "no coordinator",
    ),
    (
        standing(*[5] * 8, trouble="no codec zstd"),
        "pipeline/reviews/lag",
        DOWN,
        "5 records of pipeline reviews wait, and none is completed; the last error, from consumer "
        "1: no codec zstd",
    ),
    (
        standing(*[5] * 8, last_error="refused commit", last_error_ms=_ms(ago(3_000))),
        "pipeline/reviews/lag",
        DOWN,
        "from consumer 1: refused commit",
    ),
    (standing(*[5] * 8), "pipeline/reviews/lag", DOWN, "none is completed"),
    (standing(5, 5, 5, 0, 5, 5, 5, 5), "pipeline/reviews/lag", OK, "5 records"),
    (standing(9, 9, 9, 9, 9, 8, 8, 8), "pipeline/reviews/lag", OK, "8 records"),
    (held(31.0), "pipeline/reviews/held/in/3", DEGRADED, "7 records of in/3 wait behind the open"),
    ({"round_trip": Fault(**BROKEN)}, "kafka/round-trip", DOWN, "it does not answer"),
    ({"round_trip": RoundTrip(1_001)}, "kafka/round-trip", DEGRADED, "1001 ms"),
    ({"round_trip": RoundTrip(1_000)}, "kafka/round-trip", OK, "1000 ms"),
    ({"control": Fault(**BROKEN)}, "control/topic", DEGRADED, "it does not answer"),
    ({"control": {"sentiment": OLDER}}, "control/sentiment", DEGRADED, "has epoch 6"),
    ({"control": {}}, "control/sentiment", DEGRADED, "has no route"),
    (route(published=False), "control/sentiment", DEGRADED, "not been published yet"),
    ({"apps": Fault(**BROKEN)}, "ray/api", DEGRADED, "it does not answer"),
    (apps(sentiment_3=None), "app/sentiment@3/replicas", DOWN, "not deployed"),
    (apps(sentiment_4=None), "app/sentiment@4/replicas", DEGRADED, "not deployed"),
    (apps(sentiment_3=app(0, status="DEPLOYING")), "app/sentiment@3/replicas", DOWN, "0 of 1"),
    (apps(sentiment_3=app(1, 2)), "app/sentiment@3/replicas", DEGRADED, "1 of 2"),
    (
        apps(sentiment_3=app(status="UNHEALTHY", message="no memory")),
        "app/sentiment@3/replicas",
        DEGRADED,
        "(UNHEALTHY): no memory",
    ),
    (apps(sentiment_3=app(deaths=(ago(40),))), "app/sentiment@3/deaths", DEGRADED, "a replica of"),
    (
        apps(sentiment_3=app(deaths=(ago(40),) * 3)),
        "app/sentiment@3/deaths",
        DEGRADED,
        "3 replicas",
    ),
    ({"database": Fault(**BROKEN)}, "database/answers", DEGRADED, "it does not answer"),
    ({"database": database(took_ms=501)}, "database/answers", DEGRADED, "501 ms"),
    ({"database": database(lease_until=ago(6))}, "operator/lease", DEGRADED, "no operator"),
    ({"database": database(lease_until=None)}, "operator/lease", DEGRADED, "no operator"),
    ({"database": database(lease_until=ago(5))}, "operator/lease", OK, "one leads"),
    ({"golden": Fault(**BROKEN)}, "golden/asked", DEGRADED, "it does not answer"),
    (
        {"golden": {"sentiment@3": GoldenReading(NOW, 16, 15)}},
        "golden/sentiment@3/answers",
        DEGRADED,
        "15 of 16",
    ),
    (
        {"golden": {"sentiment@3": GoldenReading(NOW, 16, 16, ("f" * 64,))}},
        "golden/sentiment@3/digest",
        DOWN,
        "ffffffffffff",
    ),
    (
        {"golden": {"sentiment@3": GoldenReading(NOW, 0, 0, fault="no replica")}},
        "golden/sentiment@3/answers",
        DEGRADED,
        "no replica",
    ),
    ({"machine": Fault(**BROKEN)}, "machine/files", DEGRADED, "it does not answer"),
    ({"machine": disk(0.099e12)}, "machine/disk", DEGRADED, "10%"),
    ({"machine": disk(1.9e9, 5e9)}, "machine/disk", DEGRADED, "1.9 GB"),
    ({"machine": disk(0.019e12)}, "machine/disk", DOWN, "2%"),
    ({"machine": disk(0.19e9, 1e9)}, "machine/disk", DOWN, "0.2 GB"),
    ({"machine": disk(0.1e12)}, "machine/disk", OK, "10%"),
    ({"machine": expires(timedelta(days=22))}, "certificate/api.tls_certfile", OK, "valid until"),
    ({"machine": expires(timedelta(days=20))}, "certificate/api.tls_certfile", DEGRADED, "expires"),
    ({"machine": expires(-timedelta(1))}, "certificate/api.tls_certfile", DOWN, "expired"),
    (
        {"machine": disk(5e11, 1e12, Certificate("kafka.ssl_cafile", "c", None, "no PEM"))},
        "certificate/kafka.ssl_cafile",
        DEGRADED,
        "no PEM",
    ),
    (
        telling(
            consumer(0),
            consumer(1),
            losses=(DeletedRecords("reviews", "in/3/10", 5, _ms(ago(3_500))),),
        ),
        "pipeline/reviews/deleted/in/3/10",
        DEGRADED,
        "5 records of in/3, offsets 10 to 14,",
    ),
    (telling(consumer()), "pipeline/reviews/consumers", DEGRADED, "1 of 2"),
    (telling(), "pipeline/reviews/consumers", DOWN, "0 of 2"),
    (
        telling(consumer(), consumer(1, ended=True)),
        "pipeline/reviews/consumers",
        DEGRADED,
        "1 of 2",
    ),
    (
        telling(consumer(), consumer(1, trouble="no replica answers")),
        "pipeline/reviews/consumer/1/trouble",
        DEGRADED,
        "no replica answers",
    ),
    (
        telling(*(consumer(rank, trouble="no replica answers") for rank in (0, 1))),
        "pipeline/reviews/consumer/1/trouble",
        DOWN,
        "no replica answers",
    ),
    (
        telling(consumer(), consumer(1, waiting=5, committed_ago_s=31)),
        "pipeline/reviews/consumer/1/commits",
        DEGRADED,
        "holds 5 uncommitted",
    ),
    (
        telling(consumer(), consumer(1, waiting=5, committed_ago_s=121)),
        "pipeline/reviews/consumer/1/commits",
        DOWN,
        "nothing for 121 s",
    ),
    (
        telling(consumer(), consumer(1, epoch=6)),
        "pipeline/reviews/consumer/1/route",
        DEGRADED,
        "follows epoch 6",
    ),
    (
        telling(consumer(), consumer(1, epoch=None)),
        "pipeline/reviews/consumer/1/route",
        DEGRADED,
        "follows no route",
    ),
    (
        telling(consumer(), consumer(1), windows={"reviews": ago(90)}),
        "pipeline/reviews/telemetry",
        DEGRADED,
        "87 s behind",
    ),
    (
        {"kafka": lags(0, 0, 0, 500, 1000, 1500, 2000, 2500)},
        "pipeline/reviews/lag",
        DEGRADED,
        "2,500 records",
    ),
    (
        {"kafka": lags(0, 0, 0, 500, 1000, 1500, 2000, 2500)}
        | telling(consumer(), consumer(1), drained_per_s={}),
        "pipeline/reviews/lag",
        DOWN,
        "0 a second are drained",
    ),
    (
        {"kafka": lags(*range(10_000, 9_920, -10))},
        "pipeline/reviews/lag",
        DEGRADED,
        "drained in 9,930 s",
    ),
    ({"kafka": lags(*range(800, 0, -100))}, "pipeline/reviews/lag", OK, "drained in 10 s"),
]


def found(changes: dict[str, Any]) -> dict[str, Finding]:
    health = judge(EXPECTED, replace(HEALTHY, **changes))
    return {finding.key: finding for finding in health.findings}


def test_all_is_well() -> None:
    health = judge(EXPECTED, HEALTHY)
    assert [f for f in health.findings if f.is_trouble] == []
    assert (health.status, health.status.grade) == (OK, 0)
    assert len(health.findings) > 12


@pytest.mark.parametrize(("changes", "key", "severity", "words"), CASES)
def test_what_a_reading_means(
    changes: dict[str, Any], key: str, severity: Severity, words: str
) -> None:
    findings = found(changes)
    finding = findings[key]
    assert (finding.severity, words in finding.what) == (severity, True), finding
    assert bool(finding.hurts) == bool(finding.todo) == finding.is_trouble
    others = {f.key for f in findings.values() if f.is_trouble} - {key}
    assert all(other.startswith(key.rpartition("/")[0][:16]) for other in others), others
    assert worst(findings.values()).grade >= severity.grade


def test_what_was_not_asked_yet_is_no_trouble() -> None:
    health = judge(EXPECTED, Readings(at=NOW, began=NOW))
    assert health.status is OK


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"began": ago(29)} | telling(), "pipeline/reviews/consumers"),
        (route(published=False, since=ago(9)), "control/sentiment"),
        (
            {"began": ago(19), "database": database(lease_until=ago(300))},
            "operator/lease",
        ),
        (
            route(since=ago(9)) | telling(consumer(0, epoch=6), consumer(1)),
            "pipeline/reviews/consumer/0/route",
        ),
        (
            telling(consumer(0, committed_ago_s=500), consumer(1)),
            "pipeline/reviews/consumer/0/commits",
        ),
    ],
)
def test_what_may_still_come_is_waited_for(changes: dict[str, Any], missing: str) -> None:
    assert missing not in found(changes)


def test_wanted_consumers_are_those_that_serve_was_told() -> None:
    changes = apps(**{"pipeline-reviews": app(1, 1)}) | telling(consumer())
    assert found(changes)["pipeline/reviews/consumers"].severity is OK


def test_consumer_that_tells_rarely_is_not_silent() -> None:
    rare = PIPELINE.model_copy(update={"telemetry_interval_s": 15.0})
    expected = EXPECTED._replace(pipelines=(rare,))
    for silent_s, severity in ((59, OK), (61, DEGRADED)):
        quiet = consumer(1, at_ms=int(ago(silent_s).timestamp() * 1000))
        health = judge(expected, replace(HEALTHY, **telling(consumer(), quiet)))
        findings = {f.key: f.severity for f in health.findings}
        assert findings["pipeline/reviews/consumers"] is severity


def test_silent_consumer_was_last_heard_when_it_last_told() -> None:
    silent = consumer(1, at_ms=int(ago(50).timestamp() * 1000))
    finding = found(telling(consumer(), silent))["pipeline/reviews/consumers"]
    assert finding.since == ago(50)


def test_a_fault_has_its_own_time() -> None:
    assert found({"kafka": Fault(**BROKEN)})["kafka/brokers"].since == ago(30)


def one(severity: Severity, since: datetime, key: str = "a") -> Finding:
    return Finding(key, severity, "so", since)


@pytest.mark.parametrize(
    ("before", "now", "since"),
    [
        (DEGRADED, DEGRADED, ago(90)),
        (DEGRADED, DOWN, ago(90)),
        (OK, DEGRADED, NOW),
        (DOWN, OK, NOW),
        (OK, OK, ago(90)),
    ],
)
def test_a_finding_keeps_its_first_time(before: Severity, now: Severity, since: datetime) -> None:
    assert remembered([one(now, NOW)], [one(before, ago(90))])[0].since == since
    assert remembered([one(now, NOW)], [one(before, ago(90), "b")])[0].since == NOW


def test_time_is_kept_over_rounds() -> None:
    bad = replace(HEALTHY, round_trip=RoundTrip(5_000.0))
    first = judge(EXPECTED, bad)
    later = judge(EXPECTED, replace(bad, at=NOW + timedelta(minutes=3)), first.findings)
    assert {f.key: f.since for f in later.findings}["kafka/round-trip"] == NOW


def test_worst_stands_first() -> None:
    given_ = [fine("c", "so", NOW), one(DEGRADED, NOW, "b"), one(DOWN, NOW, "a")]
    assert [f.key for f in remembered(reversed(given_), ())] == ["a", "b", "c"]
    assert Health(NOW, tuple(given_)).status.grade == 2
    assert worst(()) is OK


SAMPLES = st.lists(st.integers(0, 10**9), min_size=7, max_size=30)


@given(SAMPLES, st.floats(1, 15))
def test_trend_of_any_samples(counts: list[int], step_s: float) -> None:
    if (len(counts) - 1) * step_s < 60:
        step_s = 60 / (len(counts) - 1) + 0.1
    samples = [LagSample(NOW + timedelta(seconds=n * step_s), c) for n, c in enumerate(counts)]
    seen = trend(samples)
    assert seen is not None
    assert seen.per_s is not None
    assert math.isfinite(seen.per_s)
    assert seen.lag == counts[-1]
    if sorted(counts) == counts:
        assert seen.per_s >= -1e-6
        assert seen.rose_by >= 0
    left_s = seen.drained_in_s
    assert left_s is None or left_s >= 0


@given(st.integers(0, 10**6), st.integers(-1000, 1000))
def test_trend_of_a_line_is_its_slope(start: int, slope: int) -> None:
    counts = [start + 10_000 + slope * second for second in range(0, 100, 10)]
    samples = [LagSample(NOW + timedelta(seconds=10 * n), c) for n, c in enumerate(counts)]
    seen = trend(samples)
    assert seen is not None
    assert seen.per_s == pytest.approx(slope, abs=1e-6)


def test_trend_needs_a_minute() -> None:
    samples = [LagSample(NOW + timedelta(seconds=10 * n), n * 1000) for n in range(6)]
    short = trend(samples)
    assert short is not None
    assert short.per_s is None
    assert trend(()) is None
