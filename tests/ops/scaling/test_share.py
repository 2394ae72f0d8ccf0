"""Which share of the records a version must be able to carry."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.analysis.limits import MIRROR_SHARE
from ops.releases.releases import Release
from ops.releases.state_machine import Plan, Position, ReleaseState, Sides, routes_of
from ops.scaling.share import share_to_carry
from stream.schema import ControlRecord, VersionRoute

PLAN = Plan(shadow=True, weights=(0.05, 0.25), bake=True)
SIDES = Sides("1", "2", {"1": None, "2": None})


class Going:
    """As much of a release as is asked for."""

    def __init__(self, position: Position, plan: Plan = PLAN) -> None:
        self.position, self.plan = position, plan
        self.label, self.previous_label = "2", "1"


def shares(position: Position, plan: Plan = PLAN) -> tuple[float, float]:
    """Of the live version and of the new one."""
    route = routes_of(position, plan, SIDES, model="m", epoch=1)
    assert route is not None
    release = cast(Release, Going(position, plan))
    live, new = (share_to_carry(label, route, release) for label in ("1", "2"))
    return live, pytest.approx(new)


def test_without_a_release_by_its_weight() -> None:
    versions = {"1": VersionRoute(weight=0.7), "2": VersionRoute(weight=0.3)}
    route = ControlRecord(model="m", epoch=1, versions=versions)
    assert [share_to_carry(label, route, None) for label in ("1", "2", "3")] == [0.7, 0.3, 0.0]


@pytest.mark.parametrize(
    ("position", "new"),
    [
        (Position(ReleaseState.SCHEDULED), 0.0),
        (Position(ReleaseState.LOADING), 1.0),  # in shadow it sees everything
        (Position(ReleaseState.SHADOW), 1.0),
        (Position(ReleaseState.CANARY, 0), 0.25),
        (Position(ReleaseState.CANARY, 1), 1.0),
        (Position(ReleaseState.PAUSED, 0, ReleaseState.CANARY), 0.25),
        (Position(ReleaseState.BAKE), 1.0),
        (Position(ReleaseState.ROLLING_BACK), 0.0),
    ],
)
def test_new_version_is_ready_for_its_next_step(position: Position, new: float) -> None:
    live, found = shares(position)
    assert live == 1.0  # it may have to take all back at once
    assert found == new


def test_canary_answers_its_share_and_a_part_of_the_rest_twice() -> None:
    plan = Plan(shadow=False, weights=(0.5, 0.51), bake=True)
    assert shares(Position(ReleaseState.CANARY, 0), plan)[1] == 0.5 + 0.5 * MIRROR_SHARE


def test_without_shadow_and_canary_it_takes_all_when_it_is_loaded() -> None:
    plan = Plan(shadow=False, weights=(), bake=False)
    assert shares(Position(ReleaseState.LOADING), plan)[1] == 1.0


@given(st.data())
def test_no_step_asks_for_less_than_it_gives(data: Any) -> None:
    weights = sorted(data.draw(st.lists(st.floats(0.01, 0.99), max_size=3)))
    plan = Plan(data.draw(st.booleans()), tuple(weights), data.draw(st.booleans()))
    states = [ReleaseState.SHADOW, ReleaseState.BAKE] + [ReleaseState.CANARY] * bool(weights)
    state = data.draw(st.sampled_from(states))
    step = data.draw(st.integers(0, len(weights) - 1)) if state is ReleaseState.CANARY else 0
    route = routes_of(Position(state, step), plan, SIDES, model="m", epoch=1)
    assert route is not None
    found = share_to_carry("2", route, cast(Release, Going(Position(state, step), plan)))
    assert route.versions["2"].weight <= found <= 1.0
