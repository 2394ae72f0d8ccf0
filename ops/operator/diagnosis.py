"""Which app is to be deployed anew now, and when to stop trying and tell a person. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from ops.config.duration import in_words as told_duration
from ops.serving.observed_app import ObservedApp
from stream.schema import ConsumerRecord

# At most so many attempts on one app within the hour; from then on it is an alert.
LIMIT: Final = 3
WITHIN: Final = timedelta(hours=1)
# After an attempt the next one waits this long, and twice as long each time.
FIRST_PAUSE: Final = timedelta(seconds=60)
# Serve replaces replicas by itself and must have had its time.
FAILED_FOR: Final = timedelta(seconds=10)
GONE_FOR: Final = timedelta(seconds=15)
UNHEALTHY_FOR: Final = timedelta(seconds=120)
ENDED_FOR: Final = timedelta(seconds=60)
# What heals by itself, such as a model that is away, needs no restart.
TROUBLED_FOR: Final = timedelta(seconds=180)
SILENT_FOR: Final = timedelta(seconds=30)
STALLED_FOR: Final = timedelta(seconds=60)
# A consumer that has told nothing for so many intervals, or this long, is silent.
SILENT_INTERVALS: Final = 6
SILENT_S: Final = 30.0
# Longer than the patience of any one call with its retries.
STALLED_S: Final = 600.0


class AppFault(NamedTuple):
    """Something is wrong with an app.

    Attributes:
        what: In words, without a full stop.
        patience: How long it must have been so before anything is done.
    """

    what: str
    patience: timedelta


class WatchedPipeline(NamedTuple):
    """A pipeline whose app runs.

    Attributes:
        consumers: That it should have.
        interval_s: Between two heartbeats of one.
        seen_for_s: How long the broker has answered and the app has run without a pause.
        heartbeats: The last one of each consumer, by its rank.
        model_runs: Some version of its model does.
    """

    consumers: int
    interval_s: float
    seen_for_s: float
    heartbeats: Mapping[int, ConsumerRecord]
    model_runs: bool


class Act(StrEnum):
    """What to do about an app now."""

    WAIT = "wait"
    REPAIR = "repair"
    GIVE_UP = "give_up"  # it is a person's affair from here on


class RepairStep(NamedTuple):
    """What to do, and why in a sentence."""

    act: Act
    reason: str


def ailment_of_app(found: ObservedApp | None, fault: str | None) -> AppFault | None:
    """What is wrong with an app by what Serve tells; None where nothing is.

    Args:
        found: None where there is no such app.
        fault: Why it could not be deployed the last time.
    """
    if found is None:
        if fault is not None:
            return AppFault(f"it could not be deployed: {fault}", timedelta(0))
        return AppFault("it is not there", GONE_FOR)
    why = f": {found.message}" if found.message else ""
    if found.status == "DEPLOY_FAILED":
        return AppFault(f"its deployment failed{why}", FAILED_FOR)
    if found.status == "UNHEALTHY":
        return AppFault(f"its replicas are not healthy{why}", UNHEALTHY_FOR)
    return None


def ailment_of_pipeline(watched: WatchedPipeline, now_ms: int) -> AppFault | None:
    """What is wrong with a pipeline by what its consumers tell, although Serve says it runs.

    Args:
        now_ms: Since 1970.
    """
    silent_s = max(SILENT_S, SILENT_INTERVALS * watched.interval_s)
    if watched.seen_for_s < silent_s:
        return None  # consumers that were cut off as well have had no time to tell
    for rank in range(watched.consumers):
        told = watched.heartbeats.get(rank)
        age_s = (now_ms - told.at_ms) / 1000 if told else watched.seen_for_s
        if told is None or age_s > silent_s:
            return AppFault(f"consumer {rank} has told nothing for {age_s:.0f} s", SILENT_FOR)
        if told.ended:
            return AppFault(f"consumer {rank} has ended: {told.trouble or 'no reason'}", ENDED_FOR)
        if told.trouble and watched.model_runs:
            return AppFault(f"consumer {rank} does not go on: {told.trouble}", TROUBLED_FOR)
        if told.waiting and (told.committed_ago_s or 0.0) > STALLED_S:
            since = f"{told.committed_ago_s:.0f} s"
            what = f"consumer {rank} has committed nothing for {since} and {told.waiting} wait"
            return AppFault(what, STALLED_FOR)
    return None


def next_step(
    ailment: AppFault, since: datetime, attempts: Sequence[datetime], now: datetime
) -> RepairStep:
    """What to do about an app that ails.

    Args:
        since: When this was seen first.
        attempts: When it was deployed anew before; all that are remembered, oldest first.
        now: Aware, as the others.
    """
    lately = [attempt for attempt in attempts if now - attempt < WITHIN]
    if now - since < ailment.patience:
        return RepairStep(Act.WAIT, f"{ailment.what}; this may pass by itself")
    if lately and now - lately[-1] < FIRST_PAUSE * 2 ** (len(lately) - 1):
        return RepairStep(Act.WAIT, f"{ailment.what}; attempt {len(lately)} has time to work")
    if len(lately) >= LIMIT:
        tried = f"{len(lately)} times within {told_duration(now - lately[0])}"
        return RepairStep(Act.GIVE_UP, f"{ailment.what}, and it was deployed anew {tried}")
    return RepairStep(Act.REPAIR, f"{ailment.what}; attempt {len(lately) + 1} of {LIMIT}")
