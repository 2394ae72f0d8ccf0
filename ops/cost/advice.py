"""Advice on what would be cheaper or faster, from the measured load of versions. Pure.

Owns the rules and their sentences; changes nothing by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from ops.config.prices import PriceTable

DAY_H: Final = 24.0
HOUR_S: Final = 3600.0
# Speed of bf16 over f32, engine alone, from bench/results for a processor with bf16 support.
BF16_SPEEDUP: Final = 1.7
# Advice to lower a size or bound needs a whole day of measurements; to raise one, an hour.
LOWER_AFTER_H: Final = 24.0
RAISE_AFTER_H: Final = 1.0
LAGGING_SHARE: Final = 0.1
LITTLE_BUSY: Final = 0.4
PLANNED_BUSY: Final = 0.8
CPU_STEP: Final = 0.25


@dataclass(frozen=True, slots=True)
class Size:
    """Resources configured for a version.

    Attributes:
        precision: Precision that its engine computes in.
        could_bf16: Whether it is known to run in OpenVINO on a processor with bf16 support.
        num_cpus, num_gpus: Resources of each replica.
        min_replicas, max_replicas: Bounds on the number of replicas.
    """

    precision: str
    could_bf16: bool
    num_cpus: float
    num_gpus: float
    min_replicas: int
    max_replicas: int


class Workload(NamedTuple):
    """Load of a version's replicas within an hour, for one size.

    Attributes:
        hour: Start of the hour, in UTC.
        label: Label of the version.
        until: Time of the last observation.
        watched_s: Observed time.
        replica_s: Total running time of all replicas.
        at_min_s: Time in which no more than the minimum ran.
        busy_at_min_s: Total busy time of replicas during ``at_min_s``.
        lagging_s: Time in which the maximum ran and was busy, and there was a backlog.
    """

    hour: datetime
    model: str
    label: str
    size: Size
    until: datetime
    watched_s: float
    replica_s: float
    at_min_s: float
    busy_at_min_s: float
    lagging_s: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Observations of one version with its present size.

    Attributes:
        version: Label of the version.
        observed_h: Observed hours.
        replicas: Mean number of replicas.
        busy_at_min: Fraction of time that replicas worked while the minimum ran; None if that was
            too rare.
        at_min_share: Fraction of time in which no more than the minimum ran.
        lagging_share: Fraction of time in which the maximum ran and there was a backlog.
        node_type: Node type whose prices apply.
    """

    model: str
    version: str
    size: Size
    observed_h: float
    replicas: float
    busy_at_min: float | None
    at_min_share: float
    lagging_share: float
    node_type: str | None = None

    @property
    def name(self) -> str:
        """Name of the version in the form ``model@version``."""
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class Advice:
    """A suggested change.

    Attributes:
        setting: Setting to change.
        saving_per_day: Money saved; negative if it costs more, None if it depends on the load or
            prices are unknown.
    """

    model: str
    version: str
    setting: str
    sentence: str
    saving_per_day: float | None


def measured(
    workloads: Iterable[Workload], node_types: Mapping[tuple[str, str], str | None]
) -> list[Measurement]:
    """Return the measurement of each version since it got its present size.

    Args:
        workloads: Workloads ordered by time, newest last. Those of an earlier size are ignored,
            as they say nothing about the present one.
        node_types: Node type on which most replicas ran, by model and label.
    """
    found: dict[tuple[str, str], list[Workload]] = {}
    for row in workloads:
        rows = found.setdefault((row.model, row.label), [])
        if rows and rows[-1].size != row.size:
            rows.clear()
        rows.append(row)
    return [_measurement(key, rows, node_types.get(key)) for key, rows in sorted(found.items())]


def _measurement(
    key: tuple[str, str], rows: Sequence[Workload], node_type: str | None
) -> Measurement:
    model, label = key
    size, watched_s = rows[-1].size, sum(row.watched_s for row in rows)
    at_min_s = sum(row.at_min_s for row in rows)
    worked_s = sum(row.busy_at_min_s for row in rows)
    enough = at_min_s >= RAISE_AFTER_H * HOUR_S
    return Measurement(
        model,
        label,
        size,
        observed_h=watched_s / HOUR_S,
        replicas=sum(row.replica_s for row in rows) / watched_s,
        busy_at_min=worked_s / (at_min_s * size.min_replicas) if enough else None,
        at_min_share=at_min_s / watched_s,
        lagging_share=sum(row.lagging_s for row in rows) / watched_s,
        node_type=node_type,
    )


def advise(measurements: Iterable[Measurement], prices: PriceTable | None) -> list[Advice]:
    """Return advice on what would be cheaper or faster, largest saving first.

    Args:
        prices: None if prices are unknown; the advice then contains no money.
    """
    found: list[Advice] = []
    for one in measurements:
        for rule in (_precision, _size, _upper_bound):
            advice = rule(one, prices)
            if advice is not None:
                found.append(advice)
    return sorted(found, key=lambda advice: -(advice.saving_per_day or 0.0))


def _per_day(
    replicas: float, num_cpus: float, num_gpus: float, one: Measurement, prices: PriceTable | None
) -> float | None:
    if prices is None:
        return None
    price = prices.of(one.node_type)
    return replicas * (num_cpus * price.cpu_hour + num_gpus * price.gpu_hour) * DAY_H


def _replicas_per_day(replicas: float, one: Measurement, prices: PriceTable | None) -> float | None:
    return _per_day(replicas, one.size.num_cpus, one.size.num_gpus, one, prices)


def _money(per_day: float | None, prices: PriceTable | None, phrase: str) -> str:
    """Return a phrase with an amount of money; empty without prices."""
    if per_day is None or prices is None:
        return ""
    return phrase.format(f"{per_day:,.2f} {prices.currency} a day")


def _precision(one: Measurement, prices: PriceTable | None) -> Advice | None:
    if not (one.size.could_bf16 and one.size.precision == "f32"):
        return None
    if one.observed_h < RAISE_AFTER_H:
        return None
    left = max(one.size.min_replicas, one.replicas / BF16_SPEEDUP)
    fewer = max(0.0, one.replicas - left)
    saving = _replicas_per_day(fewer, one, prices)
    gain = "the minimum runs anyway, so only latency improves"
    if fewer > 0:
        gain = f"{left:.1f} instead of {one.replicas:.1f} replicas on average"
        gain += _money(saving, prices, ", {} less")
    sentence = (
        f"{one.name} computes in f32 on a processor with bf16, which is about "
        f"{BF16_SPEEDUP:g} times as fast: {gain}; scores are then accurate to 2 decimals"
    )
    return Advice(one.model, one.version, "engine.precision", sentence, saving)


def _size(one: Measurement, prices: PriceTable | None) -> Advice | None:
    """Advise fewer replicas if there are several, or a smaller one if there is one."""
    busy, least = one.busy_at_min, one.size.min_replicas
    if busy is None or busy >= LITTLE_BUSY or one.observed_h < LOWER_AFTER_H:
        return None
    start = f"{one.name} is busy {busy:.0%} of the time at its minimum of {least}: "
    if least > 1:
        fewer = max(1, math.ceil(least * busy / PLANNED_BUSY))
        saving = _replicas_per_day(least - fewer, one, prices)
        less = _money(saving, prices, ", {} less")
        sentence = f"{start}a minimum of {fewer} (replicas, or min_replicas) is enough{less}"
        return Advice(one.model, one.version, "replicas", sentence, saving)
    cpus = one.size.num_cpus
    smaller = max(CPU_STEP, math.ceil(cpus * busy / PLANNED_BUSY / CPU_STEP) * CPU_STEP)
    if smaller >= cpus or one.size.num_gpus > 0:
        return None
    saving = _per_day(1, cpus - smaller, 0.0, one, prices)
    less = _money(saving, prices, ", {} less")
    sentence = f"{start}num_cpus {smaller:g} instead of {cpus:g} is enough{less}"
    return Advice(one.model, one.version, "num_cpus", sentence, saving)


def _upper_bound(one: Measurement, prices: PriceTable | None) -> Advice | None:
    least, most = one.size.min_replicas, one.size.max_replicas
    each = _replicas_per_day(1, one, prices)
    if one.lagging_share >= LAGGING_SHARE and one.observed_h >= RAISE_AFTER_H:
        sentence = (
            f"{one.name} ran all its {most} replicas and lagged in {one.lagging_share:.0%} of "
            f"{one.observed_h:.0f} h: raise max_replicas"
        ) + _money(each, prices, "; each additional one costs up to {}")
        costs = None if each is None else -each
        return Advice(one.model, one.version, "max_replicas", sentence, costs)
    if one.at_min_share == 1 and least < most and one.observed_h >= LOWER_AFTER_H:
        flood = _replicas_per_day(most, one, prices)
        sentence = (
            f"{one.name} never ran more than its minimum of {least} in {one.observed_h:.0f} h: "
            f"a max_replicas below {most} would limit the cost of a burst"
        ) + _money(flood, prices, ", now up to {}")
        return Advice(one.model, one.version, "max_replicas", sentence, None)
    return None
