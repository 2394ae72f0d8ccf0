from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.counting import Arrival, Tally, latencies_ms, records_per_s, tally

KEYS = 3


def arrival(record_id: int, at: float = 0.0) -> Arrival:
    key = f"key-{record_id % KEYS}".encode()
    return Arrival(at, 0, key, orjson.dumps({"id": record_id}))


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_any_order_between_keys_is_exact(produced: int, dice: random.Random) -> None:
    by_key = [list(range(key, produced, KEYS)) for key in range(KEYS)]
    order = []
    while any(by_key):
        order.append(dice.choice([ids for ids in by_key if ids]).pop(0))
    counted = tally(produced, [arrival(record_id) for record_id in order])
    assert counted == Tally(produced, 0, 0, 0)
    assert counted.is_exact


@given(st.integers(1, 40), st.data())
def test_a_record_taken_out_or_put_in_again_is_seen(produced: int, data: st.DataObject) -> None:
    ids = list(range(produced))
    one = data.draw(st.sampled_from(ids))
    rest = [arrival(record_id) for record_id in ids if record_id != one]
    assert tally(produced, rest) == Tally(produced, 1, 0, 0)
    again = [arrival(record_id) for record_id in [*ids, one]]
    assert tally(produced, again) == Tally(produced, 0, 1, 0)


def test_a_record_that_overtakes_another_of_its_key_is_seen() -> None:
    assert tally(6, [arrival(i) for i in (0, 1, 2, 5, 3, 4)]) == Tally(6, 0, 0, 0)
    assert tally(6, [arrival(i) for i in (3, 0, 1, 2, 4, 5)]) == Tally(6, 0, 0, 1)


def test_the_rate_leaves_the_first_transaction_out() -> None:
    results = [arrival(i, at) for i, at in enumerate((10.0, 10.01, 10.02, 11.0, 12.0))]
    assert records_per_s(results) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at once"):
        records_per_s(results[:3])


def test_latency_counts_from_the_record_s_own_production() -> None:
    results = [arrival(1, 5.5), arrival(0, 6.0), arrival(7, 9.0)]
    assert latencies_ms({0: 5.0, 1: 5.25}, results) == [250.0, 1000.0]
