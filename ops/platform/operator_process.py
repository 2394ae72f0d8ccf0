"""Starts, finds and ends the operator's processes on this machine.

There are two: a supervisor, and the operator that it restarts whenever that dies. Their own
modules define what they do.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ops.errors import PlatformError
from ops.platform.supervisor import GRACE_S, NOTE_FILE, OPERATOR, SupervisorNote
from ops.processes import children as processes
from ops.processes.start_limits import Patience

SUPERVISOR = (sys.executable, "-m", "ops.platform.supervisor")
LOG = "operator.log"
API_DEADLINE_S = 30.0
# The supervisor waits for the operator, which finishes its round and releases its lease.
END_S = GRACE_S + 3.0


def start(state_dir: Path, configuration: bytes, api: str) -> int:
    """Start both and wait until the control API listens.

    Args:
        configuration: JSON on one line; it may contain passwords.
        api: URL of the control API, with its port.
    Returns:
        Process id of the supervisor.
    Raises:
        PlatformError: The operator died or took too long; both processes have been ended.
    """
    log = state_dir / LOG
    (state_dir / NOTE_FILE).unlink(missing_ok=True)  # of a supervisor that was killed
    with log.open("ab") as out:
        supervisor = subprocess.Popen(
            [*SUPERVISOR, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    assert supervisor.stdin is not None  # it is a pipe
    with supervisor.stdin as stdin:
        stdin.write(configuration)
    try:
        _wait_for_api(supervisor, state_dir, api)
    except BaseException:
        supervisor.terminate()
        supervisor.wait(END_S)
        raise
    return supervisor.pid


def _wait_for_api(supervisor: subprocess.Popen[bytes], state_dir: Path, api: str) -> None:
    host, port = api.rpartition("//")[2].rsplit(":", 1)
    patience = Patience(API_DEADLINE_S)
    while supervisor.poll() is None and not patience.is_over():
        note = SupervisorNote.load(state_dir)
        if note is not None and note.deaths:
            raise PlatformError(
                f"the operator does not start: {note.sentence()}; see {state_dir / LOG}"
            )
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise PlatformError(
        f"the operator did not answer at {api} within {patience}; see {state_dir / LOG}"
    )


def is_supervised(instance: str) -> bool:
    """Return whether the supervisor of an installation runs, judged by the installation's mark."""
    return bool(_running(SUPERVISOR, instance))


def fault(state_dir: Path) -> str | None:
    """Return why the operator does not run while its supervisor does; None if it runs."""
    note = SupervisorNote.load(state_dir)
    if note is None or note.next_at is None:
        return None
    return f"{note.sentence()}; it restarts automatically, see {state_dir / LOG}"


def end(instance: str) -> None:
    """End the supervisor and the operator, even an operator whose supervisor was killed."""
    processes.end(lambda: _running(SUPERVISOR, instance), grace_s=END_S)
    processes.end(lambda: operators(instance), grace_s=END_S)


def operators(instance: str) -> list[psutil.Process]:
    """Return the operator processes of an installation: one, or none during a restart."""
    return _running(OPERATOR, instance)


def _running(command: Sequence[str], instance: str) -> list[psutil.Process]:
    found = []
    for process in processes.marked(instance):
        with contextlib.suppress(psutil.Error):
            if command[-1] in process.cmdline():
                found.append(process)
    return found
