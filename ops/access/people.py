"""Persons, teams and departments, and who is in which; in the caller's transaction.

Whether somebody may change them is ``access``'s affair.
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
# They stand in the ledger for parts of the platform.
RESERVED = frozenset(("operator", "platform", "bertstream", "up"))
# Of PostgreSQL's advisory locks; any number that no other program takes.
RIGHTS_LOCK = 0x62657275


@dataclass(frozen=True, slots=True)
class Principal:
    """A person, team or department.

    Attributes:
        disabled_at: None while it counts.
    """

    id: int
    name: str
    kind: Kind
    created_at: datetime
    disabled_at: datetime | None


def lock_rights(connection: Connection, *, to_change: bool) -> None:
    """Let nobody's rights change before this transaction ends.

    Take it before every other lock. Without it a change could stand in the ledger behind the
    row that takes away the right to make it.

    Args:
        connection: Of a transaction that writes; on SQLite that one is alone anyway.
        to_change: Whether this transaction is to change rights; then it is alone.
    """
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock if to_change else func.pg_advisory_xact_lock_shared
        connection.execute(select(lock(RIGHTS_LOCK)))


def add(connection: Connection, name: str, kind: Kind, *, now: datetime) -> Principal:
    """Make a principal.

    Raises:
        Invalid: It cannot be named so. Not retriable.
        Conflict: There is one of that name. Not retriable.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name in RESERVED:
        reserved = ", ".join(sorted(RESERVED))
        raise Invalid(
            f"{name!r} cannot name a {kind}: lower case letters, digits and . _ @ + -, 63 at most, "
            f"a letter or digit first; and not {reserved}"
        )
    found = connection.execute(_principals().where(principals.c.name == name)).one_or_none()
    if found is not None:
        state = "" if found.disabled_at is None else ", disabled; it can be enabled again"
        raise Conflict(f"there is a {found.kind} {name} already{state}")
    values = {"name": name, "kind": kind, "created_at": now}
    connection.execute(insert(principals).values(values))
    return find(connection, name)


def find(connection: Connection, name: str) -> Principal:
    """A principal, disabled or not.

    Raises:
        NotFound: There is none of that name. Not retriable.
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
    """Principals by name, those behind ``after``."""
    query = _principals().where(principals.c.kind.in_(kinds), principals.c.name > after)
    rows = connection.execute(query.order_by(principals.c.name).limit(limit))
    return [_principal(row) for row in rows]


def disable(connection: Connection, name: str, *, now: datetime) -> None:
    """Have a principal count for nothing: its tokens and grants stay and do not help.

    Raises:
        NotFound: There is none of that name. Not retriable.
        Conflict: It is disabled already. Not retriable.
    """
    if find(connection, name).disabled_at is not None:
        raise Conflict(f"{name} is disabled already")
    this = principals.c.name == name
    connection.execute(update(principals).where(this).values(disabled_at=now))


def enable(connection: Connection, name: str) -> None:
    """Have a disabled principal count again.

    Raises:
        NotFound: There is none of that name. Not retriable.
        Conflict: It is not disabled. Not retriable.
    """
    if find(connection, name).disabled_at is None:
        raise Conflict(f"{name} is not disabled")
    connection.execute(update(principals).where(principals.c.name == name).values(disabled_at=None))


def join(connection: Connection, member: str, group: str) -> None:
    """Put a principal into a group.

    Raises:
        NotFound: One is not there. Not retriable.
        Conflict: It is in there. Not retriable.
        Invalid: The group cannot hold it, or is in it. Not retriable.
    """
    inner, outer = find(connection, member), find(connection, group)
    there = all_memberships(connection, also_disabled=True)
    if Membership(member, group) in there:
        raise Conflict(f"{member} is in {group} already")
    refused = refusal_of((member, inner.kind), (group, outer.kind), there)
    if refused is not None:
        raise Invalid(refused)
    values = {"member_id": inner.id, "group_id": outer.id}
    connection.execute(insert(memberships).values(values))


def leave(connection: Connection, member: str, group: str) -> None:
    """Take a principal out of a group.

    Raises:
        NotFound: One is not there, or not in the other. Not retriable.
    """
    inner, outer = find(connection, member), find(connection, group)
    this = (memberships.c.member_id == inner.id) & (memberships.c.group_id == outer.id)
    if not connection.execute(delete(memberships).where(this)).rowcount:
        raise NotFound(f"{member} is not in {group}")


def all_memberships(connection: Connection, *, also_disabled: bool = False) -> list[Membership]:
    """Who is in which group; of those alone that are not disabled, unless asked otherwise."""
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
    """Every step from a principal up through its groups; none through one that is disabled."""
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
    """The persons in a group, also through groups within it; none who is disabled."""
    return active_persons(connection) & members_of(group, all_memberships(connection))


def active_persons(connection: Connection) -> frozenset[str]:
    """Names of all persons who are not disabled."""
    active = principals.c.disabled_at.is_(None) & (principals.c.kind == Kind.PERSON)
    return frozenset(connection.scalars(select(principals.c.name).where(active)))


def is_empty(connection: Connection) -> bool:
    """Whether there is nobody yet."""
    return connection.scalars(select(principals.c.id).limit(1)).first() is None


def _principals() -> Select[Any]:
    return select(*(principals.c[field.name] for field in fields(Principal)))


def _principal(row: Any) -> Principal:
    return Principal(row.id, row.name, Kind(row.kind), row.created_at, row.disabled_at)
