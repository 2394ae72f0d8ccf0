"""Chooses the event that is due for a release, from the facts known about it; pure.

The operator gathers the facts and asks at every tick; people's commands are handled elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ops.analysis.evidence import StepOutcome, Verdict
from ops.releases.state_machine import Event, Position, ReleaseState, allowed
from ops.serving.readiness import Readiness


class Condition(NamedTuple):
    """A yes-or-no answer found elsewhere, with its reasons as sentences."""

    yes: bool
    reasons: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = {}


class ReleaseFacts(NamedTuple):
    """Facts about a release; None where unknown, or not needed in its state.

    Attributes:
        policy_changed: Whether the policy in force differs from the one used for the gates.
        gates: Whether all gates passed.
        approved: Whether all required approvals were given.
        rejected: Whether any person has rejected it.
        may_go: Whether window and cadence allow it now.
        load: Readiness of the replicas.
        verdict: Verdict on the step, from the evidence since it began.
        report: Where both versions answered differently since then, for the ledger.
        restored: Whether every consumer follows the restored route.
    """

    policy_changed: Condition | None = None
    gates: Condition | None = None
    approved: Condition | None = None
    rejected: Condition | None = None
    may_go: Condition | None = None
    load: Readiness | None = None
    verdict: Verdict | None = None
    report: Mapping[str, Any] | None = None
    restored: Condition | None = None


class DueEvent(NamedTuple):
    """An event with its reason and the numbers behind it."""

    event: Event
    reason: str
    evidence: Mapping[str, Any] = {}


def due(position: Position, facts: ReleaseFacts) -> DueEvent | None:
    """Return the event that is due; None if none is."""
    if facts.rejected and facts.rejected.yes and Event.REJECTED in allowed(position):
        return _by(Event.REJECTED, facts.rejected)
    changed = facts.policy_changed
    if changed and changed.yes and Event.POLICY_CHANGED in allowed(position):
        return _by(Event.POLICY_CHANGED, changed)
    match position.state:
        case ReleaseState.DRAFT:
            return _either(facts.gates, Event.GATES_PASSED, Event.GATES_FAILED)
        case ReleaseState.GATED:
            return _either(facts.approved, Event.APPROVED, Event.APPROVAL_NEEDED)
        case ReleaseState.AWAITING_APPROVAL:
            return _either(facts.approved, Event.APPROVED, None)
        case ReleaseState.SCHEDULED:
            if facts.approved is None or not facts.approved.yes:
                return _either(facts.approved, None, Event.APPROVAL_VOIDED)
            return _either(facts.may_go, Event.MAY_GO, None)
        case ReleaseState.LOADING:
            return _loading(facts.load)
        case ReleaseState.SHADOW | ReleaseState.CANARY | ReleaseState.BAKE:
            return _judged(facts)
        case ReleaseState.PAUSED:
            found = _judged(facts)
            return found if found and found.event is Event.STEP_FAILED else None
        case ReleaseState.ROLLING_BACK:
            return _either(facts.restored, Event.RESTORED, None)
        case _:
            return None


def _either(answer: Condition | None, if_yes: Event | None, if_no: Event | None) -> DueEvent | None:
    if answer is None:
        return None
    event = if_yes if answer.yes else if_no
    return None if event is None else _by(event, answer)


def _by(event: Event, answer: Condition) -> DueEvent:
    return DueEvent(event, " ".join(answer.reasons), answer.evidence)


def _loading(load: Readiness | None) -> DueEvent | None:
    if load is None:
        return None
    if load.fault is not None:
        return DueEvent(Event.LOAD_FAILED, load.fault)
    if load.ready:
        return DueEvent(Event.LOADED, f"its replicas answer after {load.age_s:.0f} s")
    if load.age_s > load.deadline_s:
        lacking = load.waiting_for or "no reason reported"
        return DueEvent(
            Event.LOAD_FAILED, f"it was not ready within {load.deadline_s:g} s: {lacking}"
        )
    return None


_BY_OUTCOME = {
    StepOutcome.PASSED: Event.STEP_PASSED,
    StepOutcome.FAILED: Event.STEP_FAILED,
    StepOutcome.INCONCLUSIVE: Event.STEP_INCONCLUSIVE,
}


def _judged(facts: ReleaseFacts) -> DueEvent | None:
    verdict = facts.verdict
    event = _BY_OUTCOME.get(verdict.outcome) if verdict else None
    if verdict is None or event is None:
        return None
    findings: dict[str, Any] = {
        found.check: {"outcome": str(found.outcome), "sentence": found.sentence, **found.evidence}
        for found in verdict.findings
    }
    if facts.report:
        findings["disagreements"] = dict(facts.report)
    return DueEvent(event, "; ".join(verdict.reasons), findings)
