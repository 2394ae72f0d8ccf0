"""Models and versions, for people."""

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
    """The transactions of the registry for one attempt: each begins with the check."""

    def __init__(self, access: Access, actor: Actor, attempt: Attempt) -> None:
        self._access, self._actor, self._attempt = access, actor, attempt

    def begin(self) -> AbstractContextManager[Connection]:
        return self._access.permitted(self._actor, self._attempt)

    def read(self) -> AbstractContextManager[Connection]:
        return self._access.reading(self._actor, self._attempt)


class ModelVerbs:
    """The registry as one person may use it."""

    def __init__(self, access: Access, store: ArtifactStore) -> None:
        self._access, self._store = access, store

    def known(self, actor: Actor, name: str, digest: str, *, size_bytes: int) -> int | None:
        """The version that these bytes are; None where they are to be sent; takes ``register``.

        Args:
            size_bytes: How much would be sent.
        Raises:
            BadModelName, NotAllowed: Not retriable.
            StoreUnavailable: There is no room for it, or the files cannot be read. Retriable.
        """
        found = self._registering(actor, name).known(name, digest)
        if found is None:
            self._store.require_room(size_bytes)
        return found

    def register(
        self, actor: Actor, name: str, archive: Readable, *, size_bytes: int, source: str
    ) -> Registered:
        """Keep a model directory as the next version; takes ``register``.

        Args:
            archive: Of the directory; of ``tar_of``. Not read where the permission is missing.
            size_bytes: Of the archive.
            source: Where it is from.
        Raises:
            BadModelName, NotAllowed, ArtifactError, ArtifactStoreError: Not retriable.
            UploadBroken, StoreUnavailable, DatabaseUnavailable: Retriable.
        """
        registry = self._registering(actor, name)
        self._store.require_room(size_bytes)
        with self._store.staged() as folder:
            directory = folder / name
            unpack(archive, directory)
            # Who sends it is asked for the permission once more when the row is written.
            return registry.register(
                name, directory, author=actor.name, now=self._now(), source=source, move=True
            )

    def all(self, actor: Actor, *, limit: int, after: str = "") -> list[ModelSummary]:
        """Models that the actor may read, by name, those behind ``after``."""
        found = self._registry(actor, Attempt("model.list", None)).models()
        found.sort(key=lambda model: model.name)  # a database may sort as a language does
        readable = (m for m in found if m.name > after and actor.may(Permission.READ, m.name))
        return [summary for summary, _ in zip(readable, range(limit), strict=False)]

    def versions(
        self, actor: Actor, name: str, *, limit: int, before: int | None = None, deleted: bool
    ) -> list[Version]:
        """Versions of a model, the newest first; takes ``read``.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        registry = self._registry(actor, Attempt("version.list", Permission.READ, name))
        return registry.versions(name, limit=limit, before=before, deleted=deleted)

    def show(self, actor: Actor, version: VersionId) -> Version:
        """One version; takes ``read``.

        Raises:
            UnknownVersion, NotAllowed: Not retriable.
        """
        return self._registry(actor, _reading("version.show", version)).show(version)

    def diff(self, actor: Actor, before: VersionId, after: VersionId) -> Diff:
        """What differs between two versions; takes ``read`` on both.

        Raises:
            UnknownVersion, NotAllowed, ArtifactError: Not retriable.
            StoreUnavailable: Retriable.
        """
        with self._access.reading(actor, _reading("version.diff", after)):
            pass
        return self._registry(actor, _reading("version.diff", before)).diff(before, after)

    def export(self, actor: Actor, version: VersionId, into: Path) -> None:
        """Copy the directory of a version, verified; takes ``read``.

        Args:
            into: Must not be there, or be empty. Never a path that came from outside.
        Raises:
            UnknownVersion, NotAllowed, ArtifactError: Not retriable.
            StoreUnavailable: Retriable.
        """
        self._registry(actor, _reading("version.export", version)).export(version, into)

    def delete(self, actor: Actor, version: VersionId, *, reason: str) -> None:
        """Take the files of a version away; takes ``admin``.

        Raises:
            UnknownVersion, NotAllowed, VersionInUse: Not retriable.
            StoreUnavailable: Retriable.
        """
        attempt = Attempt("version.delete", Permission.ADMIN, *version)
        retention = Retention(_PermittedTransactions(self._access, actor, attempt), self._store)
        retention.delete(version, actor=actor.name, now=self._now(), reason=reason)

    def _registering(self, actor: Actor, name: str) -> Registry:
        """The registry, for who may register."""
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
