"""How many replicas of a version, or consumers of a pipeline, the backlog asks for. Pure.

Owns the way from a reading and ``need`` to a target and its reason. Reads no clock and asks
nobody: the caller brings the reading, and applies the target.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from ops.config.scaling import ScalingSettings
from ops.scaling.need import Memory, Need, ScalingReading, count, figure, need_of
from ops.scaling.rates import BUSY_SHARE, known

# Up to this many times what was answered of late, arrivals without a backlog prove that what
# runs is enough: small micro-batches under light load make a replica look slower than it is.
PROVEN: Final = 1.5
# A backlog that takes this many times what there is waits for no second reading.
URGENT: Final = 2.0


class ScalingState(NamedTuple):
    """What a decision leaves to the next; the first one is given ``State()``.

    Attributes:
        target: The last one.
        memory: What earlier readings told.
        rising_since_s: Since when more are wished for.
        falling_since_s: Since when fewer are wished for.
        highest_wish: The most that was wished for since then.
    """

    target: int | None = None
    memory: Memory = Memory()
    rising_since_s: float | None = None
    falling_since_s: float | None = None
    highest_wish: int = 0


class ScalingDecision(NamedTuple):
    """A target, the sentence that gives its reason, and what the next decision needs."""

    target: int
    reason: str
    state: ScalingState


class _Now(NamedTuple):
    """Everything that one decision goes by; ``held`` is the present target within the bounds."""

    reading: ScalingReading
    settings: ScalingSettings
    state: ScalingState
    now_s: float
    held: int
    high: int

    def stays(self, reason: str) -> ScalingDecision:
        """Hold, with no wish: whatever comes next has to stand for its whole delay."""
        sentence = f"stays at {_counted(self.held, self.reading.noun)}: {reason}"
        return ScalingDecision(self.held, sentence, ScalingState(self.held, self.state.memory))

    def becomes(self, target: int, reason: str) -> ScalingDecision:
        """Change; the next change has to stand for its whole delay."""
        sentence = f"{_counted(target, self.reading.noun)} instead of {self.held}: {reason}"
        raised_at_s = self.now_s if target > self.held else None
        memory = self.state.memory._replace(raised_at_s=raised_at_s)
        return ScalingDecision(target, sentence, ScalingState(target, memory))

    def remembers(self, memory: Memory) -> _Now:
        """The same with another memory."""
        return self._replace(state=self.state._replace(memory=memory))


def decide(
    reading: ScalingReading, settings: ScalingSettings, state: ScalingState, now_s: float
) -> ScalingDecision:
    """How many are to run, and why. Never raises.

    Without a backlog the need is ``(lag / target_drain_s + arrival) / (rate * utilisation)``. With
    one it is as many as have it gone ``target_drain_s`` after the last reading without one,
    counted with what arrives until then and with the time that replicas take to start, as the
    last ones did; a replica is given ``LEAST_SHARE`` of ``target_drain_s`` at least.

    So a backlog is gone in time as long as the rates are at most
    ``1 / ((1 + dead_band) * utilisation)`` of the truth, 1.14 times with the defaults; as starting,
    two decisions and ``LEAST_SHARE`` take no longer than ``target_drain_s``; and as two steps,
    the bounds and the cluster's room allow what is needed. Where starting takes longer, it is gone
    as soon after that.

    More: only with a backlog that keeps busy what runs, or when more is announced (``weight``)
    than what runs has carried. Fewer: only without a backlog, or where what runs is busy for less
    than half of its time in spite of it; at most half at a time, and never below the highest wish
    of the delay. The last target holds when a reading is stale, the broker was away or a rate is
    not known, and that time does not count; bounds always apply, and at once.

    Args:
        reading: How things stood.
        settings: Bounds and pace.
        state: Of the last decision.
        now_s: On any clock that goes forward.
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
        return now.remembers(memory).stays("how much one of them does in a second is not known yet")
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
    """More would be of no use, and fewer would do the same: as many as are busy half of the time.

    Those would not ask for more, either: they are less than half busy by the dead band.
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
        return now.stays(f"{figure(need.arrival)} records/s are carried without a backlog")
    wish = _whole(need.replicas, now.high)
    step = int(max(now.held + 1, min(now.held * now.settings.max_step_up, now.high)))
    fits = _fits(now)
    target = min(wish, step, fits)
    if target <= now.held:
        return now.stays(f"{need}, but the cluster has room for no more")
    since_s = _since(now.state.rising_since_s, now.now_s)
    is_urgent = need.backlog and need.replicas >= URGENT * now.held
    if not is_urgent and now.now_s - since_s < now.settings.up_delay_s:
        held = now.stays(f"{need}, since {now.now_s - since_s:.0f} s")
        return held._replace(state=held.state._replace(rising_since_s=since_s))
    if target == fits < wish:
        return now.becomes(target, f"{need}, and the cluster has room for no more")
    if target == wish:
        return now.becomes(target, f"{need}{_bound(need, now)}")
    step_up = now.becomes(target, f"{need}, in steps")
    return step_up._replace(state=step_up.state._replace(rising_since_s=since_s))


def _fewer(wish: int, reason: str, now: _Now) -> ScalingDecision:
    since_s = _since(now.state.falling_since_s, now.now_s)
    for_s = now.now_s - since_s
    highest = wish if for_s == 0 else max(wish, now.state.highest_wish)
    if for_s < now.settings.down_delay_s:
        held = now.stays(f"{reason}, since {for_s:.0f} s")
        waiting = held.state._replace(falling_since_s=since_s, highest_wish=highest)
        return held._replace(state=waiting)
    target = min(now.held, max(highest, math.ceil(now.held / 2)))
    return now.becomes(target, f"{reason}, and for {for_s:.0f} s never more than {highest}")


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
    return f", and {now.high} is the bound" if need.replicas > now.high else ""


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _since(since_s: float | None, now_s: float) -> float:
    """A clock that went back starts the delay anew."""
    return since_s if since_s is not None and since_s <= now_s else now_s


def _whole(replicas: float, high: int) -> int:
    return math.ceil(min(replicas, high))
