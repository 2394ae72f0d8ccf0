"""Copies model directories between file systems, verifying them against the manifest.

``store`` decides where they are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from pydantic import ValidationError

from serve.artifact import MANIFEST_FILE, Manifest, ManifestEntry
from serve.errors import ArtifactAltered, ArtifactMissing

CHUNK_BYTES = 1 << 20
PARTIAL = ".partial-"
# Age from which a partial copy must belong to a killed process; none takes so long.
PARTIAL_AGE_S = 24 * 3600.0


def manifest_at(files: Any, home: str, digest: str) -> Manifest:
    """Return the manifest of a stored directory.

    Raises:
        ArtifactMissing: The manifest does not exist. Not retriable.
        ArtifactAltered: The manifest does not have this digest. Not retriable.
        OSError: Reading failed.
    """
    content = content_at(files, f"{home}/{MANIFEST_FILE}")
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError:
        manifest = None
    if manifest is None or manifest.digest() != digest:
        raise ArtifactAltered(
            f"{home}/{MANIFEST_FILE} does not match digest {digest[:12]}...; register the "
            "version's directory again"
        )
    return manifest


def install(files: Any, home: str, manifest: Manifest, target: Path) -> None:
    """Copy to a directory next to the target and rename it when it is complete.

    Args:
        home: Path of the directory in ``files``.
        target: Target directory, which must not exist or must be empty.
    Raises:
        ArtifactMissing: A file of the manifest does not exist. Not retriable.
        ArtifactAltered: A file does not match the manifest. Not retriable.
        OSError: Reading or writing failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent)
    with TemporaryDirectory(prefix=PARTIAL, dir=target.parent, ignore_cleanup_errors=True) as made:
        partial = Path(made)
        for name, expected in manifest.files.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            with _source(files, f"{home}/{name}") as source, (partial / name).open("xb") as out:
                found = _copy(source, out)
                out.flush()
                os.fsync(out.fileno())
            require_same(f"{home}/{name}", found, expected)
        (partial / MANIFEST_FILE).write_bytes(content_at(files, f"{home}/{MANIFEST_FILE}"))
        give_name(partial, target)


def give_name(directory: Path, target: Path) -> None:
    """Move a complete directory to its place on the same disk.

    Raises:
        OSError: It cannot be moved there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    try:
        directory.rename(target)
    except OSError:
        if not (target / MANIFEST_FILE).exists():  # another process was faster
            raise


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a folder so that only one thread of one process deletes from it at a time.

    Raises:
        OSError: The folder cannot be locked.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the process ends, however that happens
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Delete the partial copies that killed processes left behind."""
    for left in folder.glob(f"{PARTIAL}*"):
        if time.time() - left.stat().st_mtime > PARTIAL_AGE_S:
            shutil.rmtree(left, ignore_errors=True)


def upload(directory: Path, manifest: Manifest, *, files: Any, home: str) -> None:
    """Copy to a store that cannot rename: the manifest marks it complete, so it goes last.

    Raises:
        ArtifactAltered: A file does not match the manifest. Not retriable.
        OSError: Reading or writing failed.
    """
    for name, expected in manifest.files.items():
        with (directory / name).open("rb") as source, files.open(f"{home}/{name}", "wb") as out:
            found = _copy(source, out)
        require_same(str(directory / name), found, expected)
    files.pipe_file(f"{home}/{MANIFEST_FILE}", (directory / MANIFEST_FILE).read_bytes())


@contextmanager
def _source(files: Any, path: str) -> Iterator[BinaryIO]:
    try:
        opened = files.open(path, "rb")
    except FileNotFoundError as exc:
        raise _missing(path) from exc
    with opened as source:
        yield source


def content_at(files: Any, path: str) -> bytes:
    """Return the content of a file.

    Raises:
        ArtifactMissing: It does not exist. Not retriable.
        OSError: Reading failed.
    """
    try:
        return bytes(files.cat_file(path))
    except FileNotFoundError as exc:
        raise _missing(path) from exc


def _missing(path: str) -> ArtifactMissing:
    return ArtifactMissing(
        f"{path} is not in the artifact store; register the version's directory again"
    )


def _copy(source: BinaryIO, out: BinaryIO) -> ManifestEntry:
    sha256, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        sha256.update(chunk)
        out.write(chunk)
        size += len(chunk)
    return ManifestEntry(sha256=sha256.hexdigest(), bytes=size)


def entry_of(content: bytes) -> ManifestEntry:
    """Return the manifest entry for a file's content."""
    return ManifestEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def require_same(path: str, found: ManifestEntry, expected: ManifestEntry) -> None:
    """Raise ArtifactAltered, with the path, unless both are equal."""
    if found != expected:
        raise ArtifactAltered(
            f"{path} has sha256 {found.sha256[:12]}... and the manifest says "
            f"{expected.sha256[:12]}...; register the version's directory again"
        )


def require_inside(manifest: Manifest, directory: Path) -> None:
    """Raise ArtifactAltered if a file of the manifest is outside of the directory."""
    for name in manifest.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ArtifactAltered(
                f"{directory / MANIFEST_FILE} names {name}, which is outside of the directory; "
                "seal it again"
            )
