"""Decides which versions must be kept, and deletes the files of others.

A version is kept while it serves, is in an open release, or could be rolled back to.
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
    """Deletes versions, checking in the same transaction that each is unused."""

    def __init__(self, database: Transactions, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def delete(self, version: VersionId, *, actor: str, now: datetime, reason: str = "") -> None:
        """Delete its files and keep its row. A repeated call deletes what an earlier one left.

        Raises:
            UnknownVersion: The version does not exist. Not retriable.
            VersionInUse: It serves or a rollback could need it, as the message says. Not retriable.
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
        # A separate transaction: files are never deleted before the row is marked, and a version
        # that was registered again meanwhile keeps them.
        with self._database.begin() as connection:
            lock_model(connection, version.model)
            if find(connection, version).deleted_at is not None:
                self._store.delete(found.uri)

    def deletable(self, name: str, *, keep: int) -> list[VersionId]:
        """Return versions that may be deleted, oldest first: neither among the newest nor in use.

        Args:
            keep: Number of the newest versions to keep.
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
    """Return versions that must be kept, each with its reason: serving or needed by a rollback."""
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
    """Return the open release, and the release that introduced each version that serves.

    Rollbacks to a version are skipped, as in ``releases.rollback_target``.
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
