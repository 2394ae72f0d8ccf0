from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.analysis.limits import MIRROR_SHARE
from ops.releases.state_machine import (
    ENDED,
    STEPS,
    Event,
    Plan,
    Position,
    ReleaseState,
    Sides,
    after,
    allowed,
    asked,
    candidate_weight,
    needs_candidate,
    routes_of,
)
from stream.schema import ControlRecord

# The way of a release that meets no trouble, by the plan that it follows.
WAYS = {
    "loading shadow canary[0] canary[1] bake live": Plan(True, (0.05, 0.25), True),
    "loading shadow canary[0] canary[1] live": Plan(True, (0.05, 0.25), False),
    "loading shadow bake live": Plan(True, (), True),
    "loading shadow live": Plan(True, (), False),
    "loading canary[0] canary[1] canary[2] bake live": Plan(False, (0.01, 0.1, 0.5), True),
    "loading canary[0] live": Plan(False, (0.05,), False),
    "loading bake live": Plan(False, (), True),
    "loading live": Plan(False, (), False),
}
# Every answer there is. STEP stands for each step of a plan, NEXT for what follows it there.
ANSWERS = """
draft             gates_passed:gated gates_failed:aborted rejected:aborted abort:aborted
draft             policy_changed:draft
gated             approval_needed:awaiting_approval approved:scheduled rejected:aborted
gated             abort:aborted policy_changed:draft
awaiting_approval approved:scheduled approval_voided:awaiting_approval rejected:aborted
awaiting_approval abort:aborted policy_changed:draft
scheduled         may_go:loading approval_voided:awaiting_approval rejected:aborted abort:aborted
scheduled         pause:paused@scheduled policy_changed:draft
paused@scheduled  resume:scheduled step_failed:aborted abort:aborted rollback:aborted
loading           loaded:NEXT load_failed:aborted rejected:aborted abort:aborted rollback:aborted
STEP              step_passed:NEXT step_failed:rolling_back step_inconclusive:paused@STEP
STEP              pause:paused@STEP promote:NEXT abort:rolling_back rollback:rolling_back
paused@STEP       resume:STEP promote:NEXT step_failed:rolling_back abort:rolling_back
paused@STEP       rollback:rolling_back
rolling_back      restored:rolled_back step_failed:rolling_back abort:rolling_back
rolling_back      rollback:rolling_back
live              supersede:superseded
rolled_back
aborted
superseded
"""
SIDES = Sides("2", "3", {"2": "b" * 64, "3": "c" * 64})
FIRST = Sides(None, "3", {"3": "c" * 64})
FULL = Plan(True, (0.05, 0.25), True)
BACKWARDS = {Position(ReleaseState.ROLLING_BACK), Position(ReleaseState.ROLLED_BACK)}
BACK = (Event.ROLLBACK, Event.ABORT, Event.STEP_FAILED)

plans = st.builds(
    Plan,
    shadow=st.booleans(),
    weights=st.sets(st.floats(0.001, 0.999), max_size=4).map(sorted).map(tuple),
    bake=st.booleans(),
)


def position(name: str) -> Position:
    """``canary[1]`` or ``paused@canary[1]``."""
    if name.startswith("paused@"):
        within = position(name.removeprefix("paused@"))
        return Position(ReleaseState.PAUSED, within.step, within.state)
    state, step = re.fullmatch(r"(\w+)(?:\[(\d)\])?", name).groups(default="0")  # type: ignore[union-attr]
    return Position(ReleaseState(state), int(step))


def expected(way: str) -> dict[Position, dict[Event, Position]]:
    """``ANSWERS`` for one plan."""
    names = way.split()
    table: dict[Position, dict[Event, Position]] = {}
    for line in ANSWERS.strip().splitlines():
        head, *answers = line.split()
        for step in names[1:-1] if "STEP" in head else ["loading"]:
            following = names[names.index(step) + 1]
            row = table.setdefault(position(head.replace("STEP", step)), {})
            for answer in answers:
                event, target = answer.split(":")
                row[Event(event)] = position(
                    target.replace("STEP", step).replace("NEXT", following)
                )
    return table


def walk(plan: Plan, data: st.DataObject) -> Iterator[tuple[Position, Event, Position]]:
    """Moves of a release to which anything happens that can."""
    here = Position(ReleaseState.DRAFT)
    # Most events end a release early: the walk begins anywhere on the way to a step.
    for event in data.draw(st.sampled_from([(), TO_LOADING, (*TO_LOADING, Event.LOADED)])):
        here = onward(here, event, plan)
    for _ in range(12):
        if not allowed(here):
            return
        event = data.draw(st.sampled_from(allowed(here)))
        reached = onward(here, event, plan)
        yield here, event, reached
        here = reached


TO_LOADING = (Event.GATES_PASSED, Event.APPROVED, Event.MAY_GO)


def onward(here: Position, event: Event, plan: Plan) -> Position:
    reached = after(here, event, plan)
    assert reached is not None
    return reached


def route(here: Position, plan: Plan, sides: Sides = SIDES) -> ControlRecord:
    """The route of a position, as who reads the control topic sees it."""
    record = routes_of(here, plan, sides, model="sentiment", epoch=7)
    assert record is not None
    assert (record.model, record.epoch) == ("sentiment", 7)
    return ControlRecord.model_validate_json(record.to_bytes())


def weights(record: ControlRecord) -> dict[str, float]:
    return {version: share.weight for version, share in record.versions.items()}


@pytest.mark.parametrize(("way", "plan"), WAYS.items())
def test_every_event_has_its_answer_in_every_state(way: str, plan: Plan) -> None:
    for here, answers in expected(way).items():
        found = {event: after(here, event, plan) for event in Event}
        assert found == {event: answers.get(event) for event in Event}, here
        assert set(allowed(here)) == set(answers), here
        by_people = {"pause", "resume", "promote", "abort", "rollback"}
        assert set(asked(here)) == by_people & set(answers), here


@pytest.mark.parametrize(("way", "plan"), WAYS.items())
def test_every_place_of_the_table_can_be_reached_and_no_other(way: str, plan: Plan) -> None:
    seen, open_ = set(), [Position(ReleaseState.DRAFT)]
    while open_:
        here = open_.pop()
        seen.add(here)
        reached = {after(here, event, plan) for event in Event} - seen - {None}
        open_ += [place for place in reached if place is not None]
    # Without a step there is nothing to roll back.
    never = set() if plan.shadow or plan.weights or plan.bake else BACKWARDS
    assert seen == set(expected(way)) - never


@pytest.mark.parametrize("state", ReleaseState)
def test_what_is_over_stays_so(state: ReleaseState) -> None:
    takes = {event for event in Event if after(Position(state), event, FULL)}
    over = {ReleaseState.LIVE: {Event.SUPERSEDE}}.get(state, set())
    assert (takes == over) == (state in ENDED)


@given(plans, st.data())
def test_weight_moves_by_one_step_of_the_plan_or_back_to_nothing(
    plan: Plan, data: st.DataObject
) -> None:
    ladder = [0.0, *plan.weights, 1.0]
    for here, event, reached in walk(plan, data):
        before, now = candidate_weight(here, plan), candidate_weight(reached, plan)
        if reached.state in {ReleaseState.ROLLING_BACK, ReleaseState.SUPERSEDED}:
            assert now == 0.0
        elif event in {Event.STEP_PASSED, Event.PROMOTE, Event.LOADED}:
            assert now == before or now == ladder[ladder.index(before) + 1]
        else:
            assert now == before


@given(plans, st.data())
def test_paused_release_goes_on_exactly_where_it_was(plan: Plan, data: st.DataObject) -> None:
    for here, _, paused in walk(plan, data):
        if paused.state is ReleaseState.PAUSED:
            assert after(paused, Event.RESUME, plan) == here
            assert candidate_weight(paused, plan) == candidate_weight(here, plan)
            assert needs_candidate(paused) == needs_candidate(here)
            assert route(paused, plan) == route(here, plan)
            assert after(paused, Event.PROMOTE, plan) == after(here, Event.PROMOTE, plan)


@given(plans, st.data(), st.sampled_from(BACK))
def test_one_event_leads_back_from_wherever_it_answers(
    plan: Plan, data: st.DataObject, event: Event
) -> None:
    for _, _, here in walk(plan, data):
        if here.state in ENDED:
            continue
        if "3" in route(here, plan).versions:
            back = onward(here, event, plan)
            assert back.state is ReleaseState.ROLLING_BACK
            assert weights(route(back, plan)) == {"2": 1.0}
            # The replicas stay until nobody follows the old route any more.
            assert needs_candidate(back)
            over = onward(back, Event.RESTORED, plan)
            assert (over.state, needs_candidate(over)) == (ReleaseState.ROLLED_BACK, False)
            assert route(over, plan) == route(back, plan)


@given(plans, st.data())
def test_every_route_is_one_that_the_stream_can_follow(plan: Plan, data: st.DataObject) -> None:
    for _, _, here in walk(plan, data):
        if here.state is ReleaseState.SUPERSEDED:
            continue
        record = route(here, plan)
        assert sum(weights(record).values()) == pytest.approx(1, abs=1e-12)
        assert {version: share.digest for version, share in record.versions.items()}.items() <= (
            SIDES.digests.items()
        )
        assert weights(record).get("3", 0.0) == candidate_weight(here, plan)
        if "3" in record.versions:
            assert needs_candidate(here)
        # Two versions only while a step compares them; the live one then catches what fails.
        in_step = (here.resume or here.state) in STEPS
        assert (set(record.versions) == {"2", "3"}) == in_step
        assert record.fallback == ("2" if in_step else None)
        assert (record.shadow is not None) == in_step


@pytest.mark.parametrize(
    ("name", "shares", "shadow", "shadow_share"),
    [
        ("draft", {"2": 1.0}, None, 1.0),
        ("loading", {"2": 1.0}, None, 1.0),
        ("shadow", {"2": 1.0, "3": 0.0}, "3", 1.0),
        ("canary[0]", {"2": 0.95, "3": 0.05}, "3", MIRROR_SHARE),
        ("canary[1]", {"2": 0.75, "3": 0.25}, "3", MIRROR_SHARE),
        ("paused@canary[1]", {"2": 0.75, "3": 0.25}, "3", MIRROR_SHARE),
        ("paused@scheduled", {"2": 1.0}, None, 1.0),
        # The old version answers again what the new one did: it is measured and stays warm.
        ("bake", {"2": 0.0, "3": 1.0}, "2", MIRROR_SHARE),
        ("live", {"3": 1.0}, None, 1.0),
        ("rolling_back", {"2": 1.0}, None, 1.0),
        ("aborted", {"2": 1.0}, None, 1.0),
    ],
)
def test_traffic_of_each_state(
    name: str, shares: dict[str, float], shadow: str | None, shadow_share: float
) -> None:
    record = route(position(name), FULL)
    assert weights(record) == pytest.approx(shares)
    assert (record.shadow, record.shadow_share) == (shadow, shadow_share)


def test_what_another_has_followed_asks_for_no_route() -> None:
    over = Position(ReleaseState.SUPERSEDED)
    assert routes_of(over, FULL, SIDES, model="sentiment", epoch=1) is None
    assert not needs_candidate(over)


def test_first_version_answers_nothing_before_it_is_live() -> None:
    plan = WAYS["loading live"]
    here = Position(ReleaseState.DRAFT)
    for event in (*TO_LOADING, Event.LOADED):
        assert routes_of(here, plan, FIRST, model="sentiment", epoch=1) is None
        here = onward(here, event, plan)
    record = route(here, plan, FIRST)
    assert (weights(record), record.fallback, record.shadow) == ({"3": 1.0}, None, None)


@pytest.mark.parametrize("event", BACK)
def test_pause_before_it_loaded_ends_as_if_it_had_never_begun(event: Event) -> None:
    paused = onward(Position(ReleaseState.SCHEDULED), Event.PAUSE, FULL)
    assert after(paused, event, FULL) == Position(ReleaseState.ABORTED)
    assert after(paused, Event.PROMOTE, FULL) is None
    assert Event.PROMOTE not in allowed(paused)


@given(st.floats(0.001, 0.999))
@settings(max_examples=30)
def test_shares_add_up_for_any_weight(weight: float) -> None:
    record = route(Position(ReleaseState.CANARY), Plan(True, (weight,), True))
    assert weights(record)["3"] == weight
