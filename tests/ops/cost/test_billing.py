"""Samples become hours, hours become money, and money meets a ceiling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.config.prices import NodePrice, PriceTable
from ops.cost.billing import (
    HOUR,
    NO_TEAM,
    CeilingState,
    Spending,
    Usage,
    UsageSample,
    UsageSource,
    ceiling,
    money,
    summarise,
    usage_of,
)

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LIVE = UsageSource("sentiment", "3")
CONSUMERS = UsageSource("sentiment", None, "reviews")
PRICES = PriceTable(cpu_hour=0.05, gpu_hour=2.0, node_types={"spot": NodePrice(cpu_hour=0.01)})


def sample(
    minutes: float, replicas: int = 2, predictions: int = 0, source: UsageSource = LIVE
) -> UsageSample:
    return UsageSample(NINE + minutes * MINUTE, source, replicas, 0.5, 0.25, predictions)


def used(*samples: UsageSample) -> list[Usage]:
    return usage_of(samples, max_gap=10 * MINUTE)


def test_what_a_sample_says_holds_until_the_next() -> None:
    (row,) = used(sample(0), sample(5, replicas=4, predictions=600), sample(6, predictions=700))
    assert row == Usage(NINE, LIVE, 840.0, 420.0, 210.0, 700)


def test_usage_is_divided_at_the_hour() -> None:
    first, second = used(sample(58), sample(62, predictions=401))
    assert first == Usage(NINE, LIVE, 240.0, 120.0, 60.0, 200)
    assert second == Usage(NINE + HOUR, LIVE, 240.0, 120.0, 60.0, 201)


def test_gap_is_unknown_and_not_running() -> None:
    (row,) = used(sample(0), sample(5), sample(35, predictions=50), sample(40, predictions=60))
    assert (row.replica_s, row.unknown_s, row.predictions) == (1200.0, 1800.0, 60)
    first, second, third = used(sample(30), sample(150))
    assert [r.unknown_s for r in (first, second, third)] == [1800.0, 3600.0, 1800.0]


def test_counter_that_starts_anew_is_counted_from_there() -> None:
    (row,) = used(
        sample(0, predictions=900), sample(1, predictions=1_000), sample(2, predictions=7)
    )
    assert row.predictions == 107


def test_sources_are_kept_apart_and_order_does_not_matter() -> None:
    mixed = [sample(4), sample(2, source=CONSUMERS), sample(0), sample(0, source=CONSUMERS)]
    rows = {row.source: row.replica_s for row in used(*mixed)}
    assert rows == {LIVE: 480.0, CONSUMERS: 240.0}


def test_the_hour_that_summer_skips_is_not_paid() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    before = UsageSample(datetime(2026, 3, 29, 1, 55, tzinfo=berlin), LIVE, 1, 1.0)
    after = UsageSample(datetime(2026, 3, 29, 3, 5, tzinfo=berlin), LIVE, 1, 1.0)
    assert [row.replica_s for row in used(before, after)] == [300.0, 300.0]


STEPS = st.lists(
    st.tuples(st.floats(0, 90), st.integers(0, 8), st.integers(0, 10**6)), min_size=2, max_size=12
)


@given(STEPS, st.data())
def test_usage_adds_up_and_no_second_is_lost(
    steps: list[tuple[float, int, int]], data: st.DataObject
) -> None:
    samples, at, counter = [], 0.0, 0
    for minutes, replicas, more in steps:
        at, counter = at + minutes, counter + more
        samples.append(sample(at, replicas, counter))
    cut = data.draw(st.integers(0, len(samples) - 1))
    whole = used(*samples)
    parts = used(*samples[: cut + 1]) + used(*samples[cut:])

    assert sum(row.predictions for row in whole) == counter - samples[0].predictions
    for column in ("replica_s", "cpu_s", "gpu_s", "predictions", "unknown_s"):
        total = sum(getattr(row, column) for row in whole)
        assert sum(getattr(row, column) for row in parts) == pytest.approx(total, abs=1e-3)
    for row in whole:
        assert row.hour.minute == 0
        assert 0 <= row.unknown_s <= 3600 + 1e-3
        assert row.replica_s <= 8 * 3600 + 1e-3
    spans = [(b.at - a.at).total_seconds() for a, b in pairwise(samples)]
    gaps = sum(span for span in spans if span > 600)
    assert sum(row.unknown_s for row in whole) == pytest.approx(gaps, abs=1e-3)


def test_money_goes_by_what_is_reserved_and_by_the_node() -> None:
    row = Usage(NINE, LIVE, cpu_s=7200.0, gpu_s=1800.0)
    assert money(row, PRICES) == pytest.approx(2 * 0.05 + 0.5 * 2.0)
    spot = row._replace(source=LIVE._replace(node_type="spot"))
    assert money(spot, PRICES) == pytest.approx(2 * 0.01)
    other = row._replace(source=LIVE._replace(node_type="large"))
    assert money(other, PRICES) == money(row, PRICES)


ROWS = [
    Usage(NINE, LIVE, 3600.0, 3600.0, 0.0, 400_000),
    Usage(NINE + HOUR, LIVE, 3600.0, 3600.0, 0.0, 100_000, 60.0),
    Usage(NINE, UsageSource("sentiment", "4"), 7200.0, 14_400.0, 0.0, 0),
    Usage(NINE, CONSUMERS, 3600.0, 900.0),
    Usage(NINE, UsageSource("topics", "1"), 3600.0, 3600.0, 3600.0, 1_000),
]


def test_bills_are_told_apart_by_model_version_and_team() -> None:
    bills = summarise(ROWS, PRICES, {"sentiment": "reviews"})
    assert [(bill.model, bill.version, bill.team) for bill in bills] == [
        ("topics", "1", NO_TEAM),
        ("sentiment", "4", "reviews"),
        ("sentiment", "3", "reviews"),
        ("sentiment", None, "reviews"),
    ]
    _, canary, live, consumers = bills
    assert (live.predictions, live.replica_s, live.unknown_s) == (500_000, 7200.0, 60.0)
    assert live.money == pytest.approx(0.10)
    assert live.per_million == pytest.approx(0.20)
    assert canary.per_million is None
    assert consumers.money == pytest.approx(0.0125)


def test_bills_add_up_to_models_and_teams() -> None:
    teams = {"sentiment": "words", "topics": "words"}
    topics, sentiment = summarise(ROWS, PRICES, teams, by=("model",))
    assert (topics.model, topics.version, topics.team) == ("topics", None, None)
    assert sentiment.money == pytest.approx(0.10 + 0.20 + 0.0125)
    assert sentiment.per_million == pytest.approx(0.625)
    (team,) = summarise(ROWS, PRICES, teams, by=("team",))
    assert team.money == pytest.approx(topics.money + sentiment.money)
    assert summarise([], PRICES, teams) == []


def judged(today: float, rate: float = 1.0, hour: int = 12, **more: float) -> tuple[object, ...]:
    settings = {"ceiling_per_day": 25.0, "warn_at": 0.8, "min_replicas": 2} | more
    now = NINE.replace(hour=hour)
    return ceiling(Spending(today, rate, "EUR"), now, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("today", "rate", "state", "most", "sentence"),
    [
        (
            3.0,
            1.0,
            CeilingState.OK,
            None,
            "3.00 EUR spent today of 25.00; at 1.00 an hour it will be 15.00 by midnight UTC",
        ),
        (
            15.0,
            4.0,
            CeilingState.OK,
            None,
            "15.00 EUR spent today of 25.00; at 4.00 an hour the ceiling is reached at 14:30 UTC",
        ),
        (
            20.0,
            2.0,
            CeilingState.WARN,
            None,
            "20.00 EUR spent today of 25.00; at 2.00 an hour the ceiling is reached at 14:30 UTC",
        ),
        (
            20.0,
            0.0,
            CeilingState.WARN,
            None,
            "20.00 EUR spent today of 25.00; at 0.00 an hour it will be 20.00 by midnight UTC",
        ),
        (
            25.0,
            1.0,
            CeilingState.CAP,
            2,
            "25.00 EUR spent today of 25.00: at most 2 until midnight UTC; "
            "raise cost.ceiling_per_day for more",
        ),
    ],
)
def test_ceiling_warns_with_a_forecast_and_then_caps(
    today: float, rate: float, state: CeilingState, most: int | None, sentence: str
) -> None:
    assert judged(today, rate) == (state, most, sentence)


def test_past_the_ceiling_serving_never_stops() -> None:
    assert judged(1_000.0, min_replicas=0)[1] == 1


def test_ceiling_counts_hours_in_utc() -> None:
    spending = Spending(20.0, 1.0, "EUR")
    elsewhere = NINE.replace(hour=23).astimezone(ZoneInfo("Asia/Tokyo"))
    verdict = ceiling(spending, elsewhere, ceiling_per_day=25.0, warn_at=0.8, min_replicas=1)
    assert verdict.sentence.endswith("it will be 21.00 by midnight UTC")


def test_without_a_ceiling_all_is_well() -> None:
    spending = Spending(1e6, 1.0, "USD")
    verdict = ceiling(spending, NINE, ceiling_per_day=None, warn_at=0.8, min_replicas=1)
    assert verdict == (
        CeilingState.OK,
        None,
        "1,000,000.00 USD spent today; there is no ceiling",
    )
