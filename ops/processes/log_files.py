"""Logs of third-party programs: finds the line with the error, and keeps the ends of files."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

# Marks a line with an error, whichever program wrote it; some write nothing else in the line.
ERROR: Final = re.compile(r"error|exception|fatal|cannot|failed|timed out", re.IGNORECASE)
# Prefix of such a line: a time, a level, the place in the code.
STAMP: Final = re.compile(r"^(?:\[[^\]]*\]\s*|\S+\.(?:py|cc):\d+:?\s*|(?:ERROR|FATAL|E)\b:?\s+)+")
MAX_CHARACTERS: Final = 300
# In a state directory: what is kept of Ray's logs when its own folder is deleted.
KEPT: Final = "logs"
KEPT_BEFORE: Final = "logs.1"
# The end of each file, and only the newest files: 100 MiB at most.
MAX_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 100
# In Ray's folder: logs of consumers, replicas, Serve's controller, and why the cluster ended.
WORTH_KEEPING: Final = (
    "serve/*.log*",
    "worker-*.err*",
    "worker-*.out*",
    "gcs_server.*",
    "raylet.*",
)
# How Ray begins the output of a worker that is a replica.
REPLICA: Final = re.compile(rb"^:actor_name:ServeReplica:(\S+?):", re.MULTILINE)
# Lines added by Ray that carry no other information.
NAMES: Final = re.compile(rb"^:(?:job_id|actor_name|task_name):.*\n?", re.MULTILINE)


def last_error(text: str) -> str:
    """Return the last line of a log that reports an error, without its prefix; may be empty."""
    lines = [line.strip() for line in text.splitlines()]
    found = next((line for line in reversed(lines) if ERROR.search(line)), "")
    return STAMP.sub("", found)[:MAX_CHARACTERS]


def keep(folder: Path, state_dir: Path) -> None:
    """Keep the ends of Ray's logs of consumers and replicas, alongside those of the previous run.

    A file of their output is named after the app. A failure to keep them is logged.

    Args:
        folder: Ray's logs, which are about to be deleted.
    """
    target = state_dir / KEPT
    files = sorted(_worth_keeping(folder), key=lambda file: file[0], reverse=True)[:MAX_FILES]
    if not files:
        return
    try:
        shutil.rmtree(state_dir / KEPT_BEFORE, ignore_errors=True)
        if target.exists():
            target.rename(state_dir / KEPT_BEFORE)
        target.mkdir(mode=0o700)
        for _, path in files:
            _keep_end(path, target)
    except OSError as exc:
        logger.warning("Ray's logs cannot be kept in %s: %s", target, exc)


def _worth_keeping(folder: Path) -> Iterator[tuple[float, Path]]:
    """Yield non-empty files, each with the time it was last written."""
    for pattern in WORTH_KEEPING:
        for path in folder.glob(pattern):
            if path.is_file() and path.stat().st_size:
                yield path.stat().st_mtime, path


def _keep_end(path: Path, target: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
        file.seek(max(0, os.path.getsize(path) - MAX_BYTES))
        end = file.read(MAX_BYTES)
    if not NAMES.sub(b"", end).strip():
        return
    app = REPLICA.search(head)
    # Ray ends such a name with the process id.
    number = path.name.rpartition("-")[2]
    name = f"{app[1].decode(errors='replace')}-{number}" if app else path.name
    (target / name).write_bytes(end)
