"""Counts and windows of one consumer."""

from __future__ import annotations

import pytest

from serve.contract import Answer
from stream.consumer_stats import ConsumerStats
from stream.offsets import Slot
from stream.schema import TelemetryRecord
from stream.settings import PipelineSettings
from stream.telemetry import quantile
from tests.stream.records import PlainRecord

NOW_S = 1_790_000_000.0
NOW_MS = 1_790_000_000_000
DAY_MS = 24 * 3600 * 1000


def told(*timestamps_ms: int) -> TelemetryRecord:
    """The telemetry of answers to records with these timestamps."""
    settings = PipelineSettings(name="p", model="m", input_topics=("in",), output_topic="out")
    tally = ConsumerStats(settings, rank=0, now_s=NOW_S - 60)
    slots = [Slot(PlainRecord(timestamp=ms), "1") for ms in timestamps_ms]
    for slot in slots:
        slot.outcome = Answer(b"[]", None, "E", 1.0, 3, False)
    tally.observe_commit(slots, NOW_S)
    (output,) = tally.take(NOW_S)
    return TelemetryRecord.model_validate_json(output.value or b"")


@pytest.mark.parametrize(
    "timestamp_ms",
    [0, -1, -5, 1_546_300_800_000, NOW_MS - 7 * DAY_MS - 1, NOW_MS + 1, 2**62],
    ids=["none", "unknown", "before 1970", "event of 2019", "8th day", "future", "nanoseconds"],
)
def test_a_timestamp_that_says_nothing_is_no_latency(timestamp_ms: int) -> None:
    record = told(timestamp_ms)
    assert record.answers == 1
    assert record.latency == {}
    assert quantile(record.latency, 0.99) is None


def test_others_keep_their_latency_beside_it() -> None:
    record = told(NOW_MS - 100, 0, NOW_MS - 100, -1)
    assert record.answers == 4
    assert sum(record.latency.values()) == 2
    assert quantile(record.latency, 0.99) == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("age_ms", [0, 6 * DAY_MS])
def test_a_backlog_of_days_counts(age_ms: int) -> None:
    assert sum(told(NOW_MS - age_ms).latency.values()) == 1
