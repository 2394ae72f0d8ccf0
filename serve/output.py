"""Output directories of imports and trainings: complete or absent, and never overwritten."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.errors import ArtifactError, ServeError


def require_free(out: Path) -> None:
    """Refuse a path that exists, unless it is an empty directory.

    Raises:
        ArtifactError: The path is taken or cannot be read. Not retriable.
    """
    try:
        taken = os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir()))
        mounted = out.is_mount()
    except OSError as exc:
        raise ArtifactError(f"{out}: cannot be read: {exc.strerror}") from exc
    if taken:
        raise ArtifactError(
            f"{out} already exists and is not an empty directory; choose another one or remove it"
        )
    if mounted:
        raise ArtifactError(f"{out} is a mount point; choose a new directory in it")


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield a hidden directory next to ``out``, whose ``model`` becomes ``out`` at the end.

    An interruption or a failure leaves nothing behind.

    Args:
        out: Must be free; missing parent directories are created.
    Raises:
        ArtifactError: ``out`` is taken or cannot be written; or an error from within, with the
            name of ``out`` in place of the hidden directory's. Not retriable.
    """
    require_free(out)
    target = out.resolve()
    made = [parent for parent in (target, *target.parents) if not parent.exists()][1:]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as work:
            try:
                yield Path(work)
            except ServeError as exc:
                message = str(exc).replace(str(Path(work, "model")), str(out))
                raise type(exc)(message.replace(work, str(out))) from exc
            os.rename(Path(work, "model"), target)
    except BaseException as exc:
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if isinstance(exc, OSError):
            raise ArtifactError(
                f"{out}: cannot be written: {exc.strerror or exc}; free some space or choose "
                "another directory"
            ) from exc
        raise
