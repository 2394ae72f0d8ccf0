"""Model directories as tar archives, packed and unpacked as a stream.

The manifest goes first, so that the receiver knows what to expect of every file. Python's own
filters for archive members came with 3.11.4, and its reader loads headers of any size into
memory: this module reads plain files under short names, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from pydantic import ValidationError

from ops.errors import ArtifactStoreError, StoreUnavailable
from serve.artifact import CACHE_DIR, MANIFEST_FILE, Manifest, ManifestEntry
from serve.errors import ArtifactAltered

CHUNK_BYTES = 1 << 20
BLOCK = tarfile.BLOCKSIZE
FILE_MODE = 0o644
# A plain header cannot hold the size of a larger file.
PLAIN_MAX_BYTES = 8 << 30
MAX_FILES = 10_000
MAX_MANIFEST_BYTES = 4 << 20
# Limit for one component of a path, on every common file system.
MAX_STEP_BYTES = 255

Opened = Callable[[str], AbstractContextManager[IO[bytes]]]


class Readable(Protocol):
    """Source from which an archive is read."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""


def tar_of(sizes: Mapping[str, int], opened: Opened) -> Iterator[bytes]:
    """Pack files into an archive; equal files give equal bytes.

    Args:
        sizes: Size of each file in bytes, by its name; in the order of the archive.
        opened: Opens the content of a file by its name.
    Raises:
        ArtifactStoreError: A name is too long. Not retriable.
        ArtifactAltered: A file does not have the given size. Not retriable.
    """
    for name, size in sizes.items():
        yield _header_of(name, size)
        with opened(name) as file:
            yield from _content(name, file, size)
        yield bytes(-size % BLOCK)
    yield bytes(2 * BLOCK)


def sizes_of(document: bytes) -> dict[str, int]:
    """Return the size of each file in a model directory's archive, in archive order.

    Args:
        document: Content of its manifest.
    Raises:
        ArtifactStoreError: It is invalid, or names a file that is not allowed. Not retriable.
    """
    files = _manifest_of(document).files
    return {MANIFEST_FILE: len(document)} | {name: files[name].bytes for name in sorted(files)}


def tar_bytes(sizes: Mapping[str, int]) -> int:
    """Return the size in bytes of an archive of such files."""
    return sum(BLOCK + size + -size % BLOCK for size in sizes.values()) + 2 * BLOCK


def unpack(source: Readable, directory: Path) -> None:
    """Unpack a model directory: the files of the leading manifest, and nothing else.

    Args:
        directory: Target directory, which must be empty if it exists.
    Raises:
        ArtifactStoreError: It is truncated, not an archive, or holds a file that is not in the
            manifest. Not retriable.
        ArtifactAltered: A file does not match the manifest. Not retriable.
        StoreUnavailable: A file cannot be written. Retriable.
    """
    manifest = _manifest(source, directory)
    missing = dict(manifest.files)
    while (entry := _header(source)) is not None:
        expected = missing.pop(entry.name, None)
        if expected is None:
            raise _refused(f"{entry.name!r} occurs twice, or is not in its {MANIFEST_FILE}")
        _write(source, entry, directory, expected)
    if missing:
        raise _refused(f"it ends without {min(missing)!r}, which its {MANIFEST_FILE} names")
    while rest := source.read(CHUNK_BYTES):
        if rest.strip(b"\0"):
            raise _refused("there is data after its end")


def _header_of(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, FILE_MODE
    is_plain = size < PLAIN_MAX_BYTES
    try:
        header = entry.tobuf(
            tarfile.USTAR_FORMAT if is_plain else tarfile.GNU_FORMAT, "utf-8", "strict"
        )
    except ValueError as exc:
        raise ArtifactStoreError(f"{name!r} cannot be sent: {exc}; give it a shorter name") from exc
    if len(header) > BLOCK:
        raise ArtifactStoreError(f"{name!r} cannot be sent: give it a shorter name")
    return header


def _content(name: str, file: IO[bytes], size: int) -> Iterator[bytes]:
    left = size
    while chunk := file.read(min(CHUNK_BYTES, left + 1)):
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise ArtifactAltered(f"{name} had {size:,} bytes and is being changed; seal it again")


def _manifest(source: Readable, directory: Path) -> Manifest:
    entry = _header(source)
    if entry is None or entry.name != MANIFEST_FILE:
        raise _refused(f"its first file is not {MANIFEST_FILE}")
    if not 0 < entry.size <= MAX_MANIFEST_BYTES:
        raise _refused(f"a {MANIFEST_FILE} has at most {MAX_MANIFEST_BYTES:,} bytes")
    document = b"".join(_payload(source, entry.size))
    manifest = _manifest_of(document)
    _written(directory / MANIFEST_FILE, [document])
    return manifest


def _manifest_of(document: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(document)
    except ValidationError as exc:
        raise _refused(f"its {MANIFEST_FILE} is invalid: {exc.errors()[0]['msg']}") from exc
    _require_plain(manifest)
    return manifest


def _require_plain(manifest: Manifest) -> None:
    """Check that every name is a file in the directory and none is inside another file."""
    if len(manifest.files) > MAX_FILES:
        raise _refused(f"it has more than {MAX_FILES:,} files")
    for name in manifest.files:
        path = PurePosixPath(name)
        is_plain = str(path) == name and not path.is_absolute() and ".." not in path.parts
        if not is_plain or "\0" in name or path.parts[:1] in ((), (CACHE_DIR,), (MANIFEST_FILE,)):
            raise _refused(f"{name!r} is not a valid name of a file in a model directory")
        if any(len(step.encode()) > MAX_STEP_BYTES for step in path.parts):
            raise _refused(f"{name[:80]!r}... is too long for a name")
        if any(str(parent) in manifest.files for parent in path.parents):
            raise _refused(f"{name!r} is inside another file")


def _header(source: Readable) -> tarfile.TarInfo | None:
    """Return the next header; None at the end."""
    block = _exactly(source, BLOCK)
    if not block.strip(b"\0"):
        if _exactly(source, BLOCK).strip(b"\0"):
            raise _refused("its end marker is invalid")
        return None
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as exc:
        raise _refused(f"a header in it cannot be read: {exc}") from exc
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise _refused(f"{entry.name!r} is not a plain file")
    return entry


def _write(
    source: Readable, entry: tarfile.TarInfo, directory: Path, expected: ManifestEntry
) -> None:
    if entry.size != expected.bytes:
        mismatch = f"{entry.size:,} bytes and the manifest says {expected.bytes:,}"
        raise ArtifactAltered(f"{entry.name} has {mismatch}; seal it again")
    sha256 = _written(directory / entry.name, _payload(source, entry.size))
    if sha256 != expected.sha256:
        mismatch = f"{sha256[:12]}... and the manifest says {expected.sha256[:12]}..."
        raise ArtifactAltered(f"{entry.name} has sha256 {mismatch}; send or seal it again")


def _written(target: Path, chunks: Iterable[bytes]) -> str:
    """Write a file durably and return the sha256 of what was written."""
    sha256 = hashlib.sha256()
    with _write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb", buffering=0)  # buffered data would fail once more on close
    with file:
        for chunk in chunks:  # errors of the source are not errors of the disk
            sha256.update(chunk)
            rest = memoryview(chunk)
            with _write_errors(target):
                while rest:
                    rest = rest[file.write(rest) :]
        with _write_errors(target):
            os.fsync(file.fileno())
    return sha256.hexdigest()


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreUnavailable(f"{target} cannot be written: {exc.strerror or exc}") from exc


def _payload(source: Readable, size: int) -> Iterator[bytes]:
    """Yield the content of a file, then skip the padding of its last block."""
    left = size
    while left:
        chunk = source.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise _refused("it is truncated")
        left -= len(chunk)
        yield chunk
    _exactly(source, -size % BLOCK)


def _exactly(source: Readable, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = source.read(left)
        if not part:
            raise _refused("it is truncated")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _refused(why: str) -> ArtifactStoreError:
    return ArtifactStoreError(f"this is not an archive of a model directory: {why}")
