"""Decides which app to redeploy now, and when to stop trying and raise an alert. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from ops.config.duration import in_words
from ops.serving.observed_app import ObservedApp
from stream.schema import ConsumerRecord

# Limit of attempts on one app within an hour; after that an alert is raised.
LIMIT: Final = 3
WITHIN: Final = timedelta(hours=1)
# Pause after the first attempt; it doubles with each further attempt.
FIRST_PAUSE: Final = timedelta(seconds=60)
# Serve replaces replicas by itself and must have time for it.
FAILED_FOR: Final = timedelta(seconds=10)
GONE_FOR: Final = timedelta(seconds=15)
UNHEALTHY_FOR: Final = timedelta(seconds=120)
ENDED_FOR: Final = timedelta(seconds=60)
# Problems that pass by themselves, such as an unavailable model, need no restart.
TROUBLED_FOR: Final = timedelta(seconds=180)
SILENT_FOR: Final = timedelta(seconds=30)
STALLED_FOR: Final = timedelta(seconds=60)
# A consumer without a heartbeat for this many intervals, and for this long, is silent.
SILENT_INTERVALS: Final = 6
SILENT_S: Final = 30.0
# Longer than any call can take with its retries.
STALLED_S: Final = 600.0


class AppFault(NamedTuple):
    """A problem of an app.

    Attributes:
        what: Description, without a full stop.
        patience: Time that the problem must last before anything is done.
    """

    what: str
    patience: timedelta


class WatchedPipeline(NamedTuple):
    """A pipeline whose app runs.

    Attributes:
        consumers: Desired number of consumers.
        interval_s: Time between two heartbeats of one consumer.
        seen_for_s: Time for which the broker has answered and the app has run without a pause.
        heartbeats: Last heartbeat of each consumer, by rank.
        model_runs: Whether any version of its model runs.
    """

    consumers: int
    interval_s: float
    seen_for_s: float
    heartbeats: Mapping[int, ConsumerRecord]
    model_runs: bool


class Act(StrEnum):
    """Action to take on an app now."""

    WAIT = "wait"
    REPAIR = "repair"
    GIVE_UP = "give_up"  # a person must act


class RepairStep(NamedTuple):
    """An action and its reason in one sentence."""

    act: Act
    reason: str


def fault_of_app(found: ObservedApp | None, fault: str | None) -> AppFault | None:
    """Return the fault of an app according to Serve; None if there is none.

    Args:
        found: State of the app; None if it does not exist.
        fault: Reason why the last deployment failed.
    """
    if found is None:
        if fault is not None:
            return AppFault(f"it could not be deployed: {fault}", timedelta(0))
        return AppFault("it is not deployed", GONE_FOR)
    why = f": {found.message}" if found.message else ""
    if found.status == "DEPLOY_FAILED":
        return AppFault(f"its deployment failed{why}", FAILED_FOR)
    if found.status == "UNHEALTHY":
        return AppFault(f"its replicas are not healthy{why}", UNHEALTHY_FOR)
    return None


def fault_of_pipeline(watched: WatchedPipeline, now_ms: int) -> AppFault | None:
    """Return the fault that a pipeline's heartbeats show although Serve reports it as running.

    Args:
        now_ms: Unix time in milliseconds.
    """
    silent_s = max(SILENT_S, SILENT_INTERVALS * watched.interval_s)
    if watched.seen_for_s < silent_s:
        return None  # consumers that were cut off too could not report yet
    for rank in range(watched.consumers):
        last = watched.heartbeats.get(rank)
        age_s = (now_ms - last.at_ms) / 1000 if last else watched.seen_for_s
        if last is None or age_s > silent_s:
            return AppFault(f"consumer {rank} sent no heartbeat for {age_s:.0f} s", SILENT_FOR)
        if last.ended:
            return AppFault(f"consumer {rank} has ended: {last.trouble or 'no reason'}", ENDED_FOR)
        if last.trouble and watched.model_runs:
            return AppFault(f"consumer {rank} cannot continue: {last.trouble}", TROUBLED_FOR)
        if last.waiting and (last.committed_ago_s or 0.0) > STALLED_S:
            since = f"{last.committed_ago_s:.0f} s"
            what = f"consumer {rank} committed nothing for {since}, and {last.waiting} records wait"
            return AppFault(what, STALLED_FOR)
    return None


def next_step(
    fault: AppFault, since: datetime, attempts: Sequence[datetime], now: datetime
) -> RepairStep:
    """Decide what to do about an app with a fault.

    Args:
        since: When the fault was first seen.
        attempts: Known times at which the app was redeployed, oldest first.
        now: Current time; timezone-aware, as are the other times.
    """
    lately = [attempt for attempt in attempts if now - attempt < WITHIN]
    if now - since < fault.patience:
        return RepairStep(Act.WAIT, f"{fault.what}; this may pass by itself")
    if lately and now - lately[-1] < FIRST_PAUSE * 2 ** (len(lately) - 1):
        return RepairStep(Act.WAIT, f"{fault.what}; attempt {len(lately)} needs more time")
    if len(lately) >= LIMIT:
        tried = f"{len(lately)} times within {in_words(now - lately[0])}"
        return RepairStep(Act.GIVE_UP, f"{fault.what}, and it was redeployed {tried}")
    return RepairStep(Act.REPAIR, f"{fault.what}; attempt {len(lately) + 1} of {LIMIT}")
