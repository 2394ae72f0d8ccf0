"""Rows of models and versions, read and written in the caller's transaction.

Does not handle files; ``registry`` keeps both consistent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ops.access import ledger
from ops.access.ledger import Entry
from ops.errors import UnknownVersion
from ops.sql.tables import models, versions
from serve.artifact import Manifest, ManifestEntry, ModelCard
from serve.settings import NAME_PATTERN


class VersionId(NamedTuple):
    """A version of a model, written ``sentiment@3``."""

    model: str
    number: int

    @classmethod
    def parse(cls, text: str) -> VersionId:
        """Read ``sentiment@3``.

        Raises:
            UnknownVersion: The text does not have that form. Not retriable.
        """
        name, _, number = text.partition("@")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number) or not re.fullmatch(NAME_PATTERN, name):
            raise UnknownVersion(f"{text!r} is not a version; write it as sentiment@3")
        return cls(name, int(number))

    def __str__(self) -> str:
        return f"{self.model}@{self.number}"


@dataclass(frozen=True, slots=True)
class Registered:
    """Result of registering a directory.

    Attributes:
        existed: Whether the same bytes were already registered under this number.
    """

    model: str
    version: int
    digest: str
    existed: bool


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model and the number of versions kept; ``newest`` is None if there are none."""

    name: str
    created_at: datetime
    created_by: str
    versions: int
    newest: int | None


@dataclass(frozen=True, slots=True)
class Version:
    """A row of the catalogue.

    Attributes:
        uri: URI of its directory in an artifact store.
        files: Files of the directory, by relative path.
        deleted_at: Time of deletion; None while its files are kept.
        source: Place it was registered from.
    """

    model: str
    number: int
    digest: str
    uri: str
    card: ModelCard
    files: Mapping[str, ManifestEntry]
    size_bytes: int
    author: str
    created_at: datetime
    deleted_at: datetime | None
    source: str

    @property
    def id(self) -> VersionId:
        """Return its identifier as people write it."""
        return VersionId(self.model, self.number)


def lock_model(connection: Connection, name: str) -> bool:
    """Lock a model against registration, release and deletion of versions until commit.

    Returns:
        Whether the model exists; if it does not, nothing is locked.
    """
    query = select(models.c.name).where(models.c.name == name).with_for_update()
    return connection.scalars(query).first() is not None


def number_of(label: str) -> int | None:
    """Return the version number in a label, ``3`` or ``3.1``; None if it has none."""
    number = label.partition(".")[0]
    return int(number) if number.isdecimal() else None


def add_model(connection: Connection, name: str, *, author: str, now: datetime) -> None:
    """Create the model if it does not exist, and lock it."""
    if not lock_model(connection, name):
        # Another transaction may be adding it at this moment.
        with suppress(IntegrityError), connection.begin_nested():
            values = {"name": name, "created_at": now, "created_by": author}
            connection.execute(insert(models).values(values))
        lock_model(connection, name)


def write(connection: Connection, row: dict[str, Any]) -> Registered:
    """Insert the version's row, restore it, or return the existing one."""
    of_model = versions.c.model == row["model"]
    same = of_model & (versions.c.digest == row["digest"])
    query = select(versions.c.number, versions.c.deleted_at).where(same)
    found = connection.execute(query).one_or_none()
    if found is not None and found.deleted_at is None:
        return Registered(row["model"], found.number, row["digest"], existed=True)
    if found is not None:
        number, action = found.number, "version.restore"
        connection.execute(update(versions).where(same).values(deleted_at=None, uri=row["uri"]))
    else:
        highest = connection.scalars(select(func.max(versions.c.number)).where(of_model)).one()
        number, action = (highest or 0) + 1, "version.register"
        connection.execute(insert(versions).values(row | {"number": number}))
    entry = Entry(
        at=row["created_at"],
        actor=row["author"],
        action=action,
        model=row["model"],
        version=number,
        version_digest=row["digest"],
        evidence={"source": row["source"], "size_bytes": row["size_bytes"]},
    )
    ledger.append(connection, entry)
    return Registered(row["model"], number, row["digest"], existed=found is not None)


def mark_deleted(
    connection: Connection, version: Version, *, actor: str, now: datetime, reason: str
) -> None:
    """Record the deletion of a version's files in its row and in the ledger."""
    this = (versions.c.model == version.model) & (versions.c.number == version.number)
    connection.execute(update(versions).where(this).values(deleted_at=now))
    entry = Entry(
        at=now,
        actor=actor,
        action="version.delete",
        model=version.model,
        version=version.number,
        reason=reason,
        version_digest=version.digest,
    )
    ledger.append(connection, entry)


def find(connection: Connection, version: VersionId) -> Version:
    """Return the row of a version, deleted or not.

    Raises:
        UnknownVersion: The version does not exist. Not retriable.
    """
    of_model = versions.c.model == version.model
    query = select(versions).where(of_model, versions.c.number == version.number)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        require_model(connection, version.model)
        newest = connection.scalars(select(func.max(versions.c.number)).where(of_model)).one()
        raise UnknownVersion(f"there is no version {version}; the newest is {newest}")
    return version_of(row)


def require_model(connection: Connection, name: str) -> None:
    """Raise UnknownVersion unless the model exists."""
    if connection.scalars(select(models.c.name).where(models.c.name == name)).first() is None:
        raise UnknownVersion(
            f"there is no model {name!r}; see `bertstream models list`, or register it"
        )


def version_of(row: RowMapping) -> Version:
    """Convert a row to a version."""
    card = ModelCard.model_validate(row["card"])
    files = Manifest.model_validate({"files": row["files"]}).files
    return Version(**{**row, "card": card, "files": files})
