"""When an app is deployed anew, and when that ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.operator.repair_rules import (
    FIRST_PAUSE,
    LIMIT,
    SILENT_S,
    STALLED_S,
    WITHIN,
    Act,
    AppFault,
    WatchedPipeline,
    fault_of_app,
    fault_of_pipeline,
    next_step,
)
from ops.serving.observed_app import ObservedApp
from stream.schema import ConsumerRecord

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
BROKEN = AppFault("it is broken", timedelta(seconds=30))


def told(rank: int = 0, *, age_s: float = 1.0, **changes: Any) -> ConsumerRecord:
    fields = {
        "pipeline": "words",
        "consumer": rank,
        "model": "echo",
        "pid": 1,
        "at_ms": NOW_MS - int(age_s * 1000),
        "epoch": 1,
        "versions": ("1",),
        "waiting": 0,
        "committed_ago_s": 1.0,
        "trouble": None,
        "ended": False,
    }
    return ConsumerRecord.model_validate(fields | changes)


def ailing(*heartbeats: ConsumerRecord, **changes: Any) -> str | None:
    watched = WatchedPipeline(1, 1.0, 3600.0, {h.consumer: h for h in heartbeats}, True)
    found = fault_of_pipeline(watched._replace(**changes), NOW_MS)
    return found and found.what


@pytest.mark.parametrize("status", ["RUNNING", "DEPLOYING", "NOT_STARTED", "DELETING"])
def test_app_that_runs_or_is_on_its_way_does_not_ail(status: str) -> None:
    assert fault_of_app(ObservedApp(status, 1, ""), None) is None


@pytest.mark.parametrize(
    ("found", "fault", "what"),
    [
        (None, None, "it is not deployed"),
        (None, "no room", "it could not be deployed: no room"),
        (ObservedApp("DEPLOY_FAILED", 0, "boom"), None, "its deployment failed: boom"),
        (ObservedApp("UNHEALTHY", 1, ""), None, "its replicas are not healthy"),
    ],
)
def test_faults_of_apps(found: ObservedApp | None, fault: str | None, what: str) -> None:
    fault = fault_of_app(found, fault)
    assert fault is not None
    assert fault.what == what


def test_pipeline_that_goes_on_does_not_ail() -> None:
    assert ailing(told()) is None
    assert ailing(told(committed_ago_s=1e6)) is None  # nothing waits
    assert ailing(told(waiting=5, committed_ago_s=STALLED_S - 1)) is None
    assert ailing(told(0), told(1, ended=True)) is None  # one that was scaled away


@pytest.mark.parametrize(
    ("heartbeat", "what"),
    [
        (told(age_s=SILENT_S + 5), f"consumer 0 sent no heartbeat for {SILENT_S + 5:.0f} s"),
        (told(ended=True, trouble="why"), "consumer 0 has ended: why"),
        (told(trouble="why"), "consumer 0 cannot continue: why"),
        (
            told(waiting=5, committed_ago_s=STALLED_S + 1),
            f"consumer 0 committed nothing for {STALLED_S + 1:.0f} s, and 5 records wait",
        ),
    ],
)
def test_faults_of_pipelines(heartbeat: ConsumerRecord, what: str) -> None:
    assert ailing(heartbeat) == what


def test_every_consumer_must_tell() -> None:
    assert ailing(told(0), consumers=2) == "consumer 1 sent no heartbeat for 3600 s"


def test_nobody_is_blamed_for_a_broker_that_was_away() -> None:
    assert ailing(told(age_s=1000), seen_for_s=SILENT_S - 1) is None


def test_trouble_of_a_model_that_is_away_is_not_the_pipelines() -> None:
    assert ailing(told(trouble="no replica"), model_runs=False) is None


def test_slow_heartbeats_have_more_time() -> None:
    assert ailing(told(age_s=100), interval_s=20.0) is None
    assert ailing(told(age_s=121), interval_s=20.0) is not None


def test_it_waits_repairs_waits_longer_and_gives_up() -> None:
    since, attempts, acts = NOW, [], []
    for second in range(0, 1800, 5):
        now = NOW + timedelta(seconds=second)
        step = next_step(BROKEN, since, attempts, now)
        if step.act is Act.REPAIR:
            attempts.append(now)
            since = now
        if not acts or acts[-1][0] != step.act:
            acts.append((step.act, second))
    assert [act for act, _ in acts] == [
        *[Act.WAIT, Act.REPAIR] * LIMIT,
        Act.WAIT,
        Act.GIVE_UP,
    ]
    repaired = [second for act, second in acts if act is Act.REPAIR]
    assert repaired == [30, 90, 210]
    assert acts[-1][1] == 210 + 240
    step = next_step(BROKEN, since, attempts, NOW + timedelta(minutes=10))
    assert step.reason == "it is broken, and it was redeployed 3 times within 9 min 30 s"


@given(st.lists(st.integers(0, 7200)), st.integers(0, 7200))
def test_never_more_attempts_than_the_limit_within_the_hour(ages: list[int], since_s: int) -> None:
    attempts = sorted(NOW - timedelta(seconds=age) for age in ages)
    step = next_step(BROKEN, NOW - timedelta(seconds=since_s), attempts, NOW)
    lately = [attempt for attempt in attempts if NOW - attempt < WITHIN]
    if step.act is Act.REPAIR:
        assert len(lately) < LIMIT
        assert not lately or NOW - lately[-1] >= FIRST_PAUSE
    if since_s < BROKEN.patience.total_seconds():
        assert step.act is Act.WAIT
