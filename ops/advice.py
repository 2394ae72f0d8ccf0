"""What would be cheaper or faster, from what versions were seen to do. Pure.

Owns the rules and their sentences; changes nothing by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from ops.cost import PriceTable

DAY_H: Final = 24.0
# bf16 over f32, engine alone, as bench/results has it for a processor that computes in bf16.
BF16_SPEEDUP: Final = 1.7
# What lowers a size or a bound must have seen a whole day, what raises one an hour.
LOWER_AFTER_H: Final = 24.0
RAISE_AFTER_H: Final = 1.0
LAGGING_SHARE: Final = 0.1
LITTLE_BUSY: Final = 0.4
PLANNED_BUSY: Final = 0.8
CPU_STEP: Final = 0.25


class Measurement(NamedTuple):
    """One version, watched for some time.

    Attributes:
        observed_h: For how many hours.
        precision: That its engine computes in.
        native_bf16: Its processor computes in bf16; False on a GPU.
        replicas: Mean count.
        highest: Most replicas that ran.
        busy_at_min: Share of their time that replicas worked while the minimum ran; None where
            that never was.
        lagging_share: Share of the time in which the maximum ran and there was a backlog.
    """

    model: str
    version: str
    observed_h: float
    precision: str
    native_bf16: bool
    num_cpus: float
    num_gpus: float
    replicas: float
    highest: int
    min_replicas: int
    max_replicas: int
    busy_at_min: float | None
    lagging_share: float
    node_type: str | None = None

    @property
    def name(self) -> str:
        """As people write it."""
        return f"{self.model}@{self.version}"


class Advice(NamedTuple):
    """A change that somebody should consider.

    Attributes:
        setting: That would change.
        saving_per_day: Money; negative where it costs more, None where it depends on the load.
    """

    model: str
    version: str
    setting: str
    sentence: str
    saving_per_day: float | None


def advise(measurements: Iterable[Measurement], prices: PriceTable) -> list[Advice]:
    """What would be cheaper or faster; largest saving first."""
    found: list[Advice] = []
    for measured in measurements:
        for one in (_precision, _size, _upper_bound):
            advice = one(measured, prices)
            if advice is not None:
                found.append(advice)
    return sorted(found, key=lambda advice: -(advice.saving_per_day or 0.0))


def _per_day(replicas: float, num_cpus: float, measured: Measurement, prices: PriceTable) -> float:
    price = prices.of(measured.node_type)
    hour = num_cpus * price.cpu_hour + measured.num_gpus * price.gpu_hour
    return replicas * hour * DAY_H


def _precision(measured: Measurement, prices: PriceTable) -> Advice | None:
    if not (measured.native_bf16 and measured.precision == "f32"):
        return None
    left = max(measured.min_replicas, measured.replicas / BF16_SPEEDUP)
    saving = _per_day(max(0.0, measured.replicas - left), measured.num_cpus, measured, prices)
    gain = "the minimum runs anyway, and only latency gains"
    if saving > 0:
        gain = (
            f"{left:.1f} instead of {measured.replicas:.1f} replicas on average, "
            f"{saving:,.2f} {prices.currency} a day less"
        )
    sentence = (
        f"{measured.name} computes in f32 on a processor with bf16, which is about "
        f"{BF16_SPEEDUP:g} times as fast: {gain}; scores then keep 2 decimals"
    )
    return Advice(measured.model, measured.version, "engine.precision", sentence, saving)


def _size(measured: Measurement, prices: PriceTable) -> Advice | None:
    """Fewer replicas where there are several, smaller ones where one is left."""
    busy, least = measured.busy_at_min, measured.min_replicas
    if busy is None or busy >= LITTLE_BUSY or measured.observed_h < LOWER_AFTER_H:
        return None
    if least > 1:
        fewer = max(1, math.ceil(least * busy / PLANNED_BUSY))
        saving = _per_day(least - fewer, measured.num_cpus, measured, prices)
        return _smaller("min_replicas", fewer, least, saving, measured, prices)
    cpus = measured.num_cpus
    smaller = max(CPU_STEP, math.ceil(cpus * busy / PLANNED_BUSY / CPU_STEP) * CPU_STEP)
    if smaller >= cpus or measured.num_gpus > 0:
        return None
    saving = _per_day(1, cpus - smaller, measured, prices)
    return _smaller("num_cpus", smaller, cpus, saving, measured, prices)


def _smaller(
    setting: str,
    to: float,
    present: float,
    saving: float,
    measured: Measurement,
    prices: PriceTable,
) -> Advice:
    sentence = (
        f"{measured.name} is busy {measured.busy_at_min:.0%} of the time at its minimum of "
        f"{measured.min_replicas}: {setting} {to:g} instead of {present:g} is enough, "
        f"{saving:,.2f} {prices.currency} a day less"
    )
    return Advice(measured.model, measured.version, setting, sentence, saving)


def _upper_bound(measured: Measurement, prices: PriceTable) -> Advice | None:
    most = measured.max_replicas
    one = _per_day(1, measured.num_cpus, measured, prices)
    if measured.lagging_share >= LAGGING_SHARE and measured.observed_h >= RAISE_AFTER_H:
        sentence = (
            f"{measured.name} ran all its {most} replicas and lagged in "
            f"{measured.lagging_share:.0%} of {measured.observed_h:.0f} h: raise max_replicas; "
            f"each one more costs up to {one:,.2f} {prices.currency} a day"
        )
        return Advice(measured.model, measured.version, "max_replicas", sentence, -one)
    unused = measured.highest <= measured.min_replicas < most
    if unused and measured.observed_h >= LOWER_AFTER_H:
        sentence = (
            f"{measured.name} never ran more than its minimum of {measured.min_replicas} in "
            f"{measured.observed_h:.0f} h: a max_replicas below {most} would bound what a flood "
            f"can cost, now up to {one * most:,.2f} {prices.currency} a day"
        )
        return Advice(measured.model, measured.version, "max_replicas", sentence, None)
    return None
