"""The process in which ``up`` and ``down`` use Ray: starts it, listens to it, ends it.

Ray's libraries write on the terminal, and when the head dies they hold whoever calls them for a
minute and then end that process. So they are called in a child, whose output goes to a log, and
the parent notices within a second when the child, Ray's head or Kafka has died. What the child
does is :mod:`ops.platform.driver`'s matter.

A task is a line of JSON on the child's standard input, behind the configuration; the input stays
open as long as the parent lives. What the child tells comes back as lines of JSON.
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
# What a child has that was told to end; then it is killed.
END_S: Final = 2.0
# Ray's head ends so long after one of its processes.
NOTICED_S: Final = 3.0


class WatchedProcess(NamedTuple):
    """What a driver cannot do without.

    Attributes:
        name: As a person calls it.
        log: Where it says why it died.
        is_alive: Whether it runs.
        cause: Why it does not, in words; empty where nothing is known.
    """

    name: str
    log: Path
    is_alive: Callable[[], bool]
    cause: Callable[[], str]


class DriverTask(BaseModel):
    """What the child is to do.

    Attributes:
        state: As it stands; its changes are told.
        running: Apps that run.
        delete: Apps to take away, in this order; None brings up what the configuration names.
    """

    state: PlatformState
    running: frozenset[str] = frozenset()
    delete: tuple[str, ...] | None = None


class DriverReport(BaseModel):
    """What the child tells.

    Attributes:
        kind: ``step``: what happens, in words. ``dashboard``: its URL. ``deployed`` and
            ``removed``: an app. ``failed``: the sentence of an error. ``done``: the last word.
        text: Of a step or an error, or the URL, or the app's name.
        more: An app's digest; the class of an error.
    """

    kind: Literal["step", "dashboard", "deployed", "removed", "failed", "done"]
    text: str = ""
    more: str = ""


def run(
    task: DriverTask,
    config: bytes,
    state_dir: Path,
    watched: Sequence[WatchedProcess],
    on_told: Callable[[DriverReport], None],
) -> None:
    """Have a child do a task; none is left when this returns or raises.

    Args:
        config: The platform's configuration as JSON, passwords in the clear.
        on_told: Called with all but errors and the last word.
    Raises:
        OpsError: What the child raised.
        DriverDied: The child, or something of what is watched, died meanwhile.
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
            with suppress(BrokenPipeError):  # it died at once, which is noticed soon
                child.stdin.write(config + b"\n" + task.model_dump_json().encode() + b"\n")
                child.stdin.flush()
            _listen(child, lines, watched, on_told, log)
        finally:
            _end(child)
            reader.join(END_S)


def _listen(
    child: subprocess.Popen[bytes],
    lines: queue.Queue[bytes | None],
    watched: Sequence[WatchedProcess],
    on_told: Callable[[DriverReport], None],
    log: Path,
) -> None:
    """Until the child says that it is done."""
    doing = ""
    while True:
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            if dead := _dead(watched):
                raise DriverDied(_sentence(dead.name, doing, dead.cause(), dead.log)) from None
            continue
        told = DriverReport.model_validate_json(line) if line is not None else None
        match told:
            case DriverReport(kind="done"):
                return
            case DriverReport(kind="failed", more=kind) if kind in vars(errors):
                raise vars(errors)[kind](told.text)
            case None | DriverReport(kind="failed"):
                # An end without a word and an error of a library both follow from a death.
                if dead := _dead(watched, within_s=NOTICED_S):
                    raise DriverDied(_sentence(dead.name, doing, dead.cause(), dead.log))
                if told is not None:
                    raise PlatformError(told.text)
                ended = how(child.wait(END_S))
                raise DriverDied(_sentence("the process that talks to Ray", doing, ended, log))
            case DriverReport(kind="step"):
                doing = told.text
        on_told(told)


def _read(stdout: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it; nothing of it is worth waiting for, as apps are Serve's own."""
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _dead(watched: Sequence[WatchedProcess], *, within_s: float = 0.0) -> WatchedProcess | None:
    """The first of those that has died, or dies within some seconds."""
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
    """The order in which apps are taken away."""
    return sorted(names, key=lambda name: (not AppName.parse(name).pipeline, name))


def digest_of(settings: Settings, more: str = "") -> str:
    """By what it is seen that settings have changed."""
    return hashlib.sha256((settings.model_dump_json() + more).encode()).hexdigest()
