"""The statistical tests behind verdicts; pure.

Owns the arithmetic: evidence against a proportion, an interval for a proportion, the distance of
two label distributions, Mann-Whitney. ``verdict`` owns versions and limits. Does not use scipy,
which takes a second and a half of CPU to import; the tests compare with it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final, NamedTuple

# Standard errors on either side of an estimate. One look is wrong on one side in 1 of 740 cases;
# as the looks of a step share most of their records, all together are wrong in about 1 of 100.
STANDARD_ERRORS: Final = 3.0
# Below this the normal approximation of a cell is not good enough.
_MIN_EXPECTED: Final = 5.0
# Size of the smaller sample; above it the normal approximation is good enough.
_EXACT_UP_TO: Final = 8
_OTHER_LABELS: Final = "(other)"


class Interval(NamedTuple):
    """An estimate and its confidence bounds."""

    low: float
    estimate: float
    high: float


def log_evidence(hits: int, trials: int, *, share: float, priors: Sequence[float]) -> float:
    """Return the evidence that hits are more frequent than ``share``, as a natural logarithm.

    A beta-binomial e-process: the mean probability of the data under beta priors around
    ``share``, divided by that under ``share`` itself. When the true proportion is ``share`` or
    less, the evidence reaches 1 / alpha at *any* look with a probability of at most alpha, so one
    may look after every record and stop at will. That also holds below ``share``, because with
    the priors' mean at ``share`` a further hit always raises evidence that is above 0.

    Args:
        hits: Number of hits, from 0 to ``trials``.
        trials: Records so far.
        share: Proportion to disprove, 0 < share < 1.
        priors: Number of trials each prior is worth, above 0. Small ones find a large difference
            sooner, large ones a small one; several have equal weights.
    Returns:
        The evidence; 0 if hits are not more frequent than ``share``.
    Source: Ville's inequality; mixture martingales, Robbins 1970.
    """
    if hits <= share * trials:
        return 0.0
    misses = trials - hits
    found = [
        _log_beta(prior * share + hits, prior * (1 - share) + misses)
        - _log_beta(prior * share, prior * (1 - share))
        for prior in priors
    ]
    # Log of the mean of the exponentials, which themselves may overflow a float.
    most = max(found)
    mean = most + math.log(math.fsum(math.exp(one - most) for one in found) / len(found))
    return max(0.0, mean - hits * math.log(share) - misses * math.log1p(-share))


def wilson(hits: int, trials: int) -> Interval:
    """Return Wilson's interval for a proportion, ``STANDARD_ERRORS`` wide on either side.

    Args:
        hits: Number of hits, from 0 to ``trials``.
        trials: Number of trials, at least 0; for 0 the interval is 0 to 1.
    """
    if trials <= 0:
        return Interval(0.0, 0.0, 1.0)
    share, z2 = hits / trials, STANDARD_ERRORS**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = share * (1 - share) / trials + z2 / (4 * trials**2)
    half = STANDARD_ERRORS * math.sqrt(spread) / (1 + z2 / trials)
    return Interval(max(0.0, centre - half), share, min(1.0, centre + half))


def mix_distance(ours: Mapping[str, int], theirs: Mapping[str, int]) -> Interval:
    """Return the Jensen-Shannon distance of two samples, from 0 (equal) to 1 (disjoint).

    Two samples of one distribution differ by chance. With n and m records the divergence (the
    square of the distance, in bits) of k labels is then h times a chi-square of k - 1 degrees of
    freedom, where h = (1/n + 1/m) / (8 ln 2). So its mean (k - 1) h is subtracted, and the
    distance has a standard error of sqrt(h). Labels too rare for that are merged into one.

    Args:
        ours: Label -> records. At least one record.
        theirs: Label -> records of the other sample. At least one record.
    """
    n, m = sum(ours.values()), sum(theirs.values())
    cells = _without_rare(ours, theirs)
    step = (1 / n + 1 / m) / (8 * math.log(2))
    divergence = sum(_divergence(a / n, b / m) for a, b in cells)
    estimate = math.sqrt(max(0.0, divergence - (len(cells) - 1) * step))
    error = STANDARD_ERRORS * math.sqrt(step)
    return Interval(max(0.0, estimate - error), estimate, estimate + error)


def mann_whitney(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the p-value that values of one distribution are this much larger than the others.

    Exact if one sample is small and no two values are equal, else by the normal approximation
    with corrections for ties and continuity.

    Args:
        ours: Values that may be larger; shape (N,), N >= 1.
        theirs: Values to compare with; shape (M,), M >= 1.
    """
    n, m, ordered = len(ours), len(theirs), sorted(theirs)
    wins = sum(bisect_left(ordered, x) + bisect_right(ordered, x) for x in ours) / 2
    ties = [count for count in Counter([*ours, *theirs]).values() if count > 1]
    if not ties and min(n, m) <= _EXACT_UP_TO:
        arrangements = _arrangements(n, m)
        return sum(arrangements[int(wins) :]) / sum(arrangements)
    total = n + m
    tied = sum(count**3 - count for count in ties) / (total * (total - 1))
    deviation = math.sqrt(n * m / 12 * (total + 1 - tied))
    if deviation == 0:
        return 1.0  # all values are equal
    return NormalDist().cdf(-(wins - n * m / 2 - 0.5) / deviation)


def _arrangements(n: int, m: int) -> list[int]:
    """Count, at index u, the orders of n + m values in which n win u of the n * m comparisons.

    The coefficients of the Gaussian binomial, (1 - q^(m+1)) ... (1 - q^(m+n)) divided by
    (1 - q) ... (1 - q^n): symmetric in n and m.
    """
    small, large = sorted((n, m))
    counts = [1] + [0] * (n * m)
    for i in range(1, small + 1):
        for u in range(n * m, large + i - 1, -1):
            counts[u] -= counts[u - large - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    return counts


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _without_rare(ours: Mapping[str, int], theirs: Mapping[str, int]) -> list[tuple[int, int]]:
    n, m = sum(ours.values()), sum(theirs.values())
    enough = _MIN_EXPECTED * (n + m) / min(n, m)
    cells: dict[str, tuple[int, int]] = {}
    for label in ours.keys() | theirs.keys():
        a, b = ours.get(label, 0), theirs.get(label, 0)
        name = label if a + b >= enough else _OTHER_LABELS
        before = cells.get(name, (0, 0))
        cells[name] = (before[0] + a, before[1] + b)
    return [cell for cell in cells.values() if cell != (0, 0)]


def _divergence(ours: float, theirs: float) -> float:
    """Return one label's contribution to the Jensen-Shannon divergence, in bits."""
    middle = (ours + theirs) / 2
    return sum(p / 2 * math.log2(p / middle) for p in (ours, theirs) if p > 0)
