"""Replaces files of the state directory atomically."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file so that a reader finds the old content or the new one, never a part of it.

    Args:
        private: Make it readable by its owner only, even while it is written.
    Raises:
        OSError: The file cannot be written; its old content is unchanged.
    """
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(draft, flags, 0o600 if private else 0o666), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    draft.replace(path)
