"""Approvals: who counts, for whom, and what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.policy.policy import ApprovalRule
from ops.releases.approvals import Approval, Subject, Vote, tally

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUBJECT = Subject(author="ben", version_digest="v" * 64, policy_digest="p" * 64)
RISK = ApprovalRule(team="risk")


def given_by(person: str, *teams: str, minute: int = 0, **other: str) -> Approval:
    approval = Approval(
        *(person, frozenset(teams), Vote(other.pop("decision", "approve"))),
        *(SUBJECT.version_digest, SUBJECT.policy_digest, NOON + timedelta(minutes=minute)),
    )
    return approval._replace(**other)  # type: ignore[arg-type]


def test_without_rules_nothing_is_missing() -> None:
    assert tally((), (), SUBJECT).satisfied


def test_missing_and_satisfied() -> None:
    two = ApprovalRule(team="risk", count=2)
    result = tally([two], [given_by("anna", "risk")], SUBJECT)
    assert (result.satisfied, result.missing, result.counted) == (
        *(False, {"risk": 1}),
        {"risk": ("anna",)},
    )
    assert tally([two], [given_by("anna", "risk"), given_by("carl", "risk")], SUBJECT).satisfied


def test_person_counts_once_however_often_they_approve() -> None:
    rules = [ApprovalRule(team="risk", count=2)]
    approvals = [given_by("anna", "risk", minute=minute) for minute in range(3)]
    assert tally(rules, approvals, SUBJECT).missing == {"risk": 1}


def test_member_of_two_teams_counts_where_needed() -> None:
    rules = [RISK, ApprovalRule(team="legal")]
    approvals = [given_by("anna", "legal", "risk"), given_by("carl", "legal", minute=1)]
    assert tally(rules, approvals, SUBJECT).counted == {"risk": ("anna",), "legal": ("carl",)}
    assert not tally(rules, approvals[:1], SUBJECT).satisfied


@pytest.mark.parametrize(
    ("approval", "reason"),
    [
        (given_by("ben", "risk"), "ben is the author and cannot approve"),
        (given_by("anna", "risk", version_digest="w" * 64), "was for other files (wwwwwwwwwwww"),
        (given_by("anna", "risk", policy_digest="q" * 64), "before the policy changed"),
        (given_by("anna", "sales"), "in none of the teams"),
        (given_by("anna", "risk")._replace(may_approve=False), "anna may no longer approve"),
    ],
)
def test_approval_that_does_not_count_is_told(approval: Approval, reason: str) -> None:
    result = tally([RISK], [approval], SUBJECT)
    assert result.missing == {"risk": 1}
    (void,) = result.void
    assert reason in void.reason


def test_single_rejection_blocks_until_it_is_taken_back() -> None:
    approvals = [given_by("anna", "risk"), given_by("carl", "sales", decision="reject")]
    blocked = tally([RISK], approvals, SUBJECT)
    assert (blocked.satisfied, blocked.missing, blocked.rejected_by) == (False, {}, ("carl",))
    assert tally([RISK], [*approvals, given_by("carl", "risk", minute=1)], SUBJECT).satisfied


def test_author_may_reject() -> None:
    approvals = [given_by("anna", "risk"), given_by("ben", decision="reject")]
    assert tally([RISK], approvals, SUBJECT).rejected_by == ("ben",)


@pytest.mark.parametrize(("person", "team"), [("ben", "risk"), ("carl", "sales")])
def test_who_cannot_approve_can_take_a_rejection_back(person: str, team: str) -> None:
    agreed = given_by("anna", "risk")
    no = given_by(person, team, decision="reject")
    yes = given_by(person, team, minute=1)
    assert tally([RISK], [agreed, no], SUBJECT).rejected_by == (person,)
    assert tally([RISK], [agreed, no, yes], SUBJECT).satisfied
    assert tally([RISK], [no, yes], SUBJECT).missing == {"risk": 1}
    elsewhere = yes._replace(version_digest="w" * 64)
    assert tally([RISK], [agreed, no, elsewhere], SUBJECT).rejected_by == (person,)


def test_rejection_of_who_may_not_approve_any_more_does_not_block() -> None:
    no = given_by("carl", "risk", decision="reject")._replace(may_approve=False)
    result = tally([RISK], [given_by("anna", "risk"), no], SUBJECT)
    assert (result.satisfied, len(result.void)) == (True, 1)


def test_rejection_of_other_files_does_not_block() -> None:
    approvals = [
        given_by("anna", "risk"),
        given_by("carl", "risk", decision="reject", version_digest="w" * 64),
    ]
    result = tally([RISK], approvals, SUBJECT)
    assert result.satisfied
    assert "the rejection of carl was for other files" in result.void[0].reason


def test_new_approval_takes_the_place_of_a_void_one() -> None:
    approvals = [given_by("anna", "risk", policy_digest="q" * 64), given_by("anna", "risk")]
    result = tally([RISK], approvals, SUBJECT)
    assert (result.satisfied, result.void) == (True, ())


def test_rejection_wins_over_an_approval_of_the_same_moment() -> None:
    both = [given_by("anna", "risk", decision="reject"), given_by("anna", "risk")]
    assert tally([RISK], both, SUBJECT).rejected_by == ("anna",)


teams = st.sampled_from(["risk", "legal", "ml"])


@given(
    st.dictionaries(teams, st.integers(1, 2), max_size=3),
    st.dictionaries(st.sampled_from("abcde"), st.frozensets(teams), max_size=5),
)
def test_as_many_count_as_any_assignment_allows(
    needed: dict[str, int], people: dict[str, frozenset[str]]
) -> None:
    rules = [ApprovalRule(team=team, count=count) for team, count in needed.items()]
    approvals = [given_by(person, *sorted(of)) for person, of in people.items()]
    result = tally(rules, approvals, SUBJECT)
    counting = [person for persons in result.counted.values() for person in persons]
    assert len(set(counting)) == len(counting)
    assert all(team in people[p] for team, persons in result.counted.items() for p in persons)
    assert {t: needed[t] - len(p) for t, p in result.counted.items() if needed[t] > len(p)} == (
        result.missing
    )
    best = max(
        sum(min(choice.count(team), needed[team]) for team in needed)
        for choice in product(*([None, *sorted(of)] for of in people.values()))
    )
    assert len(counting) == best
