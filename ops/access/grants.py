"""Grants of permissions, given and revoked; in the caller's transaction.

``permissions`` defines what a grant means, and ``people`` who holds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select

from ops.access.people import active_persons, all_memberships, find
from ops.access.permissions import EVERYTHING, PATTERN, Grant, Kind, Permission, gives, members_of
from ops.errors import Conflict, Invalid, NotFound
from ops.sql.tables import grants, principals


@dataclass(frozen=True, slots=True)
class GrantRow(Grant):
    """A stored grant, with the person who gave it."""

    id: int
    granted_by: str
    created_at: datetime


def require_pattern(pattern: str) -> None:
    """Check that a pattern can match the name of a model.

    Raises:
        Invalid: It cannot match. Not retriable.
    """
    if not re.fullmatch(PATTERN, pattern):
        raise Invalid(
            f"{pattern!r} matches no model: use lower case letters, digits, hyphens and * for any"
        )


def give(
    connection: Connection,
    holder: str,
    permission: Permission,
    pattern: str,
    *,
    by: str,
    now: datetime,
) -> GrantRow:
    """Give a permission.

    Raises:
        NotFound: The holder does not exist. Not retriable.
        Invalid: The pattern cannot match any model. Not retriable.
        Conflict: It has already been given. Not retriable.
    """
    require_pattern(pattern)
    found = find(connection, holder)
    held = page(connection, holder=holder)
    if any((row.permission, row.pattern) == (permission, pattern) for row in held):
        raise Conflict(f"{holder} already has {permission} on {pattern}")
    values = {"principal_id": found.id, "permission": permission, "pattern": pattern}
    made = insert(grants).values(values | {"granted_by": by, "created_at": now})
    number = connection.scalars(made.returning(grants.c.id)).one()
    return GrantRow(holder, found.kind, permission, pattern, number, by, now)


def take(connection: Connection, row: GrantRow) -> None:
    """Revoke a permission.

    Raises:
        Conflict: No person would be left who may give it again. Not retriable.
    """
    connection.execute(delete(grants).where(grants.c.id == row.id))
    require_an_admin(connection)


def find_row(connection: Connection, number: int) -> GrantRow:
    """Return one grant.

    Raises:
        NotFound: No grant has that number. Not retriable.
    """
    row = connection.execute(_grants().where(grants.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no grant {number}; see `bertstream grant list`")
    return _grant_row(row)


def page(
    connection: Connection,
    *,
    holder: str | None = None,
    limit: int | None = None,
    after_id: int = 0,
) -> list[GrantRow]:
    """Return grants with ids above ``after_id``, in order, of one holder or of all."""
    query = _grants().where(grants.c.id > after_id).order_by(grants.c.id)
    if holder is not None:
        query = query.where(principals.c.name == holder)
    return [_grant_row(row) for row in connection.execute(query.limit(limit))]


def held_by(connection: Connection, names: list[str]) -> list[GrantRow]:
    """Return grants held directly by these names, without those of their groups."""
    rows = connection.execute(_grants().where(principals.c.name.in_(names)))
    return [_grant_row(row) for row in rows]


def in_force(connection: Connection) -> list[GrantRow]:
    """Return the grants of all holders that are not disabled."""
    rows = connection.execute(_grants().where(principals.c.disabled_at.is_(None)))
    return [_grant_row(row) for row in rows]


def require_an_admin(connection: Connection) -> None:
    """Check that an active person may still give rights, or the platform is locked permanently.

    Raises:
        Conflict: No person may. Not retriable.
    """
    giving = [
        grant.holder for grant in in_force(connection) if gives(grant, Permission.ADMIN, EVERYTHING)
    ]
    persons = active_persons(connection)
    inside = all_memberships(connection)
    if not any(persons & {holder, *members_of(holder, inside)} for holder in giving):
        raise Conflict(
            "no person would be left as admin of all models; give another person or team admin "
            "on * first"
        )


def _grants() -> Select[Any]:
    return select(grants, principals.c.name, principals.c.kind).join(
        principals, principals.c.id == grants.c.principal_id
    )


def _grant_row(row: Any) -> GrantRow:
    kind, permission = Kind(row.kind), Permission(row.permission)
    return GrantRow(row.name, kind, permission, row.pattern, row.id, row.granted_by, row.created_at)
