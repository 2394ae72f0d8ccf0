"""Counts who has approved a version, and whose approval is missing. Pure.

A decision is bound to the bytes of the version and to the policy, and counts while its person may
approve. Only a person's last such decision counts, for one team only; one that counts for no team
still replaces an earlier one. A single rejection blocks the release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ops.policy.policy import ApprovalRule


class Vote(StrEnum):
    """A person's vote on a version."""

    APPROVE = "approve"
    REJECT = "reject"


class Approval(NamedTuple):
    """A person's decision.

    Attributes:
        teams: Teams that the person is a member of.
        version_digest: Digest of the bytes that were decided on.
        policy_digest: Digest of the policy that was in force.
        at: Time of the decision; aware.
        may_approve: Whether the person has permission to approve now.
    """

    person: str
    teams: frozenset[str]
    decision: Vote
    version_digest: str
    policy_digest: str
    at: datetime
    may_approve: bool = True


class Subject(NamedTuple):
    """The version and policy that need approval.

    Attributes:
        author: Person who registered the version; may reject it but never approve it.
        version_digest: Digest of its bytes.
        policy_digest: Digest of the policy in force.
    """

    author: str
    version_digest: str
    policy_digest: str


class Void(NamedTuple):
    """A decision that does not count, and the reason as a sentence without a full stop."""

    approval: Approval
    reason: str


class ApprovalCount(NamedTuple):
    """State of the approvals of a version.

    Attributes:
        counted: People who count for each team, in the order in which they approved.
        missing: Number of approvals each team still has to give; empty if none is missing.
        rejected_by: People whose rejections block it.
        void: Decisions that do not count.
    """

    counted: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, int]
    rejected_by: tuple[str, ...]
    void: tuple[Void, ...]


def count_approvals(
    rules: Sequence[ApprovalRule], approvals: Iterable[Approval], subject: Subject
) -> ApprovalCount:
    """Count the approvals.

    Args:
        rules: At most one for a team.
        approvals: All decisions that were given, in any order.
    Returns:
        The count; members of several teams count where they are needed.
    """
    teams = frozenset(rule.team for rule in rules)
    ordered = sorted(approvals, key=_moment)
    of_this = [a for a in ordered if _of_another_reason(a, subject) is None]
    last = {a.person: a for a in (*ordered, *of_this)}
    reasons = {a.person: _void_reason(a, subject, teams) for a in last.values()}
    void = tuple(Void(a, reason) for a in last.values() if (reason := reasons[a.person]))
    decisions = [a for a in sorted(last.values(), key=_moment) if reasons[a.person] is None]
    counted = _assigned(rules, [a for a in decisions if a.decision == Vote.APPROVE])
    short = {rule.team: rule.count - len(counted[rule.team]) for rule in rules}
    return ApprovalCount(
        counted=counted,
        missing={team: count for team, count in short.items() if count},
        rejected_by=tuple(a.person for a in decisions if a.decision == Vote.REJECT),
        void=void,
    )


def _moment(approval: Approval) -> tuple[datetime, str, Vote]:
    return approval.at, approval.person, approval.decision


def _of_another_reason(approval: Approval, subject: Subject) -> str | None:
    """Return why a decision does not apply to these bytes under this policy."""
    person, what = approval.person, "approval" if approval.decision == "approve" else "rejection"
    if approval.version_digest != subject.version_digest:
        given, needed = approval.version_digest[:12], subject.version_digest[:12]
        return f"the {what} of {person} was for other files ({given} instead of {needed})"
    if approval.policy_digest != subject.policy_digest:
        return f"the {what} of {person} was given before the policy changed"
    return None


def _void_reason(approval: Approval, subject: Subject, teams: frozenset[str]) -> str | None:
    person = approval.person
    if of_another := _of_another_reason(approval, subject):
        return of_another
    if not approval.may_approve:
        return f"{person} may no longer approve"
    if approval.decision == Vote.APPROVE and person == subject.author:
        return f"{person} is the author and cannot approve"
    if approval.decision == Vote.APPROVE and teams and not approval.teams & teams:
        return f"{person} is in none of the teams that must approve"
    return None


def _assigned(
    rules: Sequence[ApprovalRule], approving: Sequence[Approval]
) -> dict[str, tuple[str, ...]]:
    """Assign as many approvals as possible, each to one team: augmenting path matching."""
    needed = {rule.team: rule.count for rule in rules}
    teams_of = {a.person: sorted(a.teams & needed.keys()) for a in approving}
    holding: dict[str, list[str]] = {team: [] for team in needed}

    def place(person: str, tried: set[str]) -> bool:
        for team in teams_of[person]:
            if team in tried:
                continue
            tried.add(team)
            if len(holding[team]) < needed[team]:
                holding[team].append(person)
                return True
            for other in holding[team]:
                if place(other, tried):
                    holding[team][holding[team].index(other)] = person
                    return True
        return False

    for person in teams_of:
        place(person, set())
    order = list(teams_of)
    return {team: tuple(sorted(people, key=order.index)) for team, people in holding.items()}
