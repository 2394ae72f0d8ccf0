"""What the demonstration counts of its own load."""

from __future__ import annotations

import pytest

from ops.demo.load import DemoCounts


def test_the_first_transaction_is_where_the_clock_begins() -> None:
    counts = DemoCounts()
    # 300 at once, then 100 a second in transactions of 100: it is not 400 in a second.
    counts.came_s = dict.fromkeys(range(300), 10.0)
    counts.came_s |= {300 + number: 11.0 + number // 100 for number in range(200)}
    assert counts.rate_per_s(0, 500) == pytest.approx(100.0)
    assert counts.rate_per_s(0, 300) == 0.0
    assert counts.rate_per_s(900, 950) == 0.0


def test_latencies_are_those_of_a_range_of_events() -> None:
    counts = DemoCounts()
    counts.latencies_ms = {number: float(number) for number in range(0, 200, 2)}  # odd ones are bad
    assert counts.percentile_ms(0, 200, 0.5) == 100.0
    assert counts.percentile_ms(0, 100, 0.99) == 98.0
    assert counts.percentile_ms(500, 600, 0.5) == 0.0
