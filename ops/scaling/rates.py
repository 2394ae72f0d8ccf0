"""Rates of arrival, drain and replicas from offsets and telemetry. Pure.

Owns the step from measurements to rates; ``ops/scaling/decision.py`` decides by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

# A lag is a backlog if draining it takes more than this fraction of target_drain_s: a smaller one
# is merely in flight.
BACKLOG_SHARE: Final = 0.05
# If replicas are less busy than this despite a backlog, something else is slow.
BUSY_SHARE: Final = 0.5
MIN_RATE: Final = 1e-6


class OffsetSample(NamedTuple):
    """Offsets of all partitions of a pipeline, added up.

    Attributes:
        at_s: When the offsets were read, on a monotonic clock.
        end: Sum of the end offsets, in records.
        committed: Sum of the committed offsets, in records.
    """

    at_s: float
    end: float
    committed: float


class Rates(NamedTuple):
    """Rates derived from successive samples.

    Attributes:
        sample: The last sample.
        arrival_per_s: Records that arrive per second, smoothed; None before two samples.
        drain_per_s: Records that are committed per second, smoothed; None before two samples.
    """

    sample: OffsetSample
    arrival_per_s: float | None = None
    drain_per_s: float | None = None

    @property
    def lag(self) -> float:
        """Number of records not yet committed."""
        return max(0.0, self.sample.end - self.sample.committed)


class ReplicaLoad(NamedTuple):
    """Throughput and utilisation of replicas in a window of telemetry.

    Attributes:
        rate_per_replica: Records that one replica answers per busy second.
        busy: Fraction of time in which the replicas worked, 0..1.
    """

    rate_per_replica: float | None
    busy: float | None


def follow(rates: Rates | None, sample: OffsetSample, *, half_life_s: float) -> Rates | None:
    """Update the rates with one more sample.

    Offsets that went back (a recreated topic, or reset offsets) restart the rates. A sample that
    is not later than the last, or has an invalid number, changes nothing.

    Args:
        rates: The previous rates; None at the beginning.
        sample: The newest sample.
        half_life_s: Time after which an old rate has half its weight; above 0.
    Returns:
        The new rates, or None if no sample could be used so far.
    """
    at_s, end, committed = known(sample.at_s), known(sample.end), known(sample.committed)
    if at_s is None or end is None or committed is None:
        return rates
    sample = OffsetSample(at_s, end, committed)
    if rates is None:
        return Rates(sample)
    elapsed_s = at_s - rates.sample.at_s
    if elapsed_s <= 0:
        return rates
    arrived = end - rates.sample.end
    drained = committed - rates.sample.committed
    if arrived < 0 or drained < 0:
        return Rates(sample)
    keep: float = 0.5 ** (elapsed_s / half_life_s)
    return Rates(
        sample,
        known(smoothed(rates.arrival_per_s, arrived / elapsed_s, keep)),
        known(smoothed(rates.drain_per_s, drained / elapsed_s, keep)),
    )


def measure(answers: float, *, busy_s: float, replica_s: float) -> ReplicaLoad:
    """Return the rate and utilisation of replicas in a window of telemetry.

    Calls overlap within a replica, so their total duration may exceed the time that replicas ran;
    the excess is ignored.

    Args:
        answers: Number of answers of the version in the window.
        busy_s: Total duration of all calls, in seconds.
        replica_s: Total time that replicas ran, in seconds; those that started later count from
            their start.
    """
    answered, worked_s, ran_s = known(answers), known(busy_s), positive(replica_s)
    if answered is None or worked_s is None or ran_s is None:
        return ReplicaLoad(None, None)
    worked_s = min(worked_s, ran_s)
    return ReplicaLoad(positive(answered / worked_s if worked_s else None), worked_s / ran_s)


def replica_seconds(counts: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> float:
    """Return the total seconds that replicas ran between two moments.

    Args:
        counts: Number that ran from each moment on, in order; the first also applies before.
    """
    if not counts:
        return 0.0
    moments = [begin_s, *(min(max(at_s, begin_s), end_s) for at_s, _ in counts[1:]), end_s]
    spans = (after - before for before, after in pairwise(moments))
    return sum(span * count for span, (_, count) in zip(spans, counts, strict=True))


def rate_per_consumer(
    rates: Rates, *, consumers: int, busy: float | None, target_drain_s: float
) -> float | None:
    """Return the records per second that one consumer commits if consumers are the bottleneck.

    Args:
        rates: Rates of the pipeline.
        consumers: Number of running consumers.
        busy: Fraction of time that the model's replicas work.
        target_drain_s: Value of the setting.
    Returns:
        None if there is no backlog, or if replicas are the bottleneck: a consumer that waits for
        them does not show its own rate.
    """
    drain, share = positive(rates.drain_per_s), known(busy)
    if drain is None or share is None or share >= BUSY_SHARE:
        return None
    return drain / max(1, consumers) if is_behind(rates.lag, drain, target_drain_s) else None


def is_behind(lag: float, drain_per_s: float, target_drain_s: float) -> bool:
    """Return whether more records wait than are merely in flight."""
    return lag > BACKLOG_SHARE * target_drain_s * drain_per_s


def smoothed(before: float | None, now: float, keep: float) -> float:
    """Return the new value averaged with the old one, which has the weight ``keep``."""
    return now if before is None else keep * before + (1 - keep) * now


def positive(value: float | None) -> float | None:
    """Return a rate that is safe to divide by; None if it is below ``MIN_RATE``."""
    number = known(value)
    return number if number is not None and number >= MIN_RATE else None


def known(value: float | None) -> float | None:
    """Return the value if it is finite and not negative, else None."""
    try:
        number = float("nan" if value is None else value)
    except OverflowError:  # an integer too large for a double
        return None
    return number if math.isfinite(number) and number >= 0 else None
