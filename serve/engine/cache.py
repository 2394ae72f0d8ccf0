"""Cache of directories with compiled files: written completely or not at all.

Handles files and checksums, not engines. A directory is damaged when a file is missing,
altered or truncated; it is then rebuilt.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SUMS = "sha256.json"

logger = logging.getLogger(__name__)


def cached(cache_dir: Path, key: str, build: Callable[[Path], None]) -> Path:
    """Return the directory of a key, built where the cache lacks it or has it damaged.

    Several processes may request one key at once: one builds, the others wait for it.

    Args:
        cache_dir: Parent of the directories of all keys; created where it is missing.
        key: A file name; must identify everything that the files depend on.
        build: Writes the files into the empty directory that is passed to it.
    Returns:
        The directory; the caller must not write to it.
    Raises:
        OSError: The cache directory cannot be written.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    home = cache_dir / key
    with _locked(cache_dir / f"{key}.lock"):
        if _is_whole(home):
            return home
        if home.exists():
            logger.warning("the cached files in %s are damaged and are rebuilt", home)
            shutil.rmtree(home)
        # A process that was killed while building leaves a directory of this name.
        partial = cache_dir / f"{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        build(partial)
        (partial / SUMS).write_text(json.dumps(_sums(partial)))
        partial.rename(home)
    return home


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released even when the process is killed
        yield


def _is_whole(home: Path) -> bool:
    try:
        recorded = json.loads((home / SUMS).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return bool(recorded == _sums(home))


def _sums(home: Path) -> dict[str, str]:
    files = sorted(path for path in home.iterdir() if path.name != SUMS)
    return {path.name: _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
