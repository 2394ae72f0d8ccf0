"""Models and their versions: numbered from 1, immutable, identified by the digest of their bytes.

The catalogue is in the database and the files are in an artifact store. Which version serves
and which may be deleted is decided in ``ops.releases``.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import func, select

from ops.catalogue.diff import Described, Diff, compare
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import (
    ModelSummary,
    Registered,
    Version,
    VersionId,
    add_model,
    find,
    require_model,
    version_of,
    write,
)
from ops.errors import BadModelName, StoreUnavailable, UnknownVersion
from ops.sql.database import Transactions
from ops.sql.tables import models, versions
from serve.artifact import (
    CONFIG_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    Artifact,
    GoldenRecord,
    Manifest,
    load,
)
from serve.settings import NAME_PATTERN


class Registry:
    """The catalogue and the files behind it."""

    def __init__(self, database: Transactions, store: ArtifactStore) -> None:
        self._database = database
        self._store = store

    def register(
        self,
        name: str,
        directory: Path,
        *,
        author: str,
        now: datetime,
        source: str | None = None,
        move: bool = False,
    ) -> Registered:
        """Store a model directory as the next version of a model.

        Args:
            source: Origin of the directory; None uses its path.
            move: See ``ArtifactStore.put``.
        Returns:
            Its number; the existing one if the same bytes were registered before. Their files
            are restored if they were deleted or damaged.
        Raises:
            BadModelName: The name is not valid for a model. Not retriable.
            ArtifactError: It is not a sealed model directory. Not retriable.
            StoreUnavailable: The files cannot be stored. Retriable.
            DatabaseUnavailable: The catalogue cannot be written. Retriable.
        """
        if not re.fullmatch(NAME_PATTERN, name):
            raise BadModelName(
                f"{name!r} is not a valid model name: use up to 63 lower case letters, digits and "
                "hyphens, beginning with a letter or digit"
            )
        artifact = load(directory)
        row = _row(artifact) | {"model": name, "author": author, "created_at": now}
        store = self._store.within(name)
        row["uri"] = store.put(artifact, move=move)
        row["source"] = source or str(directory)
        with self._database.begin() as connection:
            add_model(connection, name, author=author, now=now)
            if not store.holds(artifact.digest):  # deleted since
                self._put_again(store, artifact, move=move)
            return write(connection, row)

    def known(self, name: str, digest: str) -> int | None:
        """Return the version of these bytes; None if it is absent, deleted or damaged.

        Raises:
            StoreUnavailable: The files cannot be read. Retriable.
        """
        query = select(versions.c.number).where(
            versions.c.model == name,
            versions.c.digest == digest,
            versions.c.deleted_at.is_(None),
        )
        with self._database.read() as connection:
            number = connection.scalars(query).first()
        return number if number and self._store.within(name).is_whole(digest) else None

    def models(self) -> list[ModelSummary]:
        """Return all models, by name."""
        kept = versions.c.deleted_at.is_(None)
        joined = models.outerjoin(versions, (versions.c.model == models.c.name) & kept)
        columns = (*models.c, func.count(versions.c.number), func.max(versions.c.number))
        query = select(*columns).select_from(joined).group_by(models.c.name)
        with self._database.read() as connection:
            return [ModelSummary(*row) for row in connection.execute(query.order_by("name"))]

    def versions(
        self, name: str, *, limit: int = 50, before: int | None = None, deleted: bool = False
    ) -> list[Version]:
        """Return a page of the versions of a model, newest first.

        Args:
            before: Return numbers below this one, the last of the previous page.
            deleted: Include versions whose files were deleted.
        Raises:
            UnknownVersion: The model does not exist. Not retriable.
        """
        query = select(versions).where(versions.c.model == name).limit(limit)
        if before is not None:
            query = query.where(versions.c.number < before)
        if not deleted:
            query = query.where(versions.c.deleted_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(versions.c.number.desc())).mappings().all()
            if not rows:
                require_model(connection, name)
        return [version_of(row) for row in rows]

    def show(self, version: VersionId) -> Version:
        """Return one version, even a deleted one.

        Raises:
            UnknownVersion: The version does not exist. Not retriable.
        """
        with self._database.read() as connection:
            return find(connection, version)

    def diff(self, before: VersionId, after: VersionId) -> Diff:
        """Return the differences between two versions, of one model or of two.

        Raises:
            UnknownVersion: One does not exist, or its files were deleted. Not retriable.
            ArtifactError: A file of one is missing or altered. Not retriable.
            StoreUnavailable: The files cannot be read. Retriable.
        """
        return compare(self._described(before), self._described(after))

    def export(self, version: VersionId, into: Path) -> None:
        """Copy a version's verified directory to a new or empty directory.

        Raises:
            UnknownVersion: It does not exist, or its files were deleted. Not retriable.
            ArtifactStoreError: The directory is not empty. Not retriable.
            ArtifactError: A file of it is missing or altered. Not retriable.
            StoreUnavailable: The files cannot be read. Retriable.
        """
        kept = self._kept(version)
        self._store.export(kept.uri, kept.digest, into)

    def _put_again(self, store: ArtifactStore, artifact: Artifact, *, move: bool) -> None:
        if move and not artifact.path.exists():
            raise StoreUnavailable(
                f"{artifact.digest[:12]}... was deleted while it was being stored; send it again"
            )
        store.put(artifact, move=move)

    def _kept(self, version: VersionId) -> Version:
        found = self.show(version)
        if found.deleted_at is not None:
            raise UnknownVersion(
                f"the files of {version} were deleted at {found.deleted_at:%Y-%m-%d %H:%M} UTC; "
                "register its directory again to restore them"
            )
        return found

    def _described(self, version: VersionId) -> Described:
        kept = self._kept(version)
        config = orjson.loads(self._store.read(kept.uri, CONFIG_FILE, kept.files[CONFIG_FILE]))
        golden: list[GoldenRecord] = []
        if GOLDEN_FILE in kept.files:
            lines = self._store.read(kept.uri, GOLDEN_FILE, kept.files[GOLDEN_FILE]).splitlines()
            golden = [GoldenRecord.model_validate_json(line) for line in lines if line.strip()]
        return Described(kept.card, config, golden, kept.size_bytes)


def _row(artifact: Artifact) -> dict[str, Any]:
    manifest = Manifest.model_validate_json((artifact.path / MANIFEST_FILE).read_bytes())
    return {
        "digest": artifact.digest,
        "card": artifact.card.model_dump(mode="json"),
        "files": manifest.model_dump(mode="json")["files"],
        "size_bytes": sum(entry.bytes for entry in manifest.files.values()),
    }
