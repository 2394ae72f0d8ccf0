"""Storage for the files of versions: a folder, or any store that fsspec supports.

A directory is stored under its digest. Its manifest is written last and deleted first, so a
directory with a manifest is complete. Every byte is verified when it is written and read.
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
        url: URL of the store, without a trailing slash.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        options: Mapping[str, Any] | None = None,
        staging: Path | None = None,
    ) -> None:
        """Open a store without writing to it.

        Args:
            url: A folder, or a URL such as ``s3://bucket/path``. Credentials come from the
                environment, as the protocol's package reads them.
            options: Options for fsspec's file system.
            staging: Folder for uploads in progress to a remote store; None uses the system's
                folder for temporary files.
        Raises:
            StoreUnsupported: The protocol needs a package that is not installed. Not retriable.
            ConfigError: The URL has a password, which the database would store. Not retriable.
        """
        self.url = _absolute(str(url)).rstrip("/")
        self._options = dict(options or {})
        self._files, self._root = opened(self.url, self._options)
        folder = Path(self._root) if _is_local(self._files) else staging
        self._staging = folder or Path(gettempdir())

    def within(self, name: str) -> ArtifactStore:
        """Return the store in a folder of this one."""
        return ArtifactStore(f"{self.url}/{name}", options=self._options, staging=self._staging)

    def put(self, artifact: Artifact, *, move: bool = False) -> str:
        """Store a model directory atomically. Storing it again repairs damage.

        Args:
            move: Move it instead of copying: it is in a folder of ``staged`` and not used again.
        Returns:
            The URI of the stored directory.
        Raises:
            ArtifactError: It changed meanwhile, or names files outside of itself. Not retriable.
            StoreUnavailable: The store cannot be written. Retriable.
        """
        directory = artifact.path
        manifest = Manifest.model_validate_json((directory / MANIFEST_FILE).read_bytes())
        require_inside(manifest, directory)
        home = f"{self._root}/{artifact.digest}"
        with _store_errors(self.url):
            if not self.is_whole(artifact.digest):
                self._write(directory, manifest, home, move=move)
        return f"{self.url}/{artifact.digest}"

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield a temporary folder for an upload; it is deleted at the end.

        If the store is a folder, it is on the same disk, so that uploads need not be copied.

        Raises:
            StoreUnavailable: It cannot be written. Retriable.
        """
        with _store_errors(str(self._staging)):
            self._staging.mkdir(parents=True, exist_ok=True)
            sweep(self._staging)
            with TemporaryDirectory(
                prefix=PARTIAL, dir=self._staging, ignore_cleanup_errors=True
            ) as made:
                yield Path(made)

    def require_space(self, size_bytes: int) -> None:
        """Check that a number of bytes can be staged.

        Raises:
            StoreUnavailable: There is not enough space. Retriable.
        """
        there = next(p for p in (self._staging, *self._staging.parents) if p.exists())
        free = shutil.disk_usage(there).free
        if size_bytes > free:
            raise StoreUnavailable(
                f"there is no space for {size_bytes:,} bytes in {self._staging}, where {free:,} "
                "are free; delete versions or use a larger disk"
            )

    def holds(self, digest: str) -> bool:
        """Return whether a directory exists, without checking the content of its files.

        Raises:
            StoreUnavailable: The store cannot be read. Retriable.
        """
        with _store_errors(self.url):
            self._files.invalidate_cache()  # another process may have deleted it
            return bool(self._files.exists(f"{self._root}/{digest}/{MANIFEST_FILE}"))

    def is_whole(self, digest: str) -> bool:
        """Return whether a directory exists; in a local folder every byte is verified.

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
        """Return a verified copy on this machine; from a folder, the directory itself.

        Args:
            uri: URI returned by ``put`` of this store or another one.
            digest: Expected digest.
            into: Folder for copies of all remote versions; created if missing.
        Returns:
            The artifact, identical to what was sealed. The caller must not change it.
        Raises:
            ArtifactMissing: It or one of its files does not exist. Not retriable.
            ArtifactAltered: The stored copy is damaged; the message names the file. Not retriable.
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
                with _store_errors(str(into)):
                    _delete_damaged(copy)
        self.export(uri, digest, copy)
        return _loaded(copy, digest)

    def export(self, uri: str, digest: str, directory: Path) -> None:
        """Copy to a separate directory, atomically.

        Args:
            directory: Target directory, which must not exist or must be empty.
        Raises:
            ArtifactStoreError: The directory is not empty. Not retriable.
            ArtifactMissing: It or one of its files does not exist. Not retriable.
            ArtifactAltered: The stored copy is damaged; the message names the file. Not retriable.
            StoreUnavailable: The store cannot be read. Retriable.
        """
        files, home = self._located(uri)
        with _store_errors(uri):
            if directory.exists() and any(directory.iterdir()):
                raise ArtifactStoreError(f"{directory} is not empty; name a new directory")
            manifest = manifest_at(files, home, digest)
            install(files, home, manifest, directory)

    def read(self, uri: str, name: str, expected: ManifestEntry) -> bytes:
        """Return the verified content of one file, which must fit into memory.

        Raises:
            ArtifactMissing: The file does not exist. Not retriable.
            ArtifactAltered: The file differs from what was stored. Not retriable.
            StoreUnavailable: The store cannot be read. Retriable.
        """
        files, home = self._located(uri)
        path = f"{home}/{name}"
        with _store_errors(uri):
            content = content_at(files, path)
        require_same(path, entry_of(content), expected)
        return content

    def delete(self, uri: str) -> None:
        """Delete a directory; nothing happens if it does not exist.

        Raises:
            ArtifactStoreError: The URI does not name a stored directory. Not retriable.
            StoreUnavailable: The store cannot be written. Retriable.
        """
        files, home = self._located(uri)
        with _store_errors(uri):
            if files.exists(f"{home}/{MANIFEST_FILE}"):
                files.rm_file(f"{home}/{MANIFEST_FILE}")
            if files.exists(home):
                files.rm(home, recursive=True)

    def _located(self, uri: str) -> tuple[Any, str]:
        """Return the file system and the path of a stored directory."""
        if not DIGEST.fullmatch(PurePosixPath(uri).name):
            raise ArtifactStoreError(f"{uri} does not end in a digest: no version is stored there")
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
    """Return the file system of a URL and the path in it.

    Raises:
        StoreUnsupported: The protocol needs a package that is not installed. Not retriable.
        ConfigError: The URL has a password, which would be stored and shown. Not retriable.
    """
    if urlsplit(url).password is not None:
        raise ConfigError(
            f"the {url.split(':', 1)[0]} URL contains a password; pass it through the environment"
        )
    try:
        files, path = url_to_fs(url, **options)
    except ImportError as exc:
        protocol = url.split("://", 1)[0]
        raise StoreUnsupported(
            f"{url} needs a package for {protocol} that is not installed with bertstream: {exc}"
        ) from exc
    except ValueError as exc:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise StoreUnsupported(f"{url}: {exc}; known protocols: {known}") from exc
    return files, str(path)


def _is_local(files: Any) -> bool:
    return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


@contextmanager
def _store_errors(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(
            f"the artifact store at {place} cannot be used: {exc}; make sure that it is "
            "reachable and writable from here, then try again"
        ) from exc


def _delete_damaged(copy: Path) -> None:
    """Delete a damaged copy, unless another process has replaced it in the meantime."""
    if not copy.exists():
        return
    with exclusive(copy.parent):
        try:
            if copy.exists():
                _loaded(copy, copy.name)
        except ArtifactError as exc:
            logger.warning("%s is damaged and will be written again: %s", copy, exc)
            shutil.rmtree(copy)


def _loaded(directory: Path, digest: str) -> Artifact:
    artifact = load(directory)
    if artifact.digest != digest:
        raise ArtifactAltered(
            f"{directory / MANIFEST_FILE} has digest {artifact.digest[:12]}... instead of "
            f"{digest[:12]}...; register the version's directory again"
        )
    return artifact
