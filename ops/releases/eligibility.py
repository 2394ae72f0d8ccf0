"""Reads the facts that ``explanation`` needs about a version that is to be released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, select, tuple_

from ops.access import grants, people
from ops.access.permissions import (
    Grant,
    Membership,
    Permission,
    decide,
    gives,
    groups_of,
    members_of,
)
from ops.catalogue.versions import VersionId, find, number_of
from ops.errors import UnknownVersion
from ops.policy import store as policy_store
from ops.policy.policy import Policy
from ops.releases.approvals import Approval, ApprovalCount, Subject, Vote, count_approvals
from ops.releases.explanation import ExplainedRelease, OpenRelease
from ops.releases.releases import Release, last_live_at, open_of
from ops.releases.routes import live_label
from ops.sql.tables import approvals, principals, releases, versions


def facts_of(
    connection: Connection, policy: Policy, version: VersionId, *, may_break_glass: bool
) -> ExplainedRelease:
    """Read all that decides whether a version may be released.

    Args:
        policy: Policy in force for its model.
        may_break_glass: Whether the caller may break the glass.
    Raises:
        UnknownVersion: The version does not exist, or its files were deleted. Not retriable.
    """
    row = find(connection, version)
    if row.deleted_at is not None:
        raise UnknownVersion(
            f"the files of {version} were deleted; register its directory again to restore them"
        )
    members = approvers(connection, policy)
    live = live_label(connection, version.model)
    going_on = open_of(connection, version.model)
    if going_on is not None and going_on.version == version.number:
        going_on = None  # a version's own release does not block it
    return ExplainedRelease(
        version=str(version.number),
        author=row.author,
        version_digest=row.digest,
        approvals=_approvals(connection, version),
        members=members,
        live=None if live is None else str(number_of(live)),
        last_live_at=last_live_at(connection, version.model),
        open_release=None
        if going_on is None
        else OpenRelease(str(going_on.version), going_on.position.state),
        may_break_glass=may_break_glass,
    )


def approvers(connection: Connection, policy: Policy) -> dict[str, frozenset[str]]:
    """Return the members of each team in the policy who have permission to approve."""
    inside, held = people.all_memberships(connection), grants.in_force(connection)
    persons = people.active_persons(connection)
    return {
        rule.team: frozenset(
            person
            for person in persons & members_of(rule.team, inside)
            if decide(
                person, groups_of(person, inside), held, Permission.APPROVE, policy.model
            ).allowed
        )
        for rule in policy.approvals
    }


def _approvals(connection: Connection, version: VersionId) -> list[Approval]:
    """Return all decisions on a version, across all of its releases."""
    of_version = (releases.c.model == version.model) & (releases.c.version == version.number)
    query = _decisions(approvals, releases.c.model).where(of_version)
    inside, held = people.all_memberships(connection), _held(connection)
    return [_approval(row, inside, held) for row in connection.execute(query)]


def _held(connection: Connection) -> Mapping[str, Sequence[Grant]]:
    """Return grants by holder, so that each decision need not scan all of them."""
    held: dict[str, list[Grant]] = {}
    for grant in grants.in_force(connection):
        held.setdefault(grant.holder, []).append(grant)
    return held


def _decisions(*columns: Any) -> Select[Any]:
    """Select decisions in order; none by a disabled person counts, not even a rejection."""
    return (
        select(*columns)
        .select_from(approvals)
        .join(releases, releases.c.id == approvals.c.release_id)
        .join(principals, principals.c.name == approvals.c.person)
        .where(approvals.c.voided_at.is_(None), principals.c.disabled_at.is_(None))
        .order_by(approvals.c.id)
    )


def _approval(
    row: Any, inside: Sequence[Membership], held: Mapping[str, Sequence[Grant]]
) -> Approval:
    groups = groups_of(row.person, inside)
    own = (grant for name in (row.person, *groups) for grant in held.get(name, ()))
    return Approval(
        person=row.person,
        teams=frozenset(groups),
        decision=Vote(row.decision),
        version_digest=row.version_digest,
        policy_digest=row.policy_digest,
        at=row.at,
        may_approve=any(gives(grant, Permission.APPROVE, row.model) for grant in own),
    )


class Standing(NamedTuple):
    """State of a release's approvals under the policy in force."""

    policy: Policy
    approvals_count: ApprovalCount


def standings_of(connection: Connection, waiting: Sequence[Release]) -> dict[int, Standing]:
    """Return the state of each release's approvals, in five queries for any number of releases."""
    if not waiting:
        return {}
    kept = policy_store.all_in_force(connection, [release.model for release in waiting])
    number = tuple_(versions.c.model, versions.c.number)
    keys = [(release.model, release.version) for release in waiting]
    own = select(versions.c.model, versions.c.number, versions.c.author).where(number.in_(keys))
    authors = {(row.model, row.number): row.author for row in connection.execute(own)}
    of_these = tuple_(releases.c.model, releases.c.version).in_(keys)
    given = _decisions(approvals, releases.c.model, releases.c.version).where(of_these)
    inside, held = people.all_memberships(connection), _held(connection)
    decisions: dict[tuple[str, int], list[Approval]] = {}
    for row in connection.execute(given):
        decisions.setdefault((row.model, row.version), []).append(_approval(row, inside, held))
    found = {}
    for release, key in zip(waiting, keys, strict=True):
        in_force = kept.get(release.model)
        policy = in_force.policy() if in_force else Policy(model=release.model)
        subject = Subject(authors[key], release.version_digest, policy.digest())
        counted = count_approvals(policy.approvals, decisions.get(key, ()), subject)
        found[release.id] = Standing(policy, counted)
    return found
