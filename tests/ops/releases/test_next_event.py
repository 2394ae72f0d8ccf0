from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from ops.analysis.evidence import CheckResult, StepOutcome, Verdict
from ops.releases.next_event import Condition, DueEvent, ReleaseFacts, due
from ops.releases.state_machine import STEPS, Event, Plan, Position, ReleaseState, after
from ops.serving.readiness import Readiness

# What each state makes of the facts, those that come first before the others. Whatever is not
# here changes nothing.
ORDER = """
draft             rejected=yes:rejected policy_changed=yes:policy_changed gates=yes:gates_passed
draft             gates=no:gates_failed
gated             rejected=yes:rejected policy_changed=yes:policy_changed
gated             approved=yes:approved approved=no:approval_needed
awaiting_approval rejected=yes:rejected policy_changed=yes:policy_changed approved=yes:approved
scheduled         rejected=yes:rejected policy_changed=yes:policy_changed
scheduled         approved=no:approval_voided approved=unknown:- may_go=yes:may_go
loading           rejected=yes:rejected load=fault:load_failed load=ready:loaded
loading           load=late:load_failed
shadow            verdict=passed:step_passed verdict=failed:step_failed
shadow            verdict=inconclusive:step_inconclusive
canary            verdict=passed:step_passed verdict=failed:step_failed
canary            verdict=inconclusive:step_inconclusive
bake              verdict=passed:step_passed verdict=failed:step_failed
bake              verdict=inconclusive:step_inconclusive
paused            verdict=failed:step_failed
rolling_back      restored=yes:restored
"""
ANSWER = {"yes": Condition(True, ("It is so.",)), "no": Condition(False, ("It is not so.",))}
KNOWN: dict[str, dict[str, Any]] = {
    "policy_changed": ANSWER,
    "gates": ANSWER,
    "approved": ANSWER,
    "rejected": ANSWER,
    "may_go": ANSWER,
    "restored": ANSWER,
    "load": {
        "starting": Readiness(ready=False, age_s=180.0),
        "ready": Readiness(ready=True, age_s=200.0),
        "late": Readiness(ready=False, age_s=180.1),
        "fault": Readiness(ready=True, fault="the file is not there"),
    },
    "verdict": {str(outcome): Verdict(outcome, ()) for outcome in StepOutcome},
}
NAMES = [("unknown", *answers) for answers in KNOWN.values()]
PLAN = Plan(True, (0.05, 0.25), True)
PLACES = [
    *(Position(state) for state in ReleaseState if state is not ReleaseState.PAUSED),
    Position(ReleaseState.CANARY, 1),
    *(
        Position(ReleaseState.PAUSED, 0, within)
        for within in [ReleaseState.SCHEDULED, *sorted(STEPS)]
    ),
]


def facts(**said: str) -> ReleaseFacts:
    known = {fact: KNOWN[fact][name] for fact, name in said.items() if name != "unknown"}
    return ReleaseFacts(**known)


def order(state: ReleaseState) -> list[tuple[str, str, Event | None]]:
    """Fact, its value, and what is due then; a hyphen stands for nothing."""
    lines = [line.split() for line in ORDER.strip().splitlines()]
    rules = [rule for head, *rules in lines for rule in rules if head == state]
    parts = [rule.replace("=", ":").split(":") for rule in rules]
    return [(fact, name, None if event == "-" else Event(event)) for fact, name, event in parts]


@pytest.mark.parametrize("position", PLACES, ids=lambda place: f"{place.state}-{place.resume}")
def test_what_is_due_follows_from_the_first_fact_that_matters(position: Position) -> None:
    rules = order(position.state)
    for names in product(*NAMES):
        said = dict(zip(KNOWN, names, strict=True))
        wanted = next((event for fact, name, event in rules if said[fact] == name), None)
        found = due(position, facts(**said))
        assert (found and found.event) == wanted, said


@pytest.mark.parametrize("position", PLACES, ids=lambda place: f"{place.state}-{place.resume}")
def test_what_is_due_always_leads_somewhere(position: Position) -> None:
    for _, _, event in order(position.state):
        assert event is None or after(position, event, PLAN) is not None, event


@pytest.mark.parametrize("state", ReleaseState)
def test_nothing_is_due_where_nothing_is_known(state: ReleaseState) -> None:
    assert due(Position(state), ReleaseFacts()) is None


def test_reasons_and_evidence_come_along() -> None:
    answer = Condition(False, ("accuracy is 0.7.", "It must be 0.8."), {"accuracy": 0.7})
    found = due(Position(ReleaseState.DRAFT), ReleaseFacts(gates=answer))
    assert found == DueEvent(
        Event.GATES_FAILED, "accuracy is 0.7. It must be 0.8.", {"accuracy": 0.7}
    )


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Readiness(ready=True, age_s=41.6), "its replicas answer after 42 s"),
        (Readiness(ready=False, fault="no such file"), "no such file"),
        (
            Readiness(ready=False, age_s=91, deadline_s=90, waiting_for="wants 1 CPU, 0.4 free"),
            "it was not ready within 90 s: wants 1 CPU, 0.4 free",
        ),
        (
            Readiness(ready=False, age_s=91, deadline_s=90),
            "it was not ready within 90 s: no reason reported",
        ),
    ],
)
def test_end_of_loading_says_why(load: Readiness, reason: str) -> None:
    found = due(Position(ReleaseState.LOADING), ReleaseFacts(load=load))
    assert found is not None
    assert found.reason == reason


def test_verdict_brings_its_sentences_and_all_numbers() -> None:
    verdict = Verdict(
        StepOutcome.FAILED,
        (
            CheckResult("records", StepOutcome.PASSED, "600 of 500 records", {"seen": 600}),
            CheckResult("errors", StepOutcome.FAILED, "errors: 21 of 402", {"errors": 21}),
            CheckResult("p99", StepOutcome.FAILED, "p99: 900 ms", {"p99_ms": 900.0}),
        ),
    )
    found = due(Position(ReleaseState.CANARY, 1), ReleaseFacts(verdict=verdict))

    assert found is not None
    assert found.reason == "errors: 21 of 402; p99: 900 ms"
    assert found.evidence == {
        "records": {"outcome": "passed", "sentence": "600 of 500 records", "seen": 600},
        "errors": {"outcome": "failed", "sentence": "errors: 21 of 402", "errors": 21},
        "p99": {"outcome": "failed", "sentence": "p99: 900 ms", "p99_ms": 900.0},
    }
