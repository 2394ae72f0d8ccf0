"""What arrives, what is drained and what a replica does in a second, from what can be read. Pure.

Owns the way from offsets and telemetry to rates; ``ops/scaling/decision.py`` decides by them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

# A lag is a backlog when what runs needs more than this share of target_drain_s for it: below
# lies what is merely in flight.
BACKLOG_SHARE: Final = 0.05
# Less busy than this in spite of a backlog: something else is slow, and more would not help.
BUSY_SHARE: Final = 0.5
MIN_RATE: Final = 1e-6


class OffsetSample(NamedTuple):
    """Offsets of all partitions of a pipeline, added up.

    Attributes:
        at_s: When they were read, on any clock that goes forward.
        end: Sum of the end offsets, in records.
        committed: Sum of the committed offsets, in records.
    """

    at_s: float
    end: float
    committed: float


class Rates(NamedTuple):
    """What successive samples tell.

    Attributes:
        sample: The last one.
        arrival_per_s: Records that arrive, smoothed; None until two samples were seen.
        drain_per_s: Records that are committed, smoothed; None until two samples were seen.
    """

    sample: OffsetSample
    arrival_per_s: float | None = None
    drain_per_s: float | None = None

    @property
    def lag(self) -> float:
        """Records not yet committed."""
        return max(0.0, self.sample.end - self.sample.committed)


class ReplicaLoad(NamedTuple):
    """What replicas did in a window of telemetry.

    Attributes:
        rate_per_replica: Records that one replica answers per busy second.
        busy: Share of the replicas' time in which they worked, 0..1.
    """

    rate_per_replica: float | None
    busy: float | None


def follow(rates: Rates | None, sample: OffsetSample, *, half_life_s: float) -> Rates | None:
    """Bring the rates up to date with one more sample.

    Offsets that went back (a topic made anew, offsets that were reset) begin anew; a sample that
    is not later than the last, or has a number that cannot be, changes nothing.

    Args:
        rates: What was known before; None at the beginning.
        sample: The newest.
        half_life_s: After this long an old rate counts for half; above 0.
    Returns:
        None where no sample could be used so far.
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
    """Rate and use of replicas from a window of telemetry.

    Calls overlap within a replica, so that their seconds add up to more than it has; what is
    above the time that replicas ran is no work.

    Args:
        answers: Of the version, in the window.
        busy_s: Sum of the seconds of all calls.
        replica_s: Seconds of all replicas that ran, added up; those that started later count
            from then on.
    """
    answered, worked_s, ran_s = known(answers), known(busy_s), positive(replica_s)
    if answered is None or worked_s is None or ran_s is None:
        return ReplicaLoad(None, None)
    worked_s = min(worked_s, ran_s)
    return ReplicaLoad(positive(answered / worked_s if worked_s else None), worked_s / ran_s)


def replica_seconds(counts: Sequence[tuple[float, int]], begin_s: float, end_s: float) -> float:
    """Seconds of all replicas that ran between two moments, added up.

    Args:
        counts: How many ran from each moment on, in order; before the first as many as then.
    """
    if not counts:
        return 0.0
    moments = [begin_s, *(min(max(at_s, begin_s), end_s) for at_s, _ in counts[1:]), end_s]
    spans = (after - before for before, after in pairwise(moments))
    return sum(span * count for span, (_, count) in zip(spans, counts, strict=True))


def rate_per_consumer(
    rates: Rates, *, consumers: int, busy: float | None, target_drain_s: float
) -> float | None:
    """What one consumer commits per second, where consumers are what limits the pipeline.

    Args:
        rates: Of the pipeline.
        consumers: That run.
        busy: Share of their time that the model's replicas work.
        target_drain_s: Of the settings.
    Returns:
        None where there is no backlog, or where the replicas limit: a consumer that waits for
        them shows nothing of its own rate.
    """
    drain, share = positive(rates.drain_per_s), known(busy)
    if drain is None or share is None or share >= BUSY_SHARE:
        return None
    return drain / max(1, consumers) if is_behind(rates.lag, drain, target_drain_s) else None


def is_behind(lag: float, drain_per_s: float, target_drain_s: float) -> bool:
    """Whether more waits than what is merely in flight."""
    return lag > BACKLOG_SHARE * target_drain_s * drain_per_s


def smoothed(before: float | None, now: float, keep: float) -> float:
    """The new value mixed with the old one, of which a share ``keep`` stays."""
    return now if before is None else keep * before + (1 - keep) * now


def positive(value: float | None) -> float | None:
    """A rate that can be divided by; less than a record in eleven days is none."""
    number = known(value)
    return number if number is not None and number >= MIN_RATE else None


def known(value: float | None) -> float | None:
    """The value as a finite number that is not negative, else None."""
    try:
        number = float("nan" if value is None else value)
    except OverflowError:  # an integer beyond what a double holds
        return None
    return number if math.isfinite(number) and number >= 0 else None
