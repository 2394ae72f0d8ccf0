"""Explanations: what is missing, from whom, until when, and the ways on."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ops.analysis.gates import GateResult
from ops.policy.file import load
from ops.policy.policy import Policy
from ops.releases.approvals import Approval, Vote
from ops.releases.explanation import (
    ROLLBACK,
    ExplainedRelease,
    Explanation,
    Missing,
    Obstacle,
    OpenRelease,
    explain,
)

# A Saturday.
NOW = datetime(2026, 11, 21, 5, tzinfo=ZoneInfo("Europe/Berlin"))
OFFICE = 'windows: {allow: [{cron: "0 9 * * 1-5", duration: 8h, time_zone: Europe/Berlin}]}\n'
RISK = "approvals: [{team: risk, count: 2}]\n"
DAILY = "cadence: {min_interval: 24h}\n"
FACTS = ExplainedRelease(version="4", author="ben", version_digest="v" * 64, gates=(), live="3")


def policy(text: str = "") -> Policy:
    return load("model: sentiment\n" + text, now=NOW)


def approval(person: str, rules: Policy, **other: object) -> Approval:
    digests = (FACTS.version_digest, rules.digest())
    decision = (person, frozenset({"risk"}), Vote.APPROVE)
    return Approval(*decision, *digests, NOW)._replace(**other)  # type: ignore[arg-type]


def obstacles(explanation: Explanation) -> list[Obstacle]:
    return [item.obstacle for item in explanation.missing]


def test_nothing_is_in_the_way() -> None:
    explanation = explain(policy(), FACTS, NOW)
    assert explanation == Explanation(True, ("sentiment@4 may be released now.", ROLLBACK), (), NOW)


def test_gates_that_were_not_judged_yet_are_no_obstacle() -> None:
    explanation = explain(policy(), FACTS._replace(gates=None), NOW)
    assert explanation.may_go
    assert "judged when the release starts" in explanation.sentences[1]


def test_outside_a_window() -> None:
    explanation = explain(policy(OFFICE), FACTS, NOW)
    monday = NOW + timedelta(days=2, hours=4)
    when = "on Monday 09:00 Europe/Berlin (in 2 d 4 h)"
    assert explanation.sentences == (
        "sentiment@4 may not be released now.",
        f"Not now: the next allowed window opens {when}; it is outside every window that allows "
        "it.",
        f"Nothing else is missing: it starts {when}.",
        ROLLBACK,
    )
    assert explanation.missing[0].until == explanation.earliest == monday


def test_policy_may_refuse_instead_of_waiting() -> None:
    explanation = explain(policy(OFFICE + "outside_windows: refuse"), FACTS, NOW)
    told = " ".join(explanation.sentences)
    assert "start it then" in told
    assert "it starts" not in told


def test_window_further_away_is_told_with_its_date() -> None:
    text = 'windows: {allow: [{cron: "0 9 24 12 *", duration: 8h}]}'
    told = " ".join(explain(policy(text), FACTS, NOW).sentences)
    assert "on Thursday 2026-12-24 09:00 UTC (in 33 d 5 h)" in told


def test_cadence() -> None:
    live_at = NOW - timedelta(hours=3)
    explanation = explain(policy(DAILY), FACTS._replace(last_live_at=live_at), NOW)
    assert explanation.missing[0].sentence == (
        "Not now: the last release went live 3 h ago; the policy requires 24 h between "
        "releases, which end in 21 h."
    )
    assert explanation.earliest == NOW + timedelta(hours=21)
    assert explain(
        policy(DAILY), FACTS._replace(last_live_at=NOW - timedelta(hours=24)), NOW
    ).may_go


def test_earliest_is_in_a_window_and_behind_the_interval() -> None:
    monday_at_10 = NOW + timedelta(days=2, hours=5)
    facts = FACTS._replace(last_live_at=monday_at_10 - timedelta(hours=24))
    explanation = explain(policy(OFFICE + DAILY), facts, NOW)
    assert obstacles(explanation) == [Obstacle.CADENCE, Obstacle.WINDOW]
    assert explanation.earliest == monday_at_10


def test_approvals_are_missing_from_people() -> None:
    rules = policy(RISK)
    facts = FACTS._replace(
        approvals=(approval("anna", rules), approval("ben", rules)),
        members={"risk": frozenset({"anna", "ben", "carl", "dora"})},
    )
    explanation = explain(rules, facts, NOW)
    assert explanation.missing[0].sentence == (
        "Missing: 1 approval from team risk (has anna; ben is the author and cannot approve; "
        "carl, dora could)."
    )
    assert explanation.missing[0].from_whom == ("carl", "dora")
    assert "it starts" not in " ".join(explanation.sentences)


def test_team_with_nobody_left_is_told() -> None:
    rules = policy(RISK)
    facts = FACTS._replace(
        approvals=(approval("anna", rules),), members={"risk": frozenset({"anna", "ben"})}
    )
    sentence = explain(rules, facts, NOW).missing[0].sentence
    assert "ben is the author and cannot approve; no other member may approve" in sentence


def test_stale_approval_is_void_and_told() -> None:
    rules = policy(RISK)
    stale = approval("anna", rules, policy_digest="q" * 64)
    explanation = explain(rules, FACTS._replace(approvals=(stale,)), NOW)
    assert "2 approvals from team risk (the approval of anna was given before the policy" in (
        explanation.missing[0].sentence
    )


def test_void_approval_that_is_not_needed_is_told() -> None:
    rules = policy(RISK)
    given = (*(approval(who, rules) for who in ("anna", "carl", "ben")),)
    explanation = explain(rules, FACTS._replace(approvals=given), NOW)
    assert explanation.may_go
    assert "Does not count: ben is the author and cannot approve." in explanation.sentences


def test_rejection() -> None:
    rules = policy()
    no = approval("dora", rules, decision=Vote.REJECT)
    explanation = explain(rules, FACTS._replace(approvals=(no,), may_break_glass=True), NOW)
    sentence = "Rejected by dora, who can withdraw it."
    assert explanation.missing[0] == Missing(Obstacle.REJECTION, sentence, ("dora",))
    assert "glass" not in " ".join(explanation.sentences)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (OFFICE, "the windows"),
        (RISK, "the approvals"),
        (OFFICE + RISK, "the approvals and the windows"),
    ],
)
def test_who_may_break_the_glass_is_told_so(text: str, passed: str) -> None:
    told = " ".join(explain(policy(text), FACTS._replace(may_break_glass=True), NOW).sentences)
    assert f"You may break the glass and bypass {passed}; this needs a reason" in told
    assert "glass" not in " ".join(explain(policy(text), FACTS, NOW).sentences)


def test_failed_gate_is_not_passed_by_breaking_the_glass() -> None:
    gates = (GateResult("labels", True, "Fine.", {}), GateResult("golden", False, "Too few.", {}))
    facts = FACTS._replace(gates=gates, may_break_glass=True)
    explanation = explain(policy(OFFICE), facts, NOW)
    assert obstacles(explanation) == [Obstacle.GATE, Obstacle.WINDOW]
    assert "Gate golden failed: Too few." in explanation.sentences
    assert "glass" not in " ".join(explanation.sentences)


def test_version_that_is_live_and_another_release() -> None:
    live = explain(policy(), FACTS._replace(live="4"), NOW)
    assert live.missing[0].sentence == "sentiment@4 is already live."
    other = FACTS._replace(open_release=OpenRelease("5", "canary"))
    assert "release of sentiment@5 is still open (state canary)" in (
        explain(policy(), other, NOW).missing[0].sentence
    )
    own = FACTS._replace(open_release=OpenRelease("4", "awaiting approval"))
    assert explain(policy(), own, NOW).may_go


def test_everything_at_once_ends_with_the_way_back() -> None:
    facts = FACTS._replace(
        gates=(GateResult("golden", False, "Too few.", {}),),
        last_live_at=NOW,
        open_release=OpenRelease("5", "bake"),
    )
    explanation = explain(policy(OFFICE + RISK + DAILY), facts, NOW)
    assert obstacles(explanation) == [
        *(Obstacle.OPEN_RELEASE, Obstacle.GATE, Obstacle.APPROVAL),
        *(Obstacle.CADENCE, Obstacle.WINDOW),
    ]
    assert explanation.sentences[-1] == ROLLBACK
