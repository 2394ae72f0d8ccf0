"""Room on a cluster during one round of decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.scaling.capacity import Capacity
from ops.serving.observed_app import ObservedApp

HALF = ObservedApp("RUNNING", 2, "", target=2, resources={"CPU": 0.5, "GPU": 1.0})
NOTHING = HALF._replace(resources={})


def test_scarcest_resource_says_how_many_fit() -> None:
    assert Capacity({"CPU": 4.0, "GPU": 3.0}, [HALF]).for_more(HALF) == 3
    assert Capacity({"CPU": 0.7, "GPU": 3.0}, [HALF]).for_more(HALF) == 1
    assert Capacity({"CPU": 4.0}, [HALF]).for_more(HALF) == 0


def test_tenths_that_add_up_to_a_whole_are_one() -> None:
    tenth = HALF._replace(resources={"CPU": 0.1})
    assert Capacity({"CPU": 1.0 - 7 * 0.1}, []).for_more(tenth) == 3
    assert Capacity({"CPU": -0.1 - 0.1 - 0.1}, []).missing(tenth) == 3


@pytest.mark.parametrize("app", [HALF, NOTHING])
def test_cluster_that_grows_bounds_nothing_and_wants_nothing_back(app: ObservedApp) -> None:
    room = Capacity(None, [app])
    room.take(app, 5)
    assert room.for_more(app) is None
    assert room.missing(app) == 0


def test_what_reserves_nothing_neither_waits_for_room_nor_makes_any() -> None:
    room = Capacity({"CPU": -1.0}, [NOTHING])
    assert room.for_more(NOTHING) is None
    assert room.missing(NOTHING) == 0


@given(st.integers(-8, 8), st.integers(0, 8), st.integers(-4, 4))
def test_what_goes_is_exactly_what_is_missing(free: int, leaving: int, taken: int) -> None:
    one = ObservedApp("RUNNING", leaving, "", target=0, resources={"CPU": 1.0})
    room = Capacity({"CPU": float(free)}, [one])
    room.take(one, taken)
    missing = room.missing(one)
    assert missing == max(0, taken - free - leaving)
    room.take(one, -missing)
    assert room.missing(one) == 0
