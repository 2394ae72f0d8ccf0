from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.special import betaln, logsumexp
from scipy.stats import beta, binomtest, mannwhitneyu, norm

from ops.analysis.statistics import (
    STANDARD_ERRORS,
    Interval,
    log_evidence,
    mann_whitney,
    mix_distance,
    wilson,
)

# Few different ones, so that many are equal.
COARSE = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=40)
FINE = st.lists(st.floats(0, 1000, allow_subnormal=False), min_size=1, max_size=40)
SHARES = st.floats(0.001, 0.999)
PRIORS = st.lists(st.floats(0.5, 100), min_size=1, max_size=3)
MIXES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10_000)).filter(
    lambda mix: sum(mix.values()) > 0
)


@pytest.mark.parametrize(("hits", "trials", "share"), [(6, 12, 0.1), (9, 12, 0.5), (40, 400, 0.05)])
def test_evidence_is_the_mean_likelihood_ratio_under_the_prior(
    hits: int, trials: int, share: float
) -> None:
    def weighed(p: float) -> float:
        ratio = (p / share) ** hits * ((1 - p) / (1 - share)) ** (trials - hits)
        density = sum(beta.pdf(p, n * share, n * (1 - share)) for n in (10, 30)) / 2
        return float(ratio * density)

    mean, _ = quad(weighed, 0, 1, points=[share, hits / trials])
    found = log_evidence(hits, trials, share=share, priors=(10, 30))
    assert math.exp(found) == pytest.approx(mean)


@given(st.integers(0, 10**9), st.integers(0, 10**9), SHARES, PRIORS)
def test_a_further_hit_never_lowers_the_evidence(
    hits: int, misses: int, share: float, priors: list[float]
) -> None:
    trials = hits + misses
    before = log_evidence(hits, trials + 1, share=share, priors=priors)
    assert log_evidence(hits + 1, trials + 1, share=share, priors=priors) >= before - 1e-5
    if hits <= share * trials:
        assert log_evidence(hits, trials, share=share, priors=priors) == 0


@pytest.mark.parametrize(("true", "priors"), [(0.1, (40, 10)), (0.08, (40, 10)), (0.1, (2,))])
def test_looking_after_every_trial_raises_few_false_alarms(
    true: float, priors: tuple[float, ...]
) -> None:
    hits = np.random.default_rng(7).random((250, 300)) < true
    alarms = sum(
        any(
            log_evidence(int(seen), trials, share=0.1, priors=priors) >= math.log(10)
            for trials, seen in enumerate(run.cumsum(), start=1)
        )
        for run in hits
    )
    # Promised is a tenth.
    assert alarms <= 25


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_wilson_is_that_of_scipy(hits: int, more: int) -> None:
    level = 2 * norm.cdf(STANDARD_ERRORS) - 1
    theirs = binomtest(hits, hits + more).proportion_ci(level, method="wilson")
    ours = wilson(hits, hits + more)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert ours.estimate == hits / (hits + more)


def test_nothing_is_known_of_no_record() -> None:
    assert wilson(0, 0) == Interval(0.0, 0.0, 1.0)


@given(MIXES, MIXES)
def test_a_distance_is_symmetric_and_ordered(
    ours: Mapping[str, int], theirs: Mapping[str, int]
) -> None:
    there, back = mix_distance(ours, theirs), mix_distance(theirs, ours)
    assert there == pytest.approx(back, abs=1e-7)
    assert 0 <= there.low <= there.estimate <= there.high
    assert there.estimate <= 1 + 1e-9


@given(MIXES, st.integers(1, 50))
def test_equal_mixes_have_no_distance(mix: Mapping[str, int], times: int) -> None:
    more = {label: times * count for label, count in mix.items()}
    assert mix_distance(mix, more).estimate == pytest.approx(0, abs=1e-6)


def test_with_many_records_the_distance_is_that_of_scipy() -> None:
    ours, theirs = [0.3, 0.1, 0.6], [0.5, 0.2, 0.3]
    found = mix_distance(
        {label: int(1e8 * p) for label, p in zip("abc", ours, strict=True)},
        {label: int(1e8 * p) for label, p in zip("abc", theirs, strict=True)},
    )
    assert found.estimate == pytest.approx(jensenshannon(ours, theirs, base=2), rel=1e-4)


def test_rare_labels_count_as_one() -> None:
    ours = {"common": 1000} | {f"rare {i}": 1 for i in range(20)}
    theirs = {"common": 1000} | {f"other {i}": 1 for i in range(20)}
    assert mix_distance(ours, theirs).estimate == 0


def test_small_samples_of_one_mix_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(5)
    mix = np.array([0.3, 0.1, 0.6])
    pairs = rng.multinomial(50, mix, size=(1000, 2)).tolist()
    found = [
        mix_distance(*(dict(zip("abc", sample, strict=True)) for sample in pair)) for pair in pairs
    ]
    # Without the correction 0.7 of them would exceed 0.07.
    assert sum(one.estimate > 0.07 for one in found) < 400
    assert sum(one.low > 0 for one in found) <= 10


def test_the_distance_has_the_promised_error() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = np.array([0.3, 0.1, 0.6]), np.array([0.45, 0.1, 0.45])
    true = float(jensenshannon(ours, theirs, base=2))
    samples = zip(
        rng.multinomial(300, ours, size=1000).tolist(),
        rng.multinomial(3000, theirs, size=1000).tolist(),
        strict=True,
    )
    found = [
        mix_distance(dict(zip("abc", a, strict=True)), dict(zip("abc", b, strict=True)))
        for a, b in samples
    ]
    assert sum(not one.low <= true <= one.high for one in found) <= 10
    half = STANDARD_ERRORS * np.std([one.estimate for one in found])
    assert found[0].high - found[0].estimate == pytest.approx(half, rel=0.15)


def test_mann_whitney_asks_whether_ours_are_larger() -> None:
    low, high = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [11.0, 12.0, 13.0, 14.0, 15.0, 16.0]
    assert mann_whitney(high, low) == pytest.approx(1 / math.comb(12, 6))
    assert mann_whitney(low, high) == pytest.approx(1)


@given(COARSE, COARSE)
def test_mann_whitney_with_ties_is_that_of_scipy(ours: list[float], theirs: list[float]) -> None:
    assume(len({*ours, *theirs}) > 1)
    expected = mannwhitneyu(ours, theirs, alternative="greater").pvalue
    assert mann_whitney(ours, theirs) == pytest.approx(expected, rel=1e-6, abs=1e-15)


@given(FINE, FINE)
def test_mann_whitney_without_ties_is_that_of_scipy(ours: list[float], theirs: list[float]) -> None:
    assume(len({*ours, *theirs}) == len(ours) + len(theirs))
    expected = mannwhitneyu(ours, theirs, alternative="greater").pvalue
    assert mann_whitney(ours, theirs) == pytest.approx(expected, rel=1e-6, abs=1e-15)


def test_equal_values_are_not_larger() -> None:
    assert mann_whitney([2.0] * 9, [2.0] * 9) == 1.0


@given(st.integers(0, 10**7), st.integers(0, 10**7), SHARES, PRIORS)
def test_evidence_is_that_of_scipys_beta_function(
    hits: int, misses: int, share: float, priors: list[float]
) -> None:
    trials = hits + misses
    assume(hits > share * trials)
    sides = [(n * share, n * (1 - share)) for n in priors]
    each = [betaln(a + hits, b + misses) - betaln(a, b) for a, b in sides]
    mixed = float(logsumexp(each) - math.log(len(each)))
    expected = max(0.0, mixed - hits * math.log(share) - misses * math.log1p(-share))
    found = log_evidence(hits, trials, share=share, priors=priors)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)
