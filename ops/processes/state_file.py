"""Files of the state directory, replaced whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file so that a reader finds the old content or the new one, and never a part.

    Args:
        private: Readable for its owner alone, also while it is written.
    Raises:
        OSError: It cannot be written; the old content is still there.
    """
    draft = path.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(draft, flags, 0o600 if private else 0o666), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    draft.replace(path)
