"""Statistical power of a policy's steps to find a version that fails on more records; pure.

It is computed, in milliseconds, from where the evidence of ``verdict`` reaches its threshold. It
assumes that records fail independently, and counts only the records that the policy requires of
each step: a bake that lasts for its duration, or a step that waits for latency windows, sees and
finds more. ``bench/verdicts.py`` simulates the verdicts themselves.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from statistics import NormalDist
from typing import Final, NamedTuple

from ops.analysis.evidence import ReleaseStep
from ops.analysis.limits import MIRROR_SHARE, JudgedStep, judged_steps
from ops.analysis.statistics import log_evidence
from ops.analysis.verdict import ERRORS_PRIORS, MIN_RECORDS
from ops.policy.policy import Policy

# The question answered: errors FACTOR times as frequent as the live version's usual rate.
USUAL_ERROR_RATE: Final = 0.01
FACTOR: Final = 2.0
WANTED: Final = 0.99
FACTORS: Final = (3, 4, 5, 6, 8, 10, 15, 20, 30, 50)


class _Expected(NamedTuple):
    """Failures in a step of a given length.

    Attributes:
        ours: Failures of the new version that count.
        theirs: Failures of the live version.
        share: Fraction of all that would be ours if both versions failed equally often.
        pairs: Number of records in the test.
    """

    ours: float
    theirs: float
    share: float
    pairs: float


def chance(step: JudgedStep, *, factor: float = FACTOR, rate: float = USUAL_ERROR_RATE) -> float:
    """Return the probability that a step finds a version failing ``factor`` times as often.

    Args:
        rate: Fraction of records that the live version fails on; at most 1 / ``factor``.
    Returns:
        From 0 to 1, by a normal approximation to the last look; earlier looks add up to 0.1.
    """
    limits = step.limits
    expected = _expected(step, factor * rate, rate)
    if not limits.compare_errors or expected.pairs < MIN_RECORDS:
        return 0.0
    theirs = expected.theirs
    needed = _needed(theirs, expected.share, limits.alpha)
    # Additional failures of ours needed per additional failure of theirs.
    apart = max(1.0, math.sqrt(theirs))
    slope = (_needed(theirs + apart, expected.share, limits.alpha) - needed) / apart
    spread = math.sqrt(expected.ours + slope**2 * theirs)
    return NormalDist().cdf((expected.ours + 0.5 - needed) / spread)


def found(policy: Policy, *, factor: float = FACTOR) -> float:
    """Return the probability that any step of a policy does, from 0 to 1."""
    missed = math.prod(1 - chance(step, factor=factor) for step in judged_steps(policy))
    return 1 - missed


def in_words(policy: Policy) -> str:
    """Describe the power to find errors doubled from 1%, and how to improve it."""
    steps = judged_steps(policy)
    if policy.analysis.errors is None:
        return "Errors are not compared with the live version's: analysis.errors is null."
    share = found(policy)
    head = (
        f"Where the live version fails on {100 * USUAL_ERROR_RATE:g}% of the records "
        "independently, a version that fails twice as often is found in "
    )
    if share >= WANTED:
        return f"{head}99 of 100 releases."
    surely = next((n for n in FACTORS if found(policy, factor=n) >= WANTED), None)
    instead = f", one that fails {surely} times as often in 99" if surely else ""
    best = _strongest(steps)
    return (
        f"{head}at least {math.floor(100 * share)} of 100 releases{instead}; with "
        f"{_rounded(_records_for(best)):,} records instead of {best.limits.records:,} "
        f"{_name(best)} alone would find the first in 99."
    )


def _expected(step: JudgedStep, ours: float, theirs: float) -> _Expected:
    """Return the expected failures, given each version's error rate."""
    records = step.limits.records
    if step.limits.step is ReleaseStep.CANARY:
        others = records * (1 - step.weight) / step.weight
        fewest = min(records, others)
        return _Expected(ours * records, theirs * others, step.weight, fewest)
    pairs = records if step.limits.step is ReleaseStep.SHADOW else MIRROR_SHARE * records
    return _Expected(ours * (1 - theirs) * pairs, theirs * (1 - ours) * pairs, 0.5, pairs)


def _needed(theirs: float, share: float, alpha: float) -> float:
    """Return the failures of ours, given theirs, at which the evidence reaches its threshold.

    It is interpolated between whole numbers of theirs.
    """
    whole = math.floor(theirs)
    low, high = (_needed_beside(count, share, alpha) for count in (whole, whole + 1))
    return low + (high - low) * (theirs - whole)


def _needed_beside(theirs: int, share: float, alpha: float) -> int:
    def evidence(ours: int) -> float:
        return log_evidence(ours, ours + theirs, share=share, priors=ERRORS_PRIORS)

    return _first(lambda ours: evidence(ours) >= -math.log(alpha))


def _records_for(step: JudgedStep) -> int:
    """Return the number of records with which a step alone has the wanted power."""

    def enough(records: int) -> bool:
        return chance(step._replace(limits=step.limits._replace(records=records))) >= WANTED

    return _first(enough)


def _first(holds: Callable[[int], bool]) -> int:
    """Return the smallest whole number for which a monotone predicate holds."""
    high = 1
    while not holds(high):
        high *= 2
    numbers = range(high // 2, high + 1)
    return numbers[bisect_left(numbers, True, key=holds)]


def _strongest(steps: list[JudgedStep]) -> JudgedStep:
    """Return the shadow, where both get the same records; else the canary of largest weight."""
    order = (ReleaseStep.BAKE, ReleaseStep.CANARY, ReleaseStep.SHADOW)
    return max(steps, key=lambda step: (order.index(step.limits.step), step.weight))


def _name(step: JudgedStep) -> str:
    is_canary = step.limits.step is ReleaseStep.CANARY
    return f"the canary of {100 * step.weight:g}%" if is_canary else f"the {step.limits.step}"


def _rounded(records: int) -> int:
    """Round up to two digits, as the estimate is no more exact."""
    unit = int(10 ** max(0, len(str(records)) - 2))
    return math.ceil(records / unit) * unit
