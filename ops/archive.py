"""Directories as tar archives, made and unpacked as a stream."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from ops.errors import ArtifactStoreError

CHUNK_BYTES = 1 << 20
FILE_MODE = 0o644


def tar_of(directory: Path) -> Iterator[bytes]:
    """The files of a directory as an archive; equal directories give equal bytes."""
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        size = path.stat().st_size
        entry = tarfile.TarInfo(path.relative_to(directory).as_posix())
        entry.size, entry.mode = size, FILE_MODE
        yield entry.tobuf()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpack(source: IO[bytes], directory: Path) -> None:
    """Write the files of an archive into a directory, and nothing outside of it.

    Raises:
        ArtifactStoreError: It is cut short or no archive, or a name in it leads outside. Not
            retriable.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                _write(archive, entry, directory)
    except (tarfile.TarError, EOFError) as exc:
        raise ArtifactStoreError(f"the archive cannot be unpacked: {exc}; try again") from exc


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, directory: Path) -> None:
    """One file. Python's own filters for this came with 3.11.4 only."""
    path, content = PurePosixPath(entry.name), archive.extractfile(entry) if entry.isreg() else None
    if content is None or path.is_absolute() or ".." in path.parts:
        raise tarfile.ExtractError(f"{entry.name!r} is no plain file within the archive")
    target = directory / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(content, out, CHUNK_BYTES)
    if target.stat().st_size != entry.size:
        raise tarfile.ReadError("unexpected end of data")
