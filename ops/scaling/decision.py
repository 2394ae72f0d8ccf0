"""Decides how many replicas or consumers the backlog requires. Pure.

Owns the step from a reading and ``need`` to a target and its reason. Reads no clock and does no
I/O: the caller supplies the reading and applies the target.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from ops.config.scaling import ScalingSettings
from ops.scaling.need import Memory, Need, ScalingReading, count, figure, need_of
from ops.scaling.rates import BUSY_SHARE, known

# Without a backlog, arrivals up to this multiple of the recent answers prove that the present size
# is enough: small micro-batches under light load make a replica look slower than it is.
PROVEN: Final = 1.5
# A backlog that needs this multiple of the present size waits for no second reading.
URGENT: Final = 2.0


class ScalingState(NamedTuple):
    """State passed from one decision to the next; the first one gets ``ScalingState()``.

    Attributes:
        target: The last target.
        memory: Information from earlier readings.
        rising_since_s: Since when a larger size has been needed.
        falling_since_s: Since when a smaller size has been needed.
        highest_target: The largest size needed since ``falling_since_s``.
    """

    target: int | None = None
    memory: Memory = Memory()
    rising_since_s: float | None = None
    falling_since_s: float | None = None
    highest_target: int = 0


class ScalingDecision(NamedTuple):
    """A target, the sentence that gives its reason, and the state for the next decision."""

    target: int
    reason: str
    state: ScalingState


class _Now(NamedTuple):
    """All inputs of one decision; ``held`` is the present target within the bounds."""

    reading: ScalingReading
    settings: ScalingSettings
    state: ScalingState
    now_s: float
    held: int
    high: int

    def stays(self, reason: str) -> ScalingDecision:
        """Keep the size and reset the delays: a later need must last for its whole delay."""
        sentence = f"stays at {_counted(self.held, self.reading.noun)}: {reason}"
        return ScalingDecision(self.held, sentence, ScalingState(self.held, self.state.memory))

    def becomes(self, target: int, reason: str) -> ScalingDecision:
        """Change the size; the next need must last for its whole delay."""
        sentence = f"{_counted(target, self.reading.noun)} instead of {self.held}: {reason}"
        raised_at_s = self.now_s if target > self.held else None
        memory = self.state.memory._replace(raised_at_s=raised_at_s)
        return ScalingDecision(target, sentence, ScalingState(target, memory))

    def remembers(self, memory: Memory) -> _Now:
        """Return a copy with another memory."""
        return self._replace(state=self.state._replace(memory=memory))


def decide(
    reading: ScalingReading, settings: ScalingSettings, state: ScalingState, now_s: float
) -> ScalingDecision:
    """Decide how many replicas or consumers should run, and why. Never raises.

    Without a backlog the need is ``(lag / target_drain_s + arrival) / (rate * utilisation)``. With
    a backlog it is the number that drains it within ``target_drain_s`` after the last reading
    without one. That includes arrivals until then and the time that replicas take to start, taken
    from the last start; a new replica gets at least ``LEAST_SHARE`` of ``target_drain_s``.

    So a backlog is drained in time if the measured rates are at most
    ``1 / ((1 + dead_band) * utilisation)`` of the true ones, 1.14 times with the defaults; if the
    start, two decisions and ``LEAST_SHARE`` take at most ``target_drain_s``; and if two steps, the
    bounds and the cluster's capacity allow the size. If the start takes longer, the backlog is
    drained as soon as possible after it.

    Scale up: only if a backlog keeps the present size busy, or if more is announced (``weight``)
    than the present size has carried. Scale down: only without a backlog, or if the present size
    is busy less than half of the time despite it; at most by half at a time, and never below the
    largest need within the delay. The last target stays if a reading is stale, the broker was
    unavailable or a rate is unknown; that time does not count. Bounds always apply immediately.

    Args:
        reading: The measurements.
        settings: Bounds and delays.
        state: State after the last decision.
        now_s: Time on a monotonic clock.
    """
    low, high = _bounds(reading, settings)
    present = count(reading.current) if state.target is None else state.target
    held = min(max(present, low), high)
    now = _Now(reading, settings, state, now_s, held, high)
    memory = state.memory.awaiting(reading, state.target, now_s)
    unusable = _unusable(now)
    if unusable:
        return now.remembers(memory._replace(kept_up_at_s=None)).stays(unusable)
    need = need_of(reading, settings, memory, held=held, now_s=now_s)
    if need is None:
        return now.remembers(memory).stays("the rate of one of them is not known yet")
    now = now.remembers(memory.with_need(need, reading, now_s))
    if need.backlog and need.busy < BUSY_SHARE:
        return _idle(need, now)
    band = 1 + settings.dead_band
    if _whole(need.replicas / band, high) > held:
        return _more(need, now)
    fewer = max(low, _whole(need.replicas * band, high))
    if fewer >= held:
        return now.stays(f"{need}{_bound(need, now)}")
    if need.backlog:
        return now.stays(f"{figure(need.lag)} records behind are drained first")
    return _fewer(fewer, str(need), now)


def _idle(need: Need, now: _Now) -> ScalingDecision:
    """Shrink to the size that is busy half of the time: more would not help, and fewer suffice.

    That size would not scale up again: it is below half busy by the dead band.
    """
    behind = f"{figure(need.lag)} records behind"
    reason = f"{behind} but busy {need.busy:.0%} of the time: something else is slow"
    low, high = _bounds(now.reading, now.settings)
    used = need.busy * count(now.reading.current) / BUSY_SHARE * (1 + now.settings.dead_band)
    fewer = max(low, _whole(used, high))
    if fewer >= now.held or now.reading.announced or known(now.reading.busy) is None:
        return now.stays(reason)
    return _fewer(fewer, reason, now)


def _more(need: Need, now: _Now) -> ScalingDecision:
    if not need.backlog and need.arrival <= PROVEN * need.carried:
        return now.stays(f"{figure(need.arrival)} records/s are handled without a backlog")
    target_size = _whole(need.replicas, now.high)
    step = int(max(now.held + 1, min(now.held * now.settings.max_step_up, now.high)))
    fits = _fits(now)
    target = min(target_size, step, fits)
    if target <= now.held:
        return now.stays(f"{need}, but the cluster has no capacity for more")
    since_s = _since(now.state.rising_since_s, now.now_s)
    is_urgent = need.backlog and need.replicas >= URGENT * now.held
    if not is_urgent and now.now_s - since_s < now.settings.up_delay_s:
        held = now.stays(f"{need}, since {now.now_s - since_s:.0f} s")
        return held._replace(state=held.state._replace(rising_since_s=since_s))
    if target == fits < target_size:
        return now.becomes(target, f"{need}, and the cluster has no capacity for more")
    if target == target_size:
        return now.becomes(target, f"{need}{_bound(need, now)}")
    step_up = now.becomes(target, f"{need}, in steps")
    return step_up._replace(state=step_up.state._replace(rising_since_s=since_s))


def _fewer(target_size: int, reason: str, now: _Now) -> ScalingDecision:
    since_s = _since(now.state.falling_since_s, now.now_s)
    for_s = now.now_s - since_s
    highest = target_size if for_s == 0 else max(target_size, now.state.highest_target)
    if for_s < now.settings.down_delay_s:
        held = now.stays(f"{reason}, since {for_s:.0f} s")
        waiting = held.state._replace(falling_since_s=since_s, highest_target=highest)
        return held._replace(state=waiting)
    target = min(now.held, max(highest, math.ceil(now.held / 2)))
    return now.becomes(target, f"{reason}, and for {for_s:.0f} s never more than {highest}")


def _unusable(now: _Now) -> str | None:
    reading, allowed_s = now.reading, now.settings.stale_after_s
    age_s = known(reading.age_s)
    if not reading.reachable:
        return "the broker is unreachable"
    if age_s is None or known(abs(now.now_s)) is None:
        return "the age of the reading is not known"
    if age_s > allowed_s:
        return f"the reading is {age_s:.0f} s old, and at most {allowed_s:g} s are allowed"
    if known(reading.weight) is None:
        return "the fraction of the traffic is not known"
    if known(reading.lag) is None or known(reading.arrival_per_s) is None:
        return "the lag or the arrival rate is not known"
    return None


def _bounds(reading: ScalingReading, settings: ScalingSettings) -> tuple[int, int]:
    high = settings.max_replicas
    if known(reading.limit) is not None:
        high = min(high, max(1, count(reading.limit)))
    return min(settings.min_replicas, high), high


def _fits(now: _Now) -> int:
    if known(now.reading.room) is None:
        return now.high
    return now.held + count(now.reading.room)


def _bound(need: Need, now: _Now) -> str:
    return f", limited to {now.high}" if need.replicas > now.high else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _since(since_s: float | None, now_s: float) -> float:
    """Return the start of a delay; it is now if the clock went back."""
    return since_s if since_s is not None and since_s <= now_s else now_s


def _whole(replicas: float, high: int) -> int:
    return math.ceil(min(replicas, high))
