"""How many replicas or consumers it takes to have a backlog gone in time. Pure.

Owns the reading, what is remembered of earlier ones, and the need that follows from both. What is
made of it, ``ops/scaling/decision.py`` decides.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ops.config.scaling import ScalingSettings
from ops.scaling.rates import BACKLOG_SHARE, MIN_RATE, known, positive, smoothed

# Share that stays of the remembered rate when one more reading joins it. The last ones under a
# backlog are the best: telemetry of the first is of the time before, too.
MEMORY: Final = 0.5
# How long a replica takes to start, until the first one has shown it.
START_S: Final = 10.0
# What starts now is given at least this share of target_drain_s to drain a backlog: where less is
# left, later is cheaper than ever more of them.
LEAST_SHARE: Final = 0.25
# More than any cluster has.
ENOUGH: Final = 1e9


class ScalingReading(NamedTuple):
    """How things stood. A number that is None, not finite or negative counts as unknown.

    Attributes:
        age_s: How long ago it was read.
        reachable: The broker answered.
        current: Replicas, or consumers, that run.
        lag: Records of the pipelines not yet committed.
        arrival_per_s: Records that arrive, of all versions together.
        drain_per_s: Records that are committed, of all versions together.
        rate_per_replica: Records per second of one that works without pause.
        busy: Share of their time that those who run work; None has it follow from the drain.
        weight: Share of the traffic that this version has. A version that must be able to take
            over at once is given the share that it would get.
        announced: That is not what comes to it now, but what may come: that it has little to do
            says nothing.
        room: How many more than were asked for the cluster has the CPUs for; None where it grows
            by itself.
        limit: Never more than this, whatever the settings say: partitions, or a cost ceiling.
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
    """What earlier readings told.

    Attributes:
        rate_at_load: Rate per replica while there was a backlog, smoothed.
        kept_up_at_s: When there was no backlog last; where nobody saw that, when one was seen
            first.
        raised_at_s: Since when those are awaited that do not run yet; None where all do.
        start_s: How long the last ones took to start.
    """

    rate_at_load: float | None = None
    kept_up_at_s: float | None = None
    raised_at_s: float | None = None
    start_s: float | None = None

    def awaiting(self, reading: ScalingReading, target: int | None, now_s: float) -> Memory:
        """What is known by now of how long those take that were asked for last."""
        if self.raised_at_s is None or target is None:
            return self
        for_s = max(0.0, now_s - self.raised_at_s)
        if count(reading.current) >= target:
            return self._replace(raised_at_s=None, start_s=for_s)
        return self._replace(start_s=max(for_s, _start_s(self)))

    def with_need(self, need: Need, reading: ScalingReading, now_s: float) -> Memory:
        """What a reading tells of the rate under a backlog, or of when one began."""
        read_at_s = now_s - (reading.age_s or 0.0)
        if not need.backlog:
            return self._replace(kept_up_at_s=read_at_s)
        kept_up_at_s = read_at_s if self.kept_up_at_s is None else self.kept_up_at_s
        measured, before = positive(reading.rate_per_replica), positive(self.rate_at_load)
        rate = before if measured is None else smoothed(before, measured, MEMORY)
        return self._replace(rate_at_load=rate, kept_up_at_s=kept_up_at_s)


class Need(NamedTuple):
    """The share of one version.

    Attributes:
        lag, arrival, rate: In records, and records per second.
        busy: Share of their time that those who run work.
        carried: Records per second that they answer.
        backlog: More is behind than what is in flight.
        replicas: A fraction, the reserve included.
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
        return f"{lag} records behind and {arrival}/s more, at {rate}/s each, need {need}"


NOTHING: Final = Need(0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0)


def need_of(
    reading: ScalingReading, settings: ScalingSettings, memory: Memory, *, held: int, now_s: float
) -> Need | None:
    """What a reading asks for.

    Args:
        reading: Whose age, lag, arrivals and weight are known.
        held: That run or were asked for.
        now_s: On the clock of the memory.
    Returns:
        None where a rate is missing that the need depends on.
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
    # Under a backlog micro-batches are full, and what is measured is what a replica can do.
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
    """Seconds from now on: until a backlog is to be gone, and until others run."""

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
    """How many more than those that run or start already; below 0 where fewer would do."""
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
    """Of replicas; 0 where it is unknown."""
    return int(known(value) or 0)


def figure(value: float) -> str:
    """For people: as many digits as they can use."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
