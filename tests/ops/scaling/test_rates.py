"""From offsets and telemetry to rates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.scaling.rates import (
    OffsetSample,
    Rates,
    ReplicaLoad,
    follow,
    known,
    measure,
    rate_per_consumer,
    replica_seconds,
)
from tests.ops.scaling.numbers import ANY_NUMBER


def followed(*samples: tuple[float, float, float], half_life_s: float = 1.0) -> Rates:
    rates = None
    for sample in samples:
        rates = follow(rates, OffsetSample(*sample), half_life_s=half_life_s)
    assert rates is not None
    return rates


def test_two_samples_give_rates_and_lag() -> None:
    rates = followed((10.0, 1_000, 900), (20.0, 1_500, 1_300))
    assert (rates.arrival_per_s, rates.drain_per_s, rates.lag) == (50.0, 40.0, 200.0)


def test_after_a_half_life_old_and_new_count_the_same() -> None:
    rates = followed((0.0, 0, 0), (4.0, 400, 0), (8.0, 1_200, 800), half_life_s=4.0)
    assert (rates.arrival_per_s, rates.drain_per_s) == (150.0, 100.0)


def test_smoothing_goes_by_time_and_not_by_the_number_of_samples() -> None:
    often = followed((0.0, 0, 0), (1.0, 0, 0), *[(1.0 + t / 10, 10 * t, 0) for t in range(1, 31)])
    once = followed((0.0, 0, 0), (1.0, 0, 0), (4.0, 300, 0))
    assert often.arrival_per_s == pytest.approx(once.arrival_per_s)


@pytest.mark.parametrize("back", [(2.0, 50, 100), (2.0, 300, 0)])
def test_offsets_that_went_back_begin_anew(back: tuple[float, float, float]) -> None:
    assert followed((0.0, 0, 0), (1.0, 200, 100), back) == Rates(OffsetSample(*back))


@pytest.mark.parametrize(
    "bad", [(1.0, 900, 0), (0.5, 900, 0), (math.nan, 900, 0), (2.0, math.inf, 0), (2.0, 900, -1)]
)
def test_sample_that_cannot_be_changes_nothing(bad: tuple[float, float, float]) -> None:
    good = [(0.0, 0.0, 0.0), (1.0, 200.0, 100.0)]
    assert followed(*good, bad) == followed(*good)


def test_unusable_first_sample_is_not_a_beginning() -> None:
    assert follow(None, OffsetSample(0.0, math.nan, 0.0), half_life_s=1.0) is None


def test_seconds_of_calls_that_overlap_are_not_counted_beyond_those_that_ran() -> None:
    assert measure(3_000, busy_s=90.0, replica_s=30.0) == ReplicaLoad(100.0, 1.0)


def test_replica_with_pauses_is_measured_by_its_busy_seconds() -> None:
    assert measure(300, busy_s=3.0, replica_s=30.0) == ReplicaLoad(100.0, 0.1)


def test_without_answers_there_is_no_rate() -> None:
    assert measure(0, busy_s=0.0, replica_s=30.0) == ReplicaLoad(None, 0.0)
    assert measure(0, busy_s=30.0, replica_s=30.0) == ReplicaLoad(None, 1.0)
    assert measure(5, busy_s=1.0, replica_s=0.0) == ReplicaLoad(None, None)


@given(ANY_NUMBER, ANY_NUMBER, ANY_NUMBER)
def test_measure_takes_any_numbers(answers: float, busy_s: float, replica_s: float) -> None:
    load = measure(answers, busy_s=busy_s, replica_s=replica_s)
    assert load.rate_per_replica is None or load.rate_per_replica > 0
    assert load.busy is None or 0 <= load.busy <= 1


@given(st.lists(st.tuples(ANY_NUMBER, ANY_NUMBER, ANY_NUMBER), max_size=6))
def test_follow_takes_any_numbers(samples: list[tuple[float, float, float]]) -> None:
    rates = None
    for sample in samples:
        rates = follow(rates, OffsetSample(*sample), half_life_s=5.0)
    if rates is not None:
        assert rates.lag >= 0
        assert rates.arrival_per_s is None or rates.arrival_per_s >= 0


@pytest.mark.parametrize(
    ("lag", "busy", "rate"),
    [
        (10_000, 0.2, 50.0),  # replicas wait in spite of a backlog: consumers limit
        (10_000, 0.9, None),  # replicas limit
        (10_000, None, None),
        (100, 0.2, None),  # light load: what is drained is what arrives
    ],
)
def test_rate_of_a_consumer_shows_only_where_consumers_limit(
    lag: int, busy: float | None, rate: float | None
) -> None:
    rates = Rates(OffsetSample(0.0, lag, 0.0), 300.0, 100.0)
    assert rate_per_consumer(rates, consumers=2, busy=busy, target_drain_s=60.0) == rate


def test_known_is_finite_and_not_negative() -> None:
    values = [None, math.nan, math.inf, -math.inf, -1, -0.5, 10**400, 0, 2.5]
    assert [known(value) for value in values] == [None] * 7 + [0.0, 2.5]


@pytest.mark.parametrize(
    ("counts", "seconds"),
    [
        ([], 0.0),
        ([(0.0, 2)], 20.0),
        ([(15.0, 2)], 20.0),  # as many before it was looked at
        ([(0.0, 1), (15.0, 4)], 25.0),
        ([(0.0, 1), (5.0, 4), (30.0, 9)], 40.0),
        ([(0.0, 1), (12.0, 2), (14.0, 0)], 6.0),
    ],
)
def test_seconds_of_replicas_that_came_and_went(
    counts: list[tuple[float, int]], seconds: float
) -> None:
    assert replica_seconds(counts, 10.0, 20.0) == pytest.approx(seconds)
