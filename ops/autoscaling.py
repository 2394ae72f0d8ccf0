"""How many replicas of a version, or consumers of a pipeline, the backlog asks for. Pure.

Owns the way from a reading to a target and its reason. Reads no clock and asks nobody: who calls
it brings the reading, with the rates of ``ops/load.py``, and applies the target.
"""

from __future__ import annotations

import math
from typing import Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ops.load import BACKLOG_SHARE, BUSY_SHARE, MIN_RATE, known, positive, smoothed
from serve.settings import Settings

# Up to this many times what was answered of late, arrivals without a backlog prove that what
# runs is enough: small micro-batches under light load make a replica look slower than it is.
PROVEN: Final = 1.5
# Share that stays of the remembered rate when one more reading joins it.
MEMORY: Final = 0.8


class ScalingSettings(Settings):
    """How far and how fast replicas or consumers follow the backlog.

    Attributes:
        min_replicas: Never fewer; what runs when nothing arrives.
        max_replicas: Never more; what one version may cost at most.
        target_drain_s: A backlog is to be gone after this long. Shorter takes more replicas
            for every peak.
        utilisation: Share of its measured rate that a replica is planned with; the rest is
            reserve.
        dead_band: Share by which the need must leave the present size before that changes.
        up_delay_s: A wish for more must stand this long.
        down_delay_s: A wish for fewer must stand this long, with no backlog meanwhile.
        max_step_up: At most this many times the present size in one step; one more is always
            possible.
        stale_after_s: Readings older than this are not believed.
        smoothing_s: Half-life of what the rates remember.
    """

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1, le=10_000)
    target_drain_s: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    utilisation: float = Field(default=0.8, gt=0, le=1)
    dead_band: float = Field(default=0.1, ge=0, lt=1)
    up_delay_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    down_delay_s: float = Field(default=120.0, ge=0, allow_inf_nan=False)
    max_step_up: float = Field(default=4.0, gt=1, allow_inf_nan=False)
    stale_after_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    smoothing_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        if (1 + self.dead_band) * self.utilisation > 1:
            raise ValueError(
                f"a dead_band of {self.dead_band:g} uses up the reserve that a utilisation of "
                f"{self.utilisation:g} leaves; (1 + dead_band) * utilisation must not exceed 1"
            )
        return self


class Reading(NamedTuple):
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
        room: How many more the cluster has the CPUs for; None where it grows by itself.
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
    room: int | None = None
    limit: int | None = None
    noun: Literal["replica", "consumer"] = "replica"


class State(NamedTuple):
    """What a decision leaves to the next; the first one is given ``State()``.

    Attributes:
        target: The last one.
        rate_at_load: Rate per replica while there was a backlog, smoothed.
        rising_since_s: Since when more are wished for.
        falling_since_s: Since when fewer are wished for.
        highest_wish: The most that was wished for since then.
    """

    target: int | None = None
    rate_at_load: float | None = None
    rising_since_s: float | None = None
    falling_since_s: float | None = None
    highest_wish: int = 0


class Decision(NamedTuple):
    """A target, the sentence that gives its reason, and what the next decision needs."""

    target: int
    reason: str
    state: State


class _Need(NamedTuple):
    """The share of one version. ``replicas`` is a fraction, the reserve included."""

    lag: float
    arrival: float
    rate: float
    busy: float
    carried: float
    backlog: bool
    replicas: float

    def __str__(self) -> str:
        lag, arrival, rate = _figure(self.lag), _figure(self.arrival), _figure(self.rate)
        need = _figure(self.replicas)
        return f"{lag} records behind and {arrival}/s more, at {rate}/s each, need {need}"


class _Now(NamedTuple):
    """Everything that one decision goes by; ``held`` is the present target within the bounds."""

    reading: Reading
    settings: ScalingSettings
    state: State
    now_s: float
    held: int
    high: int

    def stays(self, reason: str) -> Decision:
        """Hold, with no wish: whatever comes next has to stand for its whole delay."""
        sentence = f"stays at {_counted(self.held, self.reading.noun)}: {reason}"
        return Decision(self.held, sentence, State(self.held, self.state.rate_at_load))

    def becomes(self, target: int, reason: str) -> Decision:
        """Change; the next change has to stand for its whole delay."""
        sentence = f"{_counted(target, self.reading.noun)} instead of {self.held}: {reason}"
        return Decision(target, sentence, State(target, self.state.rate_at_load))


def decide(reading: Reading, settings: ScalingSettings, state: State, now_s: float) -> Decision:
    """How many are to run, and why. Never raises.

    The need is ``(lag / target_drain_s + arrival) / (rate * utilisation)``. As long as the rates
    are at most ``1 / ((1 + dead_band) * utilisation)`` of the truth, 1.14 times with the
    defaults, a backlog is gone at the latest ``target_drain_s`` after the last raise has all its
    replicas running; unless the bounds or the cluster's room allowed fewer than were needed.

    More: only with a backlog that keeps busy what runs, or when more is announced (``weight``)
    than what runs has carried. Fewer: only without a backlog, at most half at a time, and never
    below the highest wish of the delay. The last target holds when a reading is stale, the
    broker was away or a rate is not known; bounds always apply, and at once.

    Args:
        reading: How things stood.
        settings: Bounds and pace.
        state: Of the last decision.
        now_s: On any clock that goes forward.
    """
    low, high = _bounds(reading, settings)
    present = _count(reading.current) if state.target is None else state.target
    held = min(max(present, low), high)
    now = _Now(reading, settings, state, now_s, held, high)
    unusable = _unusable(now)
    if unusable:
        return now.stays(unusable)
    need = _need(reading, settings, state.rate_at_load)
    if need is None:
        return now.stays("how much one of them does in a second is not known yet")
    now = now._replace(state=state._replace(rate_at_load=_remembered(need, now)))
    band = 1 + settings.dead_band
    if _whole(need.replicas / band, high) > held:
        return _more(need, now)
    fewer = max(low, _whole(need.replicas * band, high))
    if fewer < held:
        return _fewer(fewer, need, now)
    return now.stays(f"{need}{_bound(need, now)}")


def _more(need: _Need, now: _Now) -> Decision:
    if need.backlog and need.busy < BUSY_SHARE:
        behind = f"{_figure(need.lag)} records behind"
        return now.stays(f"{behind} but busy {need.busy:.0%} of the time: something else is slow")
    if not need.backlog and need.arrival <= PROVEN * need.carried:
        return now.stays(f"{_figure(need.arrival)} records/s are carried without a backlog")
    wish = _whole(need.replicas, now.high)
    step = int(max(now.held + 1, min(now.held * now.settings.max_step_up, now.high)))
    fits = _fits(now)
    target = min(wish, step, fits)
    if target <= now.held:
        return now.stays(f"{need}, but the cluster has room for no more")
    since_s = _since(now.state.rising_since_s, now.now_s)
    if now.now_s - since_s < now.settings.up_delay_s:
        held = now.stays(f"{need}, since {now.now_s - since_s:.0f} s")
        return held._replace(state=held.state._replace(rising_since_s=since_s))
    if target == fits < wish:
        return now.becomes(target, f"{need}, and the cluster has room for no more")
    return now.becomes(target, f"{need}{', in steps' if target < wish else _bound(need, now)}")


def _fewer(wish: int, need: _Need, now: _Now) -> Decision:
    if need.backlog:
        return now.stays(f"{_figure(need.lag)} records behind are drained first")
    since_s = _since(now.state.falling_since_s, now.now_s)
    for_s = now.now_s - since_s
    highest = wish if for_s == 0 else max(wish, now.state.highest_wish)
    if for_s < now.settings.down_delay_s:
        held = now.stays(f"{need}, since {for_s:.0f} s")
        waiting = held.state._replace(falling_since_s=since_s, highest_wish=highest)
        return held._replace(state=waiting)
    target = min(now.held, max(highest, math.ceil(now.held / 2)))
    return now.becomes(target, f"{need}, and for {for_s:.0f} s never more than {highest}")


def _need(reading: Reading, settings: ScalingSettings, rate_at_load: float | None) -> _Need | None:
    """None where a rate is missing that the need depends on."""
    weight = min(1.0, known(reading.weight) or 0.0)
    lag = (known(reading.lag) or 0.0) * weight
    arrival = (known(reading.arrival_per_s) or 0.0) * weight
    demand = lag / settings.target_drain_s + arrival
    if demand == 0:
        return _Need(0.0, 0.0, 0.0, 0.0, 0.0, False, 0.0)
    measured = positive(reading.rate_per_replica)
    best = max(measured or 0.0, positive(rate_at_load) or 0.0)
    if best == 0:
        return None
    current = max(1, _count(reading.current))
    backlog = lag > BACKLOG_SHARE * settings.target_drain_s * best * current
    # Under a backlog micro-batches are full, and what is measured is what a replica can do.
    rate = measured if backlog and measured else best
    busy = known(reading.busy)
    if busy is None:
        busy = (known(reading.drain_per_s) or 0.0) * weight / (rate * current)
    busy = min(1.0, busy)
    replicas = demand / max(MIN_RATE, rate * settings.utilisation)
    return _Need(lag, arrival, rate, busy, busy * rate * current, backlog, replicas)


def _remembered(need: _Need, now: _Now) -> float | None:
    before = positive(now.state.rate_at_load)
    measured = positive(now.reading.rate_per_replica)
    if not need.backlog or measured is None:
        return before
    return smoothed(before, measured, MEMORY)


def _unusable(now: _Now) -> str | None:
    reading, allowed_s = now.reading, now.settings.stale_after_s
    age_s = known(reading.age_s)
    if not reading.reachable:
        return "the broker cannot be reached"
    if age_s is None or known(abs(now.now_s)) is None:
        return "how old the reading is, is not known"
    if age_s > allowed_s:
        return f"the reading is {age_s:.0f} s old, and {allowed_s:g} s are allowed"
    if known(reading.weight) is None:
        return "the share of the traffic is not known"
    if known(reading.lag) is None or known(reading.arrival_per_s) is None:
        return "the lag or the rate of arrival is not known"
    return None


def _bounds(reading: Reading, settings: ScalingSettings) -> tuple[int, int]:
    high = settings.max_replicas
    if known(reading.limit) is not None:
        high = min(high, max(1, _count(reading.limit)))
    return min(settings.min_replicas, high), high


def _fits(now: _Now) -> int:
    if known(now.reading.room) is None:
        return now.high
    return max(now.held, _count(now.reading.room) + _count(now.reading.current))


def _bound(need: _Need, now: _Now) -> str:
    return f", and {now.high} is the bound" if need.replicas > now.high else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _since(since_s: float | None, now_s: float) -> float:
    """A clock that went back starts the delay anew."""
    return since_s if since_s is not None and since_s <= now_s else now_s


def _whole(replicas: float, high: int) -> int:
    return math.ceil(min(replicas, high))


def _count(value: int | None) -> int:
    return int(known(value) or 0)
