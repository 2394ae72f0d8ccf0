"""Persons, teams and departments, and their memberships; in the caller's transaction.

``transactions`` checks whether the caller may change them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from ops.access.permissions import Kind, Membership, members_of, refusal_of
from ops.errors import Conflict, Invalid, NotFound
from ops.sql.tables import memberships, principals

# Lower case: names that differ in their case alone are hard to tell apart.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._@+-]{0,62}$"
# The ledger uses these names for parts of the platform.
RESERVED = frozenset(("operator", "platform", "bertstream", "up"))
# Key of a PostgreSQL advisory lock; any number that no other program uses.
RIGHTS_LOCK = 0x62657275


@dataclass(frozen=True, slots=True)
class Principal:
    """A person, team or department.

    Attributes:
        disabled_at: Time at which it was disabled; None while it is active.
    """

    id: int
    name: str
    kind: Kind
    created_at: datetime
    disabled_at: datetime | None


def lock_rights(connection: Connection, *, to_change: bool) -> None:
    """Prevent changes of rights until this transaction ends.

    Take this lock before every other one. Without it a change could follow, in the ledger, the
    row that removes the right to make it.

    Args:
        connection: Connection of a writing transaction; on SQLite only one runs at a time anyway.
        to_change: Whether this transaction changes rights; the lock is then exclusive.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if to_change else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(RIGHTS_LOCK)))


def add(connection: Connection, name: str, kind: Kind, *, now: datetime) -> Principal:
    """Create a principal.

    Raises:
        Invalid: The name is not valid. Not retriable.
        Conflict: The name is already in use. Not retriable.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED:
        reserved = ", ".join(sorted(RESERVED))
        raise Invalid(
            f"{name!r} is not a valid name of a {kind}: use up to 63 lower case letters, digits "
            f"and . _ @ + -, beginning with a letter or digit; and not {reserved}"
        )
    found = connection.execute(_principals().where(principals.c.name == name)).one_or_none()
    if found is not None:
        state = "" if found.disabled_at is None else ", disabled; it can be enabled again"
        raise Conflict(f"there is already a {found.kind} {name}{state}")
    values = {"name": name, "kind": kind, "created_at": now}
    connection.execute(insert(principals).values(values))
    return find(connection, name)


def find(connection: Connection, name: str) -> Principal:
    """Return a principal, disabled or not.

    Raises:
        NotFound: No principal has that name. Not retriable.
    """
    row = connection.execute(_principals().where(principals.c.name == name)).one_or_none()
    if row is None:
        raise NotFound(
            f"there is no person, team or department {name!r}; see `bertstream people list` and "
            "`bertstream team list`"
        )
    return _principal(row)


def page(
    connection: Connection, *, kinds: tuple[Kind, ...], limit: int, after: str = ""
) -> list[Principal]:
    """Return principals by name, those after ``after``."""
    query = _principals().where(principals.c.kind.in_(kinds), principals.c.name > after)
    rows = connection.execute(query.order_by(principals.c.name).limit(limit))
    return [_principal(row) for row in rows]


def disable(connection: Connection, name: str, *, now: datetime) -> None:
    """Disable a principal: its tokens and grants are kept but have no effect.

    Raises:
        NotFound: No principal has that name. Not retriable.
        Conflict: It is already disabled. Not retriable.
    """
    if find(connection, name).disabled_at is not None:
        raise Conflict(f"{name} is already disabled")
    this = principals.c.name == name
    connection.execute(update(principals).where(this).values(disabled_at=now))


def enable(connection: Connection, name: str) -> None:
    """Enable a disabled principal.

    Raises:
        NotFound: No principal has that name. Not retriable.
        Conflict: It is not disabled. Not retriable.
    """
    if find(connection, name).disabled_at is None:
        raise Conflict(f"{name} is not disabled")
    connection.execute(update(principals).where(principals.c.name == name).values(disabled_at=None))


def join(connection: Connection, member: str, group: str) -> None:
    """Add a principal to a group.

    Raises:
        NotFound: One of them does not exist. Not retriable.
        Conflict: It is already a member. Not retriable.
        Invalid: The group cannot have it as a member, or is in it. Not retriable.
    """
    inner, outer = find(connection, member), find(connection, group)
    there = all_memberships(connection, also_disabled=True)
    if Membership(member, group) in there:
        raise Conflict(f"{member} is already in {group}")
    refused = refusal_of((member, inner.kind), (group, outer.kind), there)
    if refused is not None:
        raise Invalid(refused)
    values = {"member_id": inner.id, "group_id": outer.id}
    connection.execute(insert(memberships).values(values))


def leave(connection: Connection, member: str, group: str) -> None:
    """Remove a principal from a group.

    Raises:
        NotFound: One of them does not exist, or is not in the other. Not retriable.
    """
    inner, outer = find(connection, member), find(connection, group)
    this = (memberships.c.member_id == inner.id) & (memberships.c.group_id == outer.id)
    if not connection.execute(delete(memberships).where(this)).rowcount:
        raise NotFound(f"{member} is not in {group}")


def all_memberships(connection: Connection, *, also_disabled: bool = False) -> list[Membership]:
    """Return memberships of principals that are not disabled, or of all."""
    member, group = principals.alias("member"), principals.alias("outer")
    query = (
        select(member.c.name, group.c.name)
        .select_from(memberships)
        .join(member, member.c.id == memberships.c.member_id)
        .join(group, group.c.id == memberships.c.group_id)
        .order_by(member.c.name, group.c.name)
    )
    if not also_disabled:
        query = query.where(member.c.disabled_at.is_(None), group.c.disabled_at.is_(None))
    return [Membership(*row) for row in connection.execute(query)]


def memberships_above(connection: Connection, name: str) -> list[Membership]:
    """Return the memberships from a principal up through its groups, except disabled ones."""
    steps = (
        select(memberships.c.member_id, memberships.c.group_id)
        .join(principals, principals.c.id == memberships.c.member_id)
        .where(principals.c.name == name)
        .cte("steps", recursive=True)
    )
    outer = principals.alias("outer")
    further = (
        select(memberships.c.member_id, memberships.c.group_id)
        .join(steps, memberships.c.member_id == steps.c.group_id)
        .join(outer, outer.c.id == memberships.c.member_id)
        .where(outer.c.disabled_at.is_(None))
    )
    steps = steps.union(further)
    member, group = principals.alias("member"), principals.alias("holder")
    query = (
        select(member.c.name, group.c.name)
        .select_from(steps)
        .join(member, member.c.id == steps.c.member_id)
        .join(group, group.c.id == steps.c.group_id)
        .where(group.c.disabled_at.is_(None))
        .order_by(member.c.name, group.c.name)
    )
    return [Membership(*row) for row in connection.execute(query)]


def members(connection: Connection, group: str) -> frozenset[str]:
    """Return the active persons in a group, also through groups within it."""
    return active_persons(connection) & members_of(group, all_memberships(connection))


def active_persons(connection: Connection) -> frozenset[str]:
    """Return the names of all persons who are not disabled."""
    active = principals.c.disabled_at.is_(None) & (principals.c.kind == Kind.PERSON)
    return frozenset(connection.scalars(select(principals.c.name).where(active)))


def is_empty(connection: Connection) -> bool:
    """Return whether there are no principals yet."""
    return connection.scalars(select(principals.c.id).limit(1)).first() is None


def _principals() -> Select[Any]:
    return select(*(principals.c[field.name] for field in fields(Principal)))


def _principal(row: Any) -> Principal:
    return Principal(row.id, row.name, Kind(row.kind), row.created_at, row.disabled_at)
