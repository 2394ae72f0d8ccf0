"""Processes of one installation: found by a mark in their environment, ended and seen gone.

Ray starts processes that start processes; the mark is inherited by all of them, whatever
becomes of their parents.
"""

from __future__ import annotations

import logging
import os
import time

import psutil

logger = logging.getLogger(__name__)

MARK = "BERTSTREAM_INSTANCE"
KILL_DEADLINE_S = 10.0


def marked(instance: str) -> list[psutil.Process]:
    """Processes of this user that carry the mark, without the caller."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == instance:
                found.append(process)
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue
    return found


def end(processes: list[psutil.Process], *, grace_s: float) -> list[psutil.Process]:
    """Terminate, wait, kill, wait; returns what still lives."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process.kill)
    _, alive = psutil.wait_procs(alive, timeout=KILL_DEADLINE_S)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def end_marked(instance: str, *, grace_s: float = 5.0) -> list[int]:
    """End every marked process, and those that appear meanwhile; returns pids that resist."""
    deadline = time.monotonic() + grace_s + 2 * KILL_DEADLINE_S
    while time.monotonic() < deadline:
        processes = [p for p in marked(instance) if _is_alive(p)]
        if not processes:
            return []
        end(processes, grace_s=grace_s)
    return [process.pid for process in marked(instance) if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(send: object) -> None:
    try:
        send()  # type: ignore[operator]
    except psutil.NoSuchProcess:
        logger.debug("a process ended by itself")
