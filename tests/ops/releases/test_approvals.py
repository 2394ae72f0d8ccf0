"""Approvals: who counts, for whom, and what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.policy.policy import ApprovalRule
from ops.releases.approvals import Approval, ApprovalCount, Subject, Vote, count_approvals

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUBJECT = Subject(author="ben", version_digest="v" * 64, policy_digest="p" * 64)
RISK = ApprovalRule(team="risk")


def given_by(person: str, *teams: str, minute: int = 0, **other: str) -> Approval:
    approval = Approval(
        *(person, frozenset(teams), Vote(other.pop("decision", "approve"))),
        *(SUBJECT.version_digest, SUBJECT.policy_digest, NOON + timedelta(minutes=minute)),
    )
    return approval._replace(**other)  # type: ignore[arg-type]


def is_enough(found: ApprovalCount) -> bool:
    return not found.missing and not found.rejected_by


def test_without_rules_nothing_is_missing() -> None:
    assert is_enough(count_approvals((), (), SUBJECT))


def test_missing_and_satisfied() -> None:
    two = ApprovalRule(team="risk", count=2)
    result = count_approvals([two], [given_by("anna", "risk")], SUBJECT)
    assert (is_enough(result), result.missing, result.counted) == (
        *(False, {"risk": 1}),
        {"risk": ("anna",)},
    )
    assert is_enough(
        count_approvals([two], [given_by("anna", "risk"), given_by("carl", "risk")], SUBJECT)
    )


def test_person_counts_once_however_often_they_approve() -> None:
    rules = [ApprovalRule(team="risk", count=2)]
    approvals = [given_by("anna", "risk", minute=minute) for minute in range(3)]
    assert count_approvals(rules, approvals, SUBJECT).missing == {"risk": 1}


def test_member_of_two_teams_counts_where_needed() -> None:
    rules = [RISK, ApprovalRule(team="legal")]
    approvals = [given_by("anna", "legal", "risk"), given_by("carl", "legal", minute=1)]
    assert count_approvals(rules, approvals, SUBJECT).counted == {
        "risk": ("anna",),
        "legal": ("carl",),
    }
    assert not is_enough(count_approvals(rules, approvals[:1], SUBJECT))


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
    result = count_approvals([RISK], [approval], SUBJECT)
    assert result.missing == {"risk": 1}
    (void,) = result.void
    assert reason in void.reason


def test_single_rejection_blocks_until_it_is_taken_back() -> None:
    approvals = [given_by("anna", "risk"), given_by("carl", "sales", decision="reject")]
    blocked = count_approvals([RISK], approvals, SUBJECT)
    assert (is_enough(blocked), blocked.missing, blocked.rejected_by) == (False, {}, ("carl",))
    assert is_enough(
        count_approvals([RISK], [*approvals, given_by("carl", "risk", minute=1)], SUBJECT)
    )


def test_author_may_reject() -> None:
    approvals = [given_by("anna", "risk"), given_by("ben", decision="reject")]
    assert count_approvals([RISK], approvals, SUBJECT).rejected_by == ("ben",)


@pytest.mark.parametrize(("person", "team"), [("ben", "risk"), ("carl", "sales")])
def test_who_cannot_approve_can_take_a_rejection_back(person: str, team: str) -> None:
    agreed = given_by("anna", "risk")
    no = given_by(person, team, decision="reject")
    yes = given_by(person, team, minute=1)
    assert count_approvals([RISK], [agreed, no], SUBJECT).rejected_by == (person,)
    assert is_enough(count_approvals([RISK], [agreed, no, yes], SUBJECT))
    assert count_approvals([RISK], [no, yes], SUBJECT).missing == {"risk": 1}
    elsewhere = yes._replace(version_digest="w" * 64)
    assert count_approvals([RISK], [agreed, no, elsewhere], SUBJECT).rejected_by == (person,)


def test_rejection_of_who_may_not_approve_any_more_does_not_block() -> None:
    no = given_by("carl", "risk", decision="reject")._replace(may_approve=False)
    result = count_approvals([RISK], [given_by("anna", "risk"), no], SUBJECT)
    assert (is_enough(result), len(result.void)) == (True, 1)


def test_rejection_of_other_files_does_not_block() -> None:
    approvals = [
        given_by("anna", "risk"),
        given_by("carl", "risk", decision="reject", version_digest="w" * 64),
    ]
    result = count_approvals([RISK], approvals, SUBJECT)
    assert is_enough(result)
    assert "the rejection of carl was for other files" in result.void[0].reason


def test_new_approval_takes_the_place_of_a_void_one() -> None:
    approvals = [given_by("anna", "risk", policy_digest="q" * 64), given_by("anna", "risk")]
    result = count_approvals([RISK], approvals, SUBJECT)
    assert (is_enough(result), result.void) == (True, ())


def test_rejection_wins_over_an_approval_of_the_same_moment() -> None:
    both = [given_by("anna", "risk", decision="reject"), given_by("anna", "risk")]
    assert count_approvals([RISK], both, SUBJECT).rejected_by == ("anna",)


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
    result = count_approvals(rules, approvals, SUBJECT)
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
