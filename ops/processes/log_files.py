"""Logs of programs of others: the line that says what is wrong, and what is kept of them."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

# What such a line has, whoever wrote it; some write nothing else into it.
ERROR: Final = re.compile(r"error|exception|fatal|cannot|failed|timed out", re.IGNORECASE)
# In front of it: a moment, a level, the place in the code.
STAMP: Final = re.compile(r"^(?:\[[^\]]*\]\s*|\S+\.(?:py|cc):\d+:?\s*|(?:ERROR|FATAL|E)\b:?\s+)+")
MAX_CHARACTERS: Final = 300
# In a state directory: what is kept of Ray's when its own folder goes.
KEPT: Final = "logs"
KEPT_BEFORE: Final = "logs.1"
# Of each file its end, and of all files the newest: 100 MiB at most.
MAX_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 100
# Of the logs in Ray's folder: consumers, replicas, Serve's controller, and why the cluster ended.
WORTH_KEEPING: Final = (
    "serve/*.log*",
    "worker-*.err*",
    "worker-*.out*",
    "gcs_server.*",
    "raylet.*",
)
# How Ray begins the output of a worker that is a replica.
REPLICA: Final = re.compile(rb"^:actor_name:ServeReplica:(\S+?):", re.MULTILINE)
# Lines of its own that say nothing more.
NAMES: Final = re.compile(rb"^:(?:job_id|actor_name|task_name):.*\n?", re.MULTILINE)


def last_error(text: str) -> str:
    """The last line of a log that tells of an error, without what stands in front; may be empty."""
    lines = [line.strip() for line in text.splitlines()]
    told = next((line for line in reversed(lines) if ERROR.search(line)), "")
    return STAMP.sub("", told)[:MAX_CHARACTERS]


def keep(folder: Path, state_dir: Path) -> None:
    """Keep the ends of Ray's logs of consumers and replicas; those of the run before stay, too.

    What one of them printed is named for its app. What cannot be kept is logged.

    Args:
        folder: Ray's logs, which are about to go.
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
    """Files with something in them, and when they were written last."""
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
    # Ray ends such a name with the number of the process.
    number = path.name.rpartition("-")[2]
    name = f"{app[1].decode(errors='replace')}-{number}" if app else path.name
    (target / name).write_bytes(end)
