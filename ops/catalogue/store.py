"""Where the files of versions are kept: a folder, or any store that fsspec reaches.

A directory is kept under its digest. Its manifest is written last and taken away first, so
what has a manifest is whole. Every byte is compared with the manifest on its way in and out.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, gettempdir
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.core import url_to_fs

from ops.catalogue.transfer import (
    PARTIAL,
    content_at,
    entry_of,
    exclusive,
    give_name,
    install,
    manifest_at,
    require_inside,
    require_same,
    sweep,
    upload,
)
from ops.errors import ArtifactStoreError, ConfigError, StoreUnavailable, StoreUnsupported
from serve.artifact import MANIFEST_FILE, Artifact, Manifest, ManifestEntry, load
from serve.errors import ArtifactAltered, ArtifactError

DIGEST = re.compile(r"[0-9a-f]{64}")

logger = logging.getLogger(__name__)


class ArtifactStore:
    """Model directories under one URL, each named by its digest.

    Attributes:
        url: Without a slash at its end.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        options: Mapping[str, Any] | None = None,
        staging: Path | None = None,
    ) -> None:
        """Describe it; nothing is written yet.

        Args:
            url: A folder, or ``s3://bucket/path`` and the like. Credentials come from the
                environment, as the protocol's package reads them.
            options: Of fsspec's file system.
            staging: Holds what is on its way into a store that is no folder; None takes the
                system's place for temporary files.
        Raises:
            StoreUnsupported: The protocol needs a package that is not installed. Not retriable.
            ConfigError: The URL holds a password, which would stand in the database. Not retriable.
        """
        self.url = _absolute(str(url)).rstrip("/")
        self._options = dict(options or {})
        self._files, self._root = opened(self.url, self._options)
        folder = Path(self._root) if _is_local(self._files) else staging
        self._staging = folder or Path(gettempdir())

    def within(self, name: str) -> ArtifactStore:
        """The store in a folder of this one."""
        return ArtifactStore(f"{self.url}/{name}", options=self._options, staging=self._staging)

    def put(self, artifact: Artifact, *, move: bool = False) -> str:
        """Keep a model directory: whole or not at all. Keeping it again repairs what is damaged.

        Args:
            move: It lies in a folder of ``staged`` and nobody else needs it.
        Returns:
            The URI that names it from now on.
        Raises:
            ArtifactError: It changed meanwhile, or leads outside of itself. Not retriable.
            StoreUnavailable: The store cannot be written. Retriable.
        """
        directory = artifact.path
        manifest = Manifest.model_validate_json((directory / MANIFEST_FILE).read_bytes())
        require_inside(manifest, directory)
        home = f"{self._root}/{artifact.digest}"
        with _told(self.url):
            if not self.is_whole(artifact.digest):
                self._write(directory, manifest, home, move=move)
        return f"{self.url}/{artifact.digest}"

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder for what is on its way; taken away at the end.

        On the disk of a store that is a folder, so that what has arrived need not be copied.

        Raises:
            StoreUnavailable: It cannot be written. Retriable.
        """
        with _told(str(self._staging)):
            self._staging.mkdir(parents=True, exist_ok=True)
            sweep(self._staging)
            with TemporaryDirectory(
                prefix=PARTIAL, dir=self._staging, ignore_cleanup_errors=True
            ) as made:
                yield Path(made)

    def require_room(self, size_bytes: int) -> None:
        """See that so much can be staged.

        Raises:
            StoreUnavailable: It cannot. Retriable.
        """
        there = next(p for p in (self._staging, *self._staging.parents) if p.exists())
        free = shutil.disk_usage(there).free
        if size_bytes > free:
            raise StoreUnavailable(
                f"there is no room for {size_bytes:,} bytes in {self._staging}, where {free:,} are "
                "free; delete versions, or give it a larger disk"
            )

    def holds(self, digest: str) -> bool:
        """Whether a directory is there; what its files hold is not looked at.

        Raises:
            StoreUnavailable: The store cannot be read. Retriable.
        """
        with _told(self.url):
            self._files.invalidate_cache()  # another process may have taken it away
            return bool(self._files.exists(f"{self._root}/{digest}/{MANIFEST_FILE}"))

    def is_whole(self, digest: str) -> bool:
        """As ``holds``; in a folder every byte is looked at.

        Raises:
            StoreUnavailable: The store cannot be read. Retriable.
        """
        if not _is_local(self._files):
            return self.holds(digest)
        try:
            return load(Path(self._root) / digest).digest == digest
        except ArtifactError:
            return False

    def fetch(self, uri: str, digest: str, into: Path) -> Artifact:
        """A verified copy on this machine; from a folder, the directory itself.

        Args:
            uri: Of ``put``, of this store or another one.
            digest: Which it must have.
            into: Holds the copies of all remote versions; made where it is missing.
        Returns:
            The artifact; every byte is what was sealed. The caller must not change it.
        Raises:
            ArtifactMissing: It is not there, or a file of it. Not retriable.
            ArtifactAltered: The copy in the store is damaged; names the file. Not retriable.
            StoreUnavailable: The store cannot be read. Retriable.
        """
        files, home = self._located(uri)
        if _is_local(files):
            return _loaded(Path(home), digest)
        copy = into / digest
        if copy.exists():
            try:
                return _loaded(copy, digest)
            except ArtifactError:
                with _told(str(into)):
                    _delete_damaged(copy)
        self.export(uri, digest, copy)
        return _loaded(copy, digest)

    def export(self, uri: str, digest: str, directory: Path) -> None:
        """Copy to a directory of one's own, whole or not at all.

        Args:
            directory: Must not be there, or be empty.
        Raises:
            ArtifactStoreError: The directory is not empty. Not retriable.
            ArtifactMissing: It is not there, or a file of it. Not retriable.
            ArtifactAltered: The copy in the store is damaged; names the file. Not retriable.
            StoreUnavailable: The store cannot be read. Retriable.
        """
        files, home = self._located(uri)
        with _told(uri):
            if directory.exists() and any(directory.iterdir()):
                raise ArtifactStoreError(f"{directory} is not empty; name a new directory")
            manifest = manifest_at(files, home, digest)
            install(files, home, manifest, directory)

    def read(self, uri: str, name: str, expected: ManifestEntry) -> bytes:
        """One file, verified; for those that fit into memory.

        Raises:
            ArtifactMissing: It is not there. Not retriable.
            ArtifactAltered: It is not what was kept. Not retriable.
            StoreUnavailable: The store cannot be read. Retriable.
        """
        files, home = self._located(uri)
        path = f"{home}/{name}"
        with _told(uri):
            content = content_at(files, path)
        require_same(path, entry_of(content), expected)
        return content

    def delete(self, uri: str) -> None:
        """Take it away; nothing happens where it is not there.

        Raises:
            ArtifactStoreError: The URI names no kept directory. Not retriable.
            StoreUnavailable: The store cannot be written. Retriable.
        """
        files, home = self._located(uri)
        with _told(uri):
            if files.exists(f"{home}/{MANIFEST_FILE}"):
                files.rm_file(f"{home}/{MANIFEST_FILE}")
            if files.exists(home):
                files.rm(home, recursive=True)

    def _located(self, uri: str) -> tuple[Any, str]:
        """The file system and the path of a kept directory."""
        if not DIGEST.fullmatch(PurePosixPath(uri).name):
            raise ArtifactStoreError(f"{uri} does not end in a digest: no version is kept there")
        own = uri.startswith(f"{self.url}/")
        return opened(uri, self._options if own else {})

    def _write(self, directory: Path, manifest: Manifest, home: str, *, move: bool) -> None:
        if not _is_local(self._files):
            upload(directory, manifest, files=self._files, home=home)
            return
        _delete_damaged(Path(home))
        if move:
            give_name(directory, Path(home))
        else:
            install(self._files, directory.resolve().as_posix(), manifest, Path(home))


def _absolute(url: str) -> str:
    return url if "://" in url else Path(url).expanduser().resolve().as_uri()


def opened(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system that a URL names, and the path there.

    Raises:
        StoreUnsupported: The protocol needs a package that is not installed. Not retriable.
        ConfigError: The URL holds a password, which would be kept and shown. Not retriable.
    """
    if urlsplit(url).password is not None:
        raise ConfigError(
            f"the {url.split(':', 1)[0]} URL holds a password; give it through the environment"
        )
    try:
        files, path = url_to_fs(url, **options)
    except ImportError as exc:
        protocol = url.split("://", 1)[0]
        raise StoreUnsupported(
            f"{url} needs a package that is not installed beside bertstream for {protocol}: {exc}"
        ) from exc
    except ValueError as exc:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise StoreUnsupported(f"{url}: {exc}; known are {known}") from exc
    return files, str(path)


def _is_local(files: Any) -> bool:
    return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


@contextmanager
def _told(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(
            f"the artifact store at {place} cannot be used: {exc}; see that it can be reached "
            "and written from here, then try again"
        ) from exc


def _delete_damaged(copy: Path) -> None:
    """Make way for a whole copy, unless somebody else has put one there in the meantime."""
    if not copy.exists():
        return
    with exclusive(copy.parent):
        try:
            if copy.exists():
                _loaded(copy, copy.name)
        except ArtifactError as exc:
            logger.warning("%s is damaged and is written again: %s", copy, exc)
            shutil.rmtree(copy)


def _loaded(directory: Path, digest: str) -> Artifact:
    artifact = load(directory)
    if artifact.digest != digest:
        raise ArtifactAltered(
            f"{directory / MANIFEST_FILE} is that of {artifact.digest[:12]}... and not of "
            f"{digest[:12]}...; register the version's directory again"
        )
    return artifact
