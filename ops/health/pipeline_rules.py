"""Findings about pipelines: consumers, commits, lag, outdated routes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from ops.health import kinds
from ops.health.findings import Finding, Severity, fine
from ops.health.kinds import FindingKind
from ops.health.readings import (
    AppReading,
    DatabaseReading,
    Expected,
    KafkaReading,
    LagSample,
    Readings,
)
from stream.schema import ConsumerRecord
from stream.settings import PipelineSettings
from stream.times import from_ms

# Over a shorter time a slope is noise.
SHORTEST_TREND = timedelta(seconds=60)
RISES_BY_RECORDS = 100
# A lag rises if it grows by more than the pipeline drains in this time.
RISES_BY_S = 5.0
LONGEST_DRAIN_S = 600.0
# A pipeline is stalled if records wait this long while none is completed.
STANDS_S = 60.0
# A consumer is silent after this many missed heartbeats, but not before SILENCE_S.
MISSED_HEARTBEATS = 4
SILENCE_S = 30.0
OLDEST_COMMIT_S = 30.0
STUCK_COMMIT_S = 120.0
FOLLOWS_WITHIN = timedelta(seconds=10)
LATE_WINDOW_S = 60.0
# Producers normally keep a transaction open for a few seconds at most.
LONG_OPEN_S = 30.0
LAST_WORDS = timedelta(hours=1)


class Trend(NamedTuple):
    """Development of a lag over time.

    Attributes:
        lag: The last lag, in records.
        per_s: Growth in records per second; None if there are too few samples.
        rose_by: Growth in records from the first third of the samples to the last.
        since: Time of the first sample.
        stands_s: Time for which there were always records, and not fewer at the end.
    """

    lag: int
    per_s: float | None
    rose_by: float
    since: datetime
    stands_s: float = 0.0

    @property
    def drained_in_s(self) -> float | None:
        """Seconds until the lag is 0 at this rate; None while it does not fall."""
        if self.lag == 0:
            return 0.0
        return self.lag / -self.per_s if self.per_s is not None and self.per_s < 0 else None


def trend(samples: Sequence[LagSample]) -> Trend | None:
    """Return the trend of a lag, a straight line through its samples; None without samples."""
    if not samples:
        return None
    first, last = samples[0], samples[-1]
    if len(samples) < 3 or last.at - first.at < SHORTEST_TREND:
        return Trend(last.lag, None, 0.0, first.at)
    times = [(sample.at - first.at).total_seconds() for sample in samples]
    lags = [sample.lag for sample in samples]
    middle_s, middle = sum(times) / len(times), sum(lags) / len(lags)
    spread = sum((t - middle_s) ** 2 for t in times)
    slope = sum((t - middle_s) * (n - middle) for t, n in zip(times, lags, strict=True)) / spread
    third = max(1, len(lags) // 3)
    rose_by = sum(lags[-third:]) / third - sum(lags[:third]) / third
    stands = min(lags) > 0 and lags[-1] >= lags[0]
    return Trend(last.lag, slope, rose_by, first.at, times[-1] if stands else 0.0)


def pipeline_findings(expected: Expected, readings: Readings) -> Iterator[Finding]:
    """Yield the findings about all configured pipelines."""
    for pipeline in expected.pipelines:
        health = _PipelineHealth(pipeline, readings)
        yield from _consumers(health)
        yield from _stuck(health)
        yield from _commits(health)
        yield from _routes(health)
        yield from _lag(health)
        yield from _held(health)
        yield from _losses(health)
        yield from _telemetry(health)


class _PipelineHealth:
    """One pipeline and the known state of its consumers."""

    def __init__(self, pipeline: PipelineSettings, readings: Readings) -> None:
        self.name = pipeline.name
        self.model = pipeline.model
        self.readings = readings
        self.at = readings.at
        self.silence_s = max(SILENCE_S, MISSED_HEARTBEATS * pipeline.telemetry_interval_s)
        self.wanted = _wanted(pipeline, readings.apps)
        self.all = [c for c in readings.telling.consumers if c.pipeline == pipeline.name]
        self.alive = [c for c in self.all if not c.ended and self.silent_s(c) <= self.silence_s]

    def silent_s(self, consumer: ConsumerRecord) -> float:
        return (self.at - from_ms(consumer.at_ms)).total_seconds()

    def fine(self, aspect: str, what: str) -> Finding:
        return fine(f"pipeline/{self.name}/{aspect}", what, self.at)

    def bad(
        self, kind: FindingKind, severity: Severity, what: str, since: datetime, **more: object
    ) -> Finding:
        return kind.found(severity, what, since, name=self.name, model=self.model, **more)


def _consumers(health: _PipelineHealth) -> Iterator[Finding]:
    """Compare the consumers that send heartbeats with the desired number."""
    here = len(health.alive)
    if here >= health.wanted:
        yield health.fine("consumers", f"{here} of {health.wanted} consumers are running")
        return
    watched_s = (health.at - health.readings.began).total_seconds()
    if watched_s < health.silence_s:
        return  # the first heartbeats may still be missing
    words = [from_ms(consumer.at_ms) for consumer in health.all if consumer not in health.alive]
    lately = [moment for moment in words if health.at - moment < LAST_WORDS]
    what = f"{here} of {health.wanted} consumers of pipeline {health.name} send heartbeats"
    since = min(lately, default=health.at)
    if here:
        yield health.bad(kinds.CONSUMERS_MISSING, Severity.DEGRADED, what, since)
    else:
        yield health.bad(kinds.CONSUMERS_DOWN, Severity.DOWN, what, since)


def _stuck(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield the problems that consumers report themselves."""
    stuck = [consumer for consumer in health.alive if consumer.trouble]
    for consumer in stuck:
        yield health.bad(
            kinds.CONSUMER_STUCK,
            Severity.DOWN if len(stuck) == len(health.alive) else Severity.DEGRADED,
            f"consumer {consumer.consumer} of pipeline {health.name} cannot continue: "
            f"{consumer.trouble}",
            from_ms(consumer.at_ms),
            rank=consumer.consumer,
        )


def _commits(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield consumers that have not committed the records they read."""
    for consumer in health.alive:
        ago_s = consumer.committed_ago_s
        if not consumer.waiting or ago_s is None or ago_s <= OLDEST_COMMIT_S:
            continue
        yield health.bad(
            kinds.COMMITS_STUCK,
            Severity.DOWN if ago_s > STUCK_COMMIT_S else Severity.DEGRADED,
            f"consumer {consumer.consumer} of pipeline {health.name} has committed nothing for "
            f"{ago_s:.0f} s while it holds {consumer.waiting:,} uncommitted records",
            from_ms(consumer.at_ms) - timedelta(seconds=ago_s),
            rank=consumer.consumer,
        )


def _routes(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield consumers that follow an older route than the one in force."""
    database = health.readings.database
    if not isinstance(database, DatabaseReading) or health.model not in database.routes:
        return
    route = database.routes[health.model]
    for consumer in health.alive:
        late = from_ms(consumer.at_ms) - route.since > FOLLOWS_WITHIN
        if not late or (consumer.epoch or 0) >= route.record.epoch:
            continue
        follows = "no route" if consumer.epoch is None else f"epoch {consumer.epoch}"
        yield health.bad(
            kinds.ROUTE_OLD,
            Severity.DEGRADED,
            f"consumer {consumer.consumer} of pipeline {health.name} follows {follows}, but epoch "
            f"{route.record.epoch} is in force",
            route.since,
            rank=consumer.consumer,
        )


def _lag(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield the finding about the number of waiting records and its trend."""
    kafka = health.readings.kafka
    if not isinstance(kafka, KafkaReading):
        return
    if health.name in kafka.unread:
        what = f"the lag of pipeline {health.name} is unknown: {kafka.unread[health.name]}"
        yield health.bad(kinds.LAG_UNKNOWN, Severity.DEGRADED, what, health.at)
        return
    found = trend(kafka.lags.get(health.name, ()))
    if found is None:
        return
    drained_per_s = health.readings.telling.drained_per_s.get(health.name, 0.0)
    what = f"{found.lag:,} records of pipeline {health.name} wait"
    if found.stands_s >= STANDS_S and not drained_per_s:
        what += f", and none is completed{_last_words(health)}"
        yield health.bad(kinds.LAG_STANDS, Severity.DOWN, what, found.since)
        return
    if found.per_s and found.rose_by > max(RISES_BY_RECORDS, RISES_BY_S * drained_per_s):
        what += f", {found.per_s:,.0f} more each second; {drained_per_s:,.0f} a second are drained"
        severity = Severity.DEGRADED if drained_per_s else Severity.DOWN
        yield health.bad(kinds.LAG_RISES, severity, what, found.since)
        return
    left_s = found.drained_in_s
    going = "" if left_s is None or not found.lag else f"; drained in {left_s:,.0f} s"
    if left_s is not None and left_s > LONGEST_DRAIN_S and found.lag > RISES_BY_RECORDS:
        yield health.bad(kinds.LAG_LONG, Severity.DEGRADED, what + going, found.since)
        return
    yield health.fine("lag", what + going)


def _last_words(health: _PipelineHealth) -> str:
    """Return the last error of a consumer within the last hour, as the end of a sentence."""
    words = [
        (consumer.at_ms, consumer.consumer, consumer.trouble)
        if consumer.trouble
        else (consumer.last_error_ms or 0, consumer.consumer, consumer.last_error)
        for consumer in health.all
        if consumer.trouble or consumer.last_error
    ]
    at_ms, rank, text = max(words, default=(0, 0, None))
    if text is None or health.at - from_ms(at_ms) > LAST_WORDS:
        return ""
    return f"; the last error, from consumer {rank}: {text}"


def _held(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield long-open producer transactions: no record behind them can be read."""
    kafka = health.readings.kafka
    if not isinstance(kafka, KafkaReading):
        return
    for held in kafka.held.get(health.name, ()):
        if held.open_s is not None and held.open_s > LONG_OPEN_S:
            topic, number = held.partition
            yield health.bad(
                kinds.TRANSACTION_OPEN,
                Severity.DEGRADED,
                held.sentence(),
                health.at - timedelta(seconds=held.open_s),
                partition=f"{topic}/{number}",
            )


def _losses(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield the losses of the last hour: records deleted before they were read."""
    for loss in health.readings.telling.losses:
        at = from_ms(loss.at_ms)
        if loss.pipeline == health.name and health.at - at < LAST_WORDS:
            deleted, what = kinds.RECORDS_DELETED, loss.sentence()
            yield health.bad(deleted, Severity.DEGRADED, what, at, partition=loss.place)


def _telemetry(health: _PipelineHealth) -> Iterator[Finding]:
    """Yield the finding about telemetry, which must arrive if records are committed."""
    commits = [
        from_ms(consumer.at_ms) - timedelta(seconds=consumer.committed_ago_s)
        for consumer in health.alive
        if consumer.committed_ago_s is not None
    ]
    last = max(commits, default=None)
    if last is None or last < health.readings.began:
        return
    window = health.readings.telling.windows.get(health.name, health.readings.began)
    behind_s = (last - window).total_seconds()
    if behind_s <= max(LATE_WINDOW_S, health.silence_s):
        yield health.fine("telemetry", "telemetry is up to date with the last commit")
        return
    what = f"pipeline {health.name} commits, but its newest telemetry is {behind_s:.0f} s behind"
    yield health.bad(kinds.TELEMETRY_LATE, Severity.DEGRADED, what, window)


def _wanted(pipeline: PipelineSettings, apps: object) -> int:
    """Return the target last set in Serve; the configured number if it is unknown."""
    app = apps.get(pipeline.app_name) if isinstance(apps, Mapping) else None
    return app.target if isinstance(app, AppReading) and app.target else pipeline.consumers
