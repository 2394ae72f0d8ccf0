"""Computes how many replicas or consumers drain a backlog in time. Pure.

Owns the reading, the memory of earlier ones, and the need that follows from both. The decision is
made in ``ops/scaling/decision.py``.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ops.config.scaling import ScalingSettings
from ops.scaling.rates import BACKLOG_SHARE, MIN_RATE, known, positive, smoothed

# Weight of the remembered rate when a new reading is added. The last readings under a backlog are
# the best: the telemetry of the first also covers the time before it.
MEMORY: Final = 0.5
# Assumed start time of a replica until one was measured.
START_S: Final = 10.0
# A starting replica gets at least this fraction of target_drain_s to drain a backlog: if less time
# is left, finishing later is cheaper than adding ever more replicas.
LEAST_SHARE: Final = 0.25
# More than any cluster has.
ENOUGH: Final = 1e9


class ScalingReading(NamedTuple):
    """Measurements. A number that is None, not finite or negative counts as unknown.

    Attributes:
        age_s: Age of the reading.
        reachable: Whether the broker answered.
        current: Number of running replicas or consumers.
        lag: Records of the pipelines not yet committed.
        arrival_per_s: Records that arrive per second, for all versions together.
        drain_per_s: Records that are committed per second, for all versions together.
        rate_per_replica: Records per second of one replica or consumer that is always busy.
        busy: Fraction of time that the running ones work; None derives it from the drain.
        weight: Fraction of the traffic that this version gets. For a version that must be able
            to take over at once, the fraction that it would get.
        announced: Whether ``weight`` is expected traffic rather than present traffic; being idle
            then means nothing.
        room: How many more than requested the cluster has capacity for; None if it grows by
            itself.
        limit: Upper bound regardless of the settings: partitions, or a cost ceiling.
        noun: What is counted, for the sentence.
    """

    age_s: float | None
    reachable: bool
    current: int
    lag: float | None
    arrival_per_s: float | None
    drain_per_s: float | None = None
    rate_per_replica: float | None = None
    busy: float | None = None
    weight: float | None = 1.0
    announced: bool = False
    room: int | None = None
    limit: int | None = None
    noun: Literal["replica", "consumer"] = "replica"


class Memory(NamedTuple):
    """Information from earlier readings.

    Attributes:
        rate_at_load: Rate per replica while there was a backlog, smoothed.
        kept_up_at_s: When there was last no backlog; if that was never seen, when one was first
            seen.
        raised_at_s: When replicas that do not run yet were requested; None if all run.
        start_s: Time that the last replicas took to start.
    """

    rate_at_load: float | None = None
    kept_up_at_s: float | None = None
    raised_at_s: float | None = None
    start_s: float | None = None

    def awaiting(self, reading: ScalingReading, target: int | None, now_s: float) -> Memory:
        """Return the memory updated with the start time of the replicas requested last."""
        if self.raised_at_s is None or target is None:
            return self
        for_s = max(0.0, now_s - self.raised_at_s)
        if count(reading.current) >= target:
            return self._replace(raised_at_s=None, start_s=for_s)
        return self._replace(start_s=max(for_s, _start_s(self)))

    def with_need(self, need: Need, reading: ScalingReading, now_s: float) -> Memory:
        """Return the memory updated with the rate under a backlog, or the time without one."""
        read_at_s = now_s - (reading.age_s or 0.0)
        if not need.backlog:
            return self._replace(kept_up_at_s=read_at_s)
        kept_up_at_s = read_at_s if self.kept_up_at_s is None else self.kept_up_at_s
        measured, before = positive(reading.rate_per_replica), positive(self.rate_at_load)
        rate = before if measured is None else smoothed(before, measured, MEMORY)
        return self._replace(rate_at_load=rate, kept_up_at_s=kept_up_at_s)


class Need(NamedTuple):
    """Load of one version and the replicas that it needs.

    Attributes:
        lag, arrival, rate: Lag in records; arrivals, and the rate of one replica, per second.
        busy: Fraction of time that the running replicas work.
        carried: Records per second that the running replicas answer.
        backlog: Whether more records are waiting than those in flight.
        replicas: Fractional number of replicas, including the reserve.
    """

    lag: float
    arrival: float
    rate: float
    busy: float
    carried: float
    backlog: bool
    replicas: float

    def __str__(self) -> str:
        lag, arrival, rate = figure(self.lag), figure(self.arrival), figure(self.rate)
        need = figure(self.replicas)
        return f"lag {lag}, {arrival}/s arriving, {rate}/s per replica: {need} needed"


NOTHING: Final = Need(0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0)


def need_of(
    reading: ScalingReading, settings: ScalingSettings, memory: Memory, *, held: int, now_s: float
) -> Need | None:
    """Return the need that follows from a reading.

    Args:
        reading: A reading with known age, lag, arrivals and weight.
        held: Number of replicas that run or were requested.
        now_s: Time on the clock of the memory.
    Returns:
        The need, or None if a rate that it depends on is missing.
    """
    weight = min(1.0, known(reading.weight) or 0.0)
    lag = (known(reading.lag) or 0.0) * weight
    arrival = (known(reading.arrival_per_s) or 0.0) * weight
    demand = lag / settings.target_drain_s + arrival
    if demand == 0:
        return NOTHING
    measured = positive(reading.rate_per_replica)
    best = max(measured or 0.0, positive(memory.rate_at_load) or 0.0)
    if best == 0:
        return None
    current = max(1, count(reading.current))
    backlog = lag > BACKLOG_SHARE * settings.target_drain_s * best * current
    # Under a backlog micro-batches are full, so the measured rate is what a replica can do.
    rate = measured if backlog and measured else best
    busy = known(reading.busy)
    if busy is None:
        busy = (known(reading.drain_per_s) or 0.0) * weight / (rate * current)
    busy = min(1.0, busy)
    planned = max(MIN_RATE, rate * settings.utilisation)
    replicas = demand / planned
    if backlog:
        clock = _clock(reading, memory, settings.target_drain_s, now_s)
        in_time = held + _missing(lag, arrival, planned, _counts(reading, held), clock)
        replicas = max(replicas, in_time)
    return Need(lag, arrival, rate, busy, busy * rate * current, backlog, min(ENOUGH, replicas))


class _Clock(NamedTuple):
    """Seconds from now until a backlog must be drained, and until further replicas run."""

    left_s: float
    awaited_s: float
    start_s: float
    age_s: float


def _clock(reading: ScalingReading, memory: Memory, target_drain_s: float, now_s: float) -> _Clock:
    age_s = reading.age_s or 0.0
    start_s = min(_start_s(memory), target_drain_s)
    began_s = now_s - age_s if memory.kept_up_at_s is None else memory.kept_up_at_s
    left_s = max(began_s + target_drain_s - now_s, start_s + LEAST_SHARE * target_drain_s)
    raised_at_s = now_s if memory.raised_at_s is None else memory.raised_at_s
    return _Clock(left_s, max(0.0, raised_at_s + start_s - now_s), start_s, age_s)


class _Counts(NamedTuple):
    running: int
    starting: int


def _missing(lag: float, arrival: float, rate: float, counts: _Counts, clock: _Clock) -> float:
    """Return how many more replicas than running or starting are needed; below 0 for fewer."""
    work = lag + arrival * (clock.age_s + clock.left_s)
    of_running = counts.running * clock.left_s
    of_starting = counts.starting * (clock.left_s - clock.awaited_s)
    missing = work - rate * (of_running + of_starting)
    return missing / (rate * (clock.left_s - clock.start_s))


def _counts(reading: ScalingReading, held: int) -> _Counts:
    running = min(count(reading.current), held)
    return _Counts(running, held - running)


def _start_s(memory: Memory) -> float:
    start_s = known(memory.start_s)
    return START_S if start_s is None else start_s


def count(value: int | None) -> int:
    """Return a number of replicas; 0 if it is unknown."""
    return int(known(value) or 0)


def figure(value: float) -> str:
    """Format a number for people, with as many digits as are useful."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
