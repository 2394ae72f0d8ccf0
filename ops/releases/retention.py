"""Which versions must stay, and how the files of the others are deleted.

A version stays while it serves, is in an open release, or could be rolled back to.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId, find, lock_model, mark_deleted, number_of
from ops.errors import VersionInUse
from ops.releases.state_machine import ReleaseState
from ops.sql.database import Transactions
from ops.sql.tables import releases, routes, versions
from stream.schema import ControlRecord


class Retention:
    """Deletes versions, each in a transaction with what forbids it."""

    def __init__(self, database: Transactions, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def delete(self, version: VersionId, *, actor: str, now: datetime, reason: str = "") -> None:
        """Take its files away; its row stays. Once more takes away what was left the first time.

        Raises:
            UnknownVersion: There is none of that number. Not retriable.
            VersionInUse: It serves, or a rollback could need it; says which. Not retriable.
            StoreUnavailable: Its files are still there. Retriable.
        """
        with self._database.begin() as connection:
            lock_model(connection, version.model)
            found = find(connection, version)
            why = in_use(connection, version.model).get(version.number)
            if why is not None:
                raise VersionInUse(f"{version} cannot be deleted: {why}")
            if found.deleted_at is None:
                mark_deleted(connection, found, actor=actor, now=now, reason=reason)
        # In a transaction of its own: the files never go before the row says so, and a version
        # that was registered again meanwhile keeps them.
        with self._database.begin() as connection:
            lock_model(connection, version.model)
            if find(connection, version).deleted_at is not None:
                self._store.delete(found.uri)

    def retirable(self, name: str, *, keep: int) -> list[VersionId]:
        """Versions that may be deleted, oldest first: not among the newest and not in use.

        Args:
            keep: How many of the newest stay.
        """
        query = select(versions.c.number).where(
            versions.c.model == name, versions.c.deleted_at.is_(None)
        )
        with self._database.read() as connection:
            numbers = connection.scalars(query.order_by(versions.c.number.desc())).all()
            used = in_use(connection, name)
        return [
            VersionId(name, number) for number in reversed(numbers[keep:]) if number not in used
        ]


def in_use(connection: Connection, name: str) -> dict[int, str]:
    """Versions that must stay, each with the reason: they serve, or a rollback could need them."""
    used: dict[int, str] = {}
    record = connection.scalars(select(routes.c.record).where(routes.c.model == name)).first()
    served = {} if record is None else ControlRecord.model_validate(record).versions
    for version, route in served.items():
        number = number_of(version)
        if number is not None:
            used[number] = f"it serves, with weight {route.weight:g}"
    for row in _releases_in_force(connection, name, list(served)):
        if row.ended_at is None:
            used.setdefault(row.version, f"release {row.id} of it is open; abort that one first")
        if row.previous is not None:
            used.setdefault(row.previous, f"a rollback of {name}@{row.version} goes back to it")
    return used


def _releases_in_force(connection: Connection, name: str, serving: list[str]) -> list[Any]:
    """The open release, and the one that brought each version that serves.

    Not one that went back to it: ``releases.rollback_target`` looks behind those.
    """
    newest = (
        select(func.max(releases.c.id))
        .where(releases.c.model == name, releases.c.label.in_(serving))
        .where(releases.c.state.in_([ReleaseState.LIVE, ReleaseState.SUPERSEDED]))
        .where(releases.c.is_rollback.is_(False))
        .group_by(releases.c.label)
    )
    query = select(releases.c.id, releases.c.version, releases.c.previous, releases.c.ended_at)
    in_force = releases.c.ended_at.is_(None) | releases.c.id.in_(newest)
    return list(connection.execute(query.where(releases.c.model == name, in_force)))
