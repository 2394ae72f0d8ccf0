"""Directories as tar archives, made and unpacked as a stream."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
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
            archive.extractall(directory, filter="data")
    except (tarfile.TarError, EOFError) as exc:
        raise ArtifactStoreError(f"the archive cannot be unpacked: {exc}; try again") from exc
