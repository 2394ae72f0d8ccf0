"""Runs the child process in which ``up`` and ``down`` use Ray: starts, follows and ends it.

Ray's libraries write to the terminal, and when the head dies they block their caller for a minute
and then end that process. So they are called in a child process, whose output goes to a log, and
the parent notices within a second when the child, Ray's head or Kafka has died. The child runs
:mod:`ops.platform.driver`.

A task is a line of JSON on the child's standard input, after the configuration; the input stays
open as long as the parent lives. The child reports in lines of JSON on its standard output.
"""

from __future__ import annotations

import hashlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from pydantic import BaseModel

from ops import errors
from ops.errors import DriverDied, PlatformError
from ops.platform.installation import PlatformState
from ops.platform.supervisor import how
from serve.contract import AppName
from serve.settings import Settings

COMMAND: Final = (sys.executable, "-m", "ops.platform.driver")
LOG: Final = "deploy.log"
POLL_S: Final = 0.25
# Time for a child to exit after its input was closed; then it is killed.
END_S: Final = 2.0
# Ray's head may exit this long after one of its processes has died.
NOTICED_S: Final = 3.0


class WatchedProcess(NamedTuple):
    """A process that a driver depends on.

    Attributes:
        name: Its name in messages.
        log: Path of its log.
        is_alive: Returns whether it runs.
        cause: Returns why it died, in words; empty if the cause is unknown.
    """

    name: str
    log: Path
    is_alive: Callable[[], bool]
    cause: Callable[[], str]


class DriverTask(BaseModel):
    """A task of the child process.

    Attributes:
        state: State of the installation; changes to it are reported.
        running: Names of the apps that run.
        delete: Apps to delete, in this order; None brings up what the configuration names.
    """

    state: PlatformState
    running: frozenset[str] = frozenset()
    delete: tuple[str, ...] | None = None


class DriverReport(BaseModel):
    """One report of the child process.

    Attributes:
        kind: ``step``: what happens, in words. ``dashboard``: its URL. ``deployed`` and
            ``removed``: an app. ``failed``: an error. ``done``: the task is finished.
        text: Text of a step, message of an error, the URL, or the app's name.
        more: Digest of an app, or class of an error.
    """

    kind: Literal["step", "dashboard", "deployed", "removed", "failed", "done"]
    text: str = ""
    more: str = ""


def run(
    task: DriverTask,
    config: bytes,
    state_dir: Path,
    watched: Sequence[WatchedProcess],
    on_report: Callable[[DriverReport], None],
) -> None:
    """Run a task in a child process, which has ended when this returns or raises.

    Args:
        config: The platform's configuration as JSON, passwords in clear text.
        on_told: Called with every report except ``failed`` and ``done``.
    Raises:
        OpsError: The error that the child reported.
        DriverDied: The child or a watched process died meanwhile.
    """
    log = state_dir / LOG
    with log.open("wb") as output:
        child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    assert child.stdin is not None  # both are pipes
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    with child:
        reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        reader.start()
        try:
            with suppress(BrokenPipeError):  # it died at once, which _listen notices
                child.stdin.write(config + b"\n" + task.model_dump_json().encode() + b"\n")
                child.stdin.flush()
            _listen(child, lines, watched, on_report, log)
        finally:
            _end(child)
            reader.join(END_S)


def _listen(
    child: subprocess.Popen[bytes],
    lines: queue.Queue[bytes | None],
    watched: Sequence[WatchedProcess],
    on_report: Callable[[DriverReport], None],
    log: Path,
) -> None:
    """Handle reports until the child reports that it is done."""
    doing = ""
    while True:
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            if dead := _dead(watched):
                raise DriverDied(_sentence(dead.name, doing, dead.cause(), dead.log)) from None
            continue
        report = DriverReport.model_validate_json(line) if line is not None else None
        match report:
            case DriverReport(kind="done"):
                return
            case DriverReport(kind="failed", more=kind) if kind in vars(errors):
                raise vars(errors)[kind](report.text)
            case None | DriverReport(kind="failed"):
                # A silent exit or a library's error may result from the death of another process.
                if dead := _dead(watched, within_s=NOTICED_S):
                    raise DriverDied(_sentence(dead.name, doing, dead.cause(), dead.log))
                if report is not None:
                    raise PlatformError(report.text)
                ended = how(child.wait(END_S))
                raise DriverDied(_sentence("the process that talks to Ray", doing, ended, log))
            case DriverReport(kind="step"):
                doing = report.text
        on_report(report)


def _read(stdout: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child; nothing in it needs to be saved, as Serve manages the apps."""
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _dead(watched: Sequence[WatchedProcess], *, within_s: float = 0.0) -> WatchedProcess | None:
    """Return the first process that has died, or dies within some seconds."""
    ends = time.monotonic() + within_s
    while True:
        dead = next((one for one in watched if not one.is_alive()), None)
        if dead is not None or time.monotonic() >= ends:
            return dead
        time.sleep(POLL_S)


def _sentence(name: str, doing: str, cause: str, log: Path) -> str:
    during = f" while this was under way: {doing}" if doing else ""
    return f"{name} died{during}{f' ({cause})' if cause else ''}; its log is {log}"


def pipelines_first(names: set[str]) -> list[str]:
    """Return the order in which apps are deleted."""
    return sorted(names, key=lambda name: (not AppName.parse(name).pipeline, name))


def digest_of(settings: Settings, more: str = "") -> str:
    """Return a digest that shows whether settings have changed."""
    return hashlib.sha256((settings.model_dump_json() + more).encode()).hexdigest()
