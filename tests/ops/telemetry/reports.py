"""What pipelines report, made up: windows, comparisons, heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

from ops.telemetry.observations import Observations
from serve.contract import Answer, Failure, FailureKind, Outcome
from stream.comparison import Comparison
from stream.records import Record
from stream.schema import ComparisonRecord, ConsumerRecord, TelemetryRecord
from stream.telemetry import TelemetryWindow

BEGAN = 1_000_000


GOOD = Answer(b'{"label":"good"}', None, "good", 0.9, 7, False)


BAD = Answer(b'{"label":"bad"}', None, "bad", 0.8, 7, False)


POISON = Failure(FailureKind.POISON, "nan")


TOO_LONG = Failure(FailureKind.TOO_LONG, "900 tokens")


NOT_JSON = Failure(FailureKind.NOT_JSON, "no object")


def window(
    version: str = "3",
    *,
    start: int = BEGAN,
    end: int | None = None,
    model: str = "sentiment",
    consumer: int = 0,
    answers: Sequence[Answer] = (),
    failures: Sequence[FailureKind] = (),
    rescued: int = 0,
) -> TelemetryRecord:
    seen = TelemetryWindow(pipeline="reviews", consumer=consumer, model=model, version=version)
    seen.observe_answers(answers, [12.0] * len(answers))
    seen.observe_failures(failures)
    if rescued:
        seen.observe_rescues("failed", rescued)
        seen.observe_rescues("late", 1)
    return seen.to_record(start, start + 5000 if end is None else end, replica=None)


def comparison(
    live: Sequence[Outcome] = (),
    candidate: Sequence[Outcome] = (),
    *,
    pair: tuple[str, str] = ("2", "3"),
    start: int = BEGAN,
    calls: Sequence[tuple[float, float]] = (),
) -> ComparisonRecord:
    seen = Comparison()
    records = [SimpleNamespace(topic="in", partition=0, offset=at) for at in range(len(live))]
    seen.observe_answers(cast("list[Record]", records), live, candidate, task="text-classification")
    for live_s, candidate_s in calls:
        seen.observe_calls(live_s, candidate_s)
    return seen.to_record(
        pipeline="reviews",
        consumer=0,
        model="sentiment",
        live=pair[0],
        candidate=pair[1],
        start_ms=start,
        end_ms=start + 5000,
    )


def heartbeat(at_ms: int, *, consumer: int = 0, pipeline: str = "reviews") -> ConsumerRecord:
    return ConsumerRecord(
        pipeline=pipeline,
        consumer=consumer,
        model="sentiment",
        pid=1,
        at_ms=at_ms,
        epoch=4,
        versions=(),
        waiting=0,
        committed_ago_s=0.1,
        trouble=None,
        ended=False,
    )


def told(*records: TelemetryRecord | ComparisonRecord | ConsumerRecord) -> Observations:
    seen = Observations()
    seen.add(records)
    return seen
