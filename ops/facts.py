"""What is known of a version that is to go out, read for ``explanation``."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ops import grants, people
from ops.approvals import Approval, Decision
from ops.catalogue import VersionId, find, number_of
from ops.explanation import Facts, OpenRelease
from ops.permissions import Permission, decide, groups_of, members_of
from ops.policy import Policy
from ops.releases import last_live_at, live_label, open_of
from ops.tables import approvals, releases


def facts_of(
    connection: Connection, policy: Policy, version: VersionId, *, may_break_glass: bool
) -> Facts:
    """Read all that decides whether a version may go out.

    Args:
        policy: In force for its model.
        may_break_glass: Whether whoever asks has that right.
    Raises:
        UnknownVersion: There is no such version. Not retriable.
    """
    row = find(connection, version)
    members = approvers(connection, policy)
    live = live_label(connection, version.model)
    going_on = open_of(connection, version.model)
    if going_on is not None and going_on.version == version.number:
        going_on = None  # its own is not in its way
    return Facts(
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
    """Of each team that the policy names, who is in it and has the permission to approve."""
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
    """All decisions on a version, whichever release they were given for."""
    of_version = (releases.c.model == version.model) & (releases.c.version == version.number)
    query = (
        select(approvals)
        .join(releases, releases.c.id == approvals.c.release_id)
        .where(of_version, approvals.c.voided_at.is_(None))
        .order_by(approvals.c.id)
    )
    inside = people.all_memberships(connection)
    return [
        Approval(
            person=row.person,
            teams=frozenset(groups_of(row.person, inside)) | {row.team},
            decision=Decision(row.decision),
            version_digest=row.version_digest,
            policy_digest=row.policy_digest,
            at=row.at,
        )
        for row in connection.execute(query)
    ]
