"""Computes what models cost: samples to hours, hours to money, and the ceiling. Pure.

Owns the arithmetic of replica-seconds and prices. Reads no clock and no database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Final, Literal, NamedTuple

from ops.config.prices import PriceTable

Column = Literal["model", "version", "team"]
ALL_COLUMNS: Final[tuple[Column, ...]] = ("model", "version", "team")
NO_TEAM: Final = "(none)"
HOUR: Final = timedelta(hours=1)
MILLION: Final = 1_000_000


class UsageSource(NamedTuple):
    """Owner of resources: replicas of a version, or consumers of a pipeline.

    Attributes:
        version: None for the consumers of a pipeline.
        pipeline: None for the replicas of a version.
        node_type: Key of the price table; None if all nodes cost the same.
    """

    model: str
    version: str | None = None
    pipeline: str | None = None
    node_type: str | None = None


class UsageSample(NamedTuple):
    """State of one source at a moment.

    Attributes:
        at: Time of the sample, timezone-aware.
        num_cpus: CPUs reserved per replica.
        num_gpus: GPUs reserved per replica.
        predictions: A counter that only grows, except when the counting process restarts.
    """

    at: datetime
    source: UsageSource
    replicas: int
    num_cpus: float
    num_gpus: float = 0.0
    predictions: int = 0


class Usage(NamedTuple):
    """Resources that one source used within an hour.

    Attributes:
        hour: Start of the hour, in UTC.
        unknown_s: Seconds without observation; they are not part of the other amounts.
    """

    hour: datetime
    source: UsageSource
    replica_s: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    predictions: int = 0
    unknown_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """Sums of usage.

    Attributes:
        model, version, team: None if not grouped by; the version is also None for consumers.
        money: Cost in the table's currency; a lower bound if ``unknown_s`` is above 0.
        per_million: Cost of a million predictions; None without predictions.
    """

    model: str | None
    version: str | None
    team: str | None
    replica_s: float
    cpu_s: float
    gpu_s: float
    predictions: int
    unknown_s: float
    money: float
    per_million: float | None


class CeilingState(StrEnum):
    """Relation of today's cost to the ceiling."""

    OK = "ok"
    WARN = "warn"
    CAP = "cap"


class Spending(NamedTuple):
    """Cost since midnight UTC, and per hour at the present size."""

    today: float
    rate_per_hour: float
    currency: str


class Ceiling(NamedTuple):
    """Consequence of the ceiling; ``max_replicas`` is None if it imposes no limit."""

    state: CeilingState
    max_replicas: int | None
    sentence: str


def usage_of(samples: Iterable[UsageSample], *, max_gap: timedelta) -> list[Usage]:
    """Compute hourly usage from successive samples.

    A sample holds until the next one of its source. Usage is additive: samples can be processed in
    several parts if adjacent parts share one sample.

    Args:
        samples: Samples of any sources, in any order; counters start at each first sample.
        max_gap: Longest time between samples for which usage is known; beyond it, the time is
            unknown and only predictions are counted.
    Returns:
        Usage ordered by source and hour.
    """
    sums: dict[tuple[UsageSource, datetime], list[float]] = {}
    # Convert to UTC first: differences within a time zone ignore changes to summer time.
    in_utc = (sample._replace(at=sample.at.astimezone(UTC)) for sample in samples)
    ordered = sorted(in_utc, key=lambda sample: (_order(sample.source), sample.at))
    for source, run in groupby(ordered, key=lambda sample: sample.source):
        for before, after in pairwise(run):
            for hour, amounts in _between(before, after, max_gap):
                row = sums.setdefault((source, hour), [0.0] * len(amounts))
                row[:] = [a + b for a, b in zip(row, amounts, strict=True)]
    return [
        Usage(hour, source, replica_s, cpu_s, gpu_s, round(predictions), unknown_s)
        for (source, hour), (replica_s, cpu_s, gpu_s, predictions, unknown_s) in sums.items()
    ]


def summarise(
    usage: Iterable[Usage],
    prices: PriceTable,
    teams: Mapping[str, str],
    *,
    by: Sequence[Column] = ALL_COLUMNS,
) -> list[Bill]:
    """Sum usage and compute its cost, most expensive first.

    Consumers of pipelines count for their model, without a version.

    Args:
        usage: Usage of any hours.
        prices: Prices for all usage.
        teams: Team that pays, by model; ``NO_TEAM`` for other models.
        by: Columns to group by.
    """
    groups: dict[tuple[str | None, ...], list[Usage]] = defaultdict(list)
    for row in usage:
        source = row.source
        team = teams.get(source.model, NO_TEAM)
        values: dict[str, str | None] = {
            "model": source.model,
            "version": source.version,
            "team": team,
        }
        groups[tuple(values[c] if c in by else None for c in ALL_COLUMNS)].append(row)
    groups_in_order = sorted(groups.items(), key=lambda item: [name or "" for name in item[0]])
    bills = [_bill(key, rows, prices) for key, rows in groups_in_order]
    return sorted(
        bills, key=lambda bill: (-bill.money, bill.model or "", bill.version or "", bill.team or "")
    )


def money(usage: Usage, prices: PriceTable) -> float:
    """Return the cost of one row of usage."""
    price = prices.of(usage.source.node_type)
    return (usage.cpu_s * price.cpu_hour + usage.gpu_s * price.gpu_hour) / 3600


def ceiling(
    spending: Spending,
    now: datetime,
    *,
    ceiling_per_day: float | None,
    warn_at: float,
    min_replicas: int,
) -> Ceiling:
    """Compare a model's spending today with its ceiling. Days are in UTC.

    Above the ceiling, replicas are capped at the minimum; serving never stops, so cost still
    grows.

    Args:
        spending: Spending of the model.
        now: Current time, timezone-aware.
        ceiling_per_day: Ceiling in the same currency; None if there is none.
        warn_at: Fraction of the ceiling at which the warning begins.
        min_replicas: Minimum of the version's scaling; at least one replica always stays.
    """
    spent = f"{spending.today:,.2f} {spending.currency} spent today"
    if ceiling_per_day is None:
        return Ceiling(CeilingState.OK, None, f"{spent}; there is no ceiling")
    of = f"{spent} of {ceiling_per_day:,.2f}"
    if spending.today >= ceiling_per_day:
        least = max(1, min_replicas)
        sentence = f"{of}: at most {least} until midnight UTC; raise cost.ceiling_per_day for more"
        return Ceiling(CeilingState.CAP, least, sentence)
    sentence = f"{of}; {_forecast(spending, ceiling_per_day, now)}"
    warns = spending.today >= warn_at * ceiling_per_day
    return Ceiling(CeilingState.WARN if warns else CeilingState.OK, None, sentence)


def _between(
    before: UsageSample, after: UsageSample, max_gap: timedelta
) -> Iterator[tuple[datetime, tuple[float, float, float, int, float]]]:
    """Yield replica, CPU and GPU seconds, predictions and unknown seconds for each hour."""
    watched = after.at - before.at <= max_gap
    grown = after.predictions - before.predictions
    left = grown if grown >= 0 else after.predictions
    start, end = before.at, after.at
    while True:
        hour = start.replace(minute=0, second=0, microsecond=0)
        stop = min(end, hour + HOUR)
        seconds = (stop - start).total_seconds()
        predictions = left if stop == end else round(left * ((stop - start) / (end - start)))
        left -= predictions
        replica_s = before.replicas * seconds if watched else 0.0
        unknown_s = 0.0 if watched else seconds
        cpu_s, gpu_s = replica_s * before.num_cpus, replica_s * before.num_gpus
        yield hour, (replica_s, cpu_s, gpu_s, predictions, unknown_s)
        if stop == end:
            return
        start = stop


def _order(source: UsageSource) -> tuple[str, ...]:
    return tuple(name or "" for name in source)


def _bill(key: tuple[str | None, ...], rows: Sequence[Usage], prices: PriceTable) -> Bill:
    spent = sum(money(row, prices) for row in rows)
    predictions = sum(row.predictions for row in rows)
    model, version, team = key
    return Bill(
        model=model,
        version=version,
        team=team,
        replica_s=sum(row.replica_s for row in rows),
        cpu_s=sum(row.cpu_s for row in rows),
        gpu_s=sum(row.gpu_s for row in rows),
        predictions=predictions,
        unknown_s=sum(row.unknown_s for row in rows),
        money=spent,
        per_million=spent / predictions * MILLION if predictions else None,
    )


def _forecast(spending: Spending, ceiling_per_day: float, now: datetime) -> str:
    now = now.astimezone(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    hours_left = (midnight - now) / HOUR
    rate, left = spending.rate_per_hour, ceiling_per_day - spending.today
    if rate * hours_left < left:
        by_midnight = spending.today + rate * hours_left
        return f"at {rate:,.2f} an hour it will be {by_midnight:,.2f} by midnight UTC"
    at = now + HOUR * (left / rate)
    return f"at {rate:,.2f} an hour the ceiling is reached at {at:%H:%M} UTC"
