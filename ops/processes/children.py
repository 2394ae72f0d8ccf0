"""Finds and ends the processes of one installation, and waits until they have ended.

Ray starts processes that start processes, and whose parents end before them. Two signs identify
ours: a mark in the environment, which children inherit, and open files in Ray's folder. The mark
alone is not enough: a process that changes its title, as Ray's agents and workers do, overwrites
its environment with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

MARK = "BERTSTREAM_INSTANCE"
KILL_DEADLINE_S = 10.0
POLL_S = 0.05


def marked(instance: str, *, mark: str = MARK) -> list[psutil.Process]:
    """Return this user's running processes with the mark, and their children; not the caller."""
    return _with_children(_those(lambda process: process.environ().get(mark) == instance))


def using(folder: Path) -> list[psutil.Process]:
    """Return this user's running processes with a file open in the folder, and their children."""
    return _with_children(
        _those(lambda process: any(_is_in(file.path, folder) for file in process.open_files()))
    )


def end(find: Callable[[], list[psutil.Process]], *, grace_s: float = 5.0) -> list[int]:
    """Terminate the processes found, kill those that remain, and repeat until none is found.

    Args:
        find: Called again after each round, as new processes may appear meanwhile.
        grace_s: Seconds between SIGTERM and SIGKILL.
    Returns:
        Ids of processes that did not end; empty when all have ended.
    """
    deadline = time.monotonic() + grace_s + 2 * KILL_DEADLINE_S
    while (found := find()) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        for process in wait(found, grace_s):
            with contextlib.suppress(psutil.Error):
                process.kill()
        wait(found, KILL_DEADLINE_S)
    return [process.pid for process in found]


def wait(found: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until all have ended, whichever process reaps them; return those that have not."""
    ends = time.monotonic() + timeout_s
    while alive := [process for process in found if is_alive(process)]:
        if time.monotonic() > ends:
            break
        time.sleep(POLL_S)
    return alive


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not, as it has released ports and locks."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _those(ours: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # It may belong to another user, or have ended meanwhile.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and is_alive(process) and ours(process):
                found.append(process)
    return found


def _with_children(found: list[psutil.Process]) -> list[psutil.Process]:
    together = set(found)
    for process in found:
        with contextlib.suppress(psutil.Error):
            together.update(process.children(recursive=True))
    return [process for process in together if process.pid != os.getpid()]


def _is_in(path: str, folder: Path) -> bool:
    return Path(path).is_relative_to(folder)
