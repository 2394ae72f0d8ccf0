"""Actions of the control API: models and versions."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from ops.access.permissions import Permission
from ops.access.transactions import Access, Actor, Attempt
from ops.catalogue.archive import Readable, unpack
from ops.catalogue.diff import Diff
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import ModelSummary, Registered, Version, VersionId
from ops.errors import BadModelName
from ops.releases.retention import Retention
from serve.settings import NAME_PATTERN


class _PermittedTransactions:
    """Transactions of the registry for one attempt; each begins with the permission check."""

    def __init__(self, access: Access, actor: Actor, attempt: Attempt) -> None:
        self._access, self._actor, self._attempt = access, actor, attempt

    def begin(self) -> AbstractContextManager[Connection]:
        return self._access.permitted(self._actor, self._attempt)

    def read(self) -> AbstractContextManager[Connection]:
        return self._access.reading(self._actor, self._attempt)


class ModelActions:
    """The registry as one person may use it."""

    def __init__(self, access: Access, store: ArtifactStore) -> None:
        self._access, self._store = access, store

    def known(self, actor: Actor, name: str, digest: str, *, size_bytes: int) -> int | None:
        """Return the version with a digest, None if it must be sent; requires ``register``.

        Args:
            size_bytes: Size of the upload.
        Raises:
            BadModelName, NotAllowed: Not retriable.
            StoreUnavailable: The store lacks capacity, or files cannot be read. Retriable.
        """
        found = self._registering(actor, name).known(name, digest)
        if found is None:
            self._store.require_space(size_bytes)
        return found

    def register(
        self, actor: Actor, name: str, archive: Readable, *, size_bytes: int, source: str
    ) -> Registered:
        """Store a model directory as the next version; requires ``register``.

        Args:
            archive: Archive of the directory, by ``tar_of``. Not read without the permission.
            size_bytes: Size of the archive.
            source: Origin of the directory.
        Raises:
            BadModelName, NotAllowed, ArtifactError, ArtifactStoreError: Not retriable.
            UploadBroken, StoreUnavailable, DatabaseUnavailable: Retriable.
        """
        registry = self._registering(actor, name)
        self._store.require_space(size_bytes)
        with self._store.staged() as folder:
            directory = folder / name
            unpack(archive, directory)
            # The sender's permission is checked again when the row is written.
            return registry.register(
                name, directory, author=actor.name, now=self._now(), source=source, move=True
            )

    def all(self, actor: Actor, *, limit: int, after: str = "") -> list[ModelSummary]:
        """Return the models after ``after`` that the actor may read, sorted by name."""
        found = self._registry(actor, Attempt("model.list", None)).models()
        found.sort(key=lambda model: model.name)  # a database may sort by a locale
        readable = (m for m in found if m.name > after and actor.may(Permission.READ, m.name))
        return [summary for summary, _ in zip(readable, range(limit), strict=False)]

    def versions(
        self, actor: Actor, name: str, *, limit: int, before: int | None = None, deleted: bool
    ) -> list[Version]:
        """Return versions of a model, newest first; requires ``read``.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        registry = self._registry(actor, Attempt("version.list", Permission.READ, name))
        return registry.versions(name, limit=limit, before=before, deleted=deleted)

    def show(self, actor: Actor, version: VersionId) -> Version:
        """Return one version; requires ``read``.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        return self._registry(actor, _reading("version.show", version)).show(version)

    def diff(self, actor: Actor, before: VersionId, after: VersionId) -> Diff:
        """Return the differences of two versions; requires ``read`` on both.

        Raises:
            UnknownVersion, NotAllowed, ArtifactError: Not retriable.
            StoreUnavailable: Retriable.
        """
        with self._access.reading(actor, _reading("version.diff", after)):
            pass
        return self._registry(actor, _reading("version.diff", before)).diff(before, after)

    def export(self, actor: Actor, version: VersionId, into: Path) -> None:
        """Copy the directory of a version and verify it; requires ``read``.

        Args:
            into: Directory that does not exist or is empty. Never a path from a request.
        Raises:
            UnknownVersion, NotAllowed, ArtifactError: Not retriable.
            StoreUnavailable: Retriable.
        """
        self._registry(actor, _reading("version.export", version)).export(version, into)

    def delete(self, actor: Actor, version: VersionId, *, reason: str) -> None:
        """Delete the files of a version; requires ``admin``.

        Raises:
            UnknownVersion, NotAllowed, VersionInUse: Not retriable.
            StoreUnavailable: Retriable.
        """
        attempt = Attempt("version.delete", Permission.ADMIN, *version)
        retention = Retention(_PermittedTransactions(self._access, actor, attempt), self._store)
        retention.delete(version, actor=actor.name, now=self._now(), reason=reason)

    def _registering(self, actor: Actor, name: str) -> Registry:
        """Return the registry if the actor may register the model."""
        if not re.fullmatch(NAME_PATTERN, name):
            raise BadModelName(f"{name!r} cannot name a model; see `bertstream models list`")
        attempt = Attempt("version.register", Permission.REGISTER, name)
        with self._access.reading(actor, attempt):
            pass  # before anything is read
        return self._registry(actor, attempt)

    def _registry(self, actor: Actor, attempt: Attempt) -> Registry:
        return Registry(_PermittedTransactions(self._access, actor, attempt), self._store)

    def _now(self) -> datetime:
        return self._access.clock()


def _reading(action: str, version: VersionId) -> Attempt:
    return Attempt(action, Permission.READ, *version)
