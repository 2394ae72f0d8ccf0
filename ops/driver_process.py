"""The process in which ``up`` and ``down`` use Ray: starts it, listens to it, ends it.

Ray's libraries write on the terminal, and when the head dies they hold whoever calls them for a
minute and then end that process. So they are called in a child, whose output goes to a log, and
the parent notices within a second when the child, Ray's head or Kafka has died. What the child
does is :mod:`ops.driver`'s matter.

A task is a line of JSON on the child's standard input, behind the configuration; the input stays
open as long as the parent lives. What the child tells comes back as lines of JSON.
"""

from __future__ import annotations

import hashlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel

from ops import errors
from ops.errors import DriverDied, OpsError, PlatformError
from ops.installation import State
from ops.supervisor import how
from serve.settings import Settings

COMMAND: Final = (sys.executable, "-m", "ops.driver")
LOG: Final = "deploy.log"
POLL_S: Final = 0.25
# What a child has that was told to end; then it is killed.
END_S: Final = 2.0


class Watched(NamedTuple):
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


class Task(BaseModel):
    """What the child is to do.

    Attributes:
        state: As it stands; its changes are told.
        running: Apps that run.
        delete: Apps to take away, in this order; None brings up what the configuration names.
    """

    state: State
    running: frozenset[str] = frozenset()
    delete: tuple[str, ...] | None = None


class Told(BaseModel):
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
    task: Task,
    config: bytes,
    state_dir: Path,
    watched: Sequence[Watched],
    on_told: Callable[[Told], None],
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
    lines: queue.Queue[bytes | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child, lines), daemon=True)
    reader.start()
    doing = ""
    try:
        _give(child, config + b"\n" + task.model_dump_json().encode() + b"\n")
        while True:
            try:
                line = lines.get(timeout=POLL_S)
            except queue.Empty:
                for one in watched:
                    if not one.is_alive():
                        raise DriverDied(_died(one, doing)) from None
                continue
            if line is None:
                raise DriverDied(_without_a_word(child, watched, doing, log))
            told = Told.model_validate_json(line)
            match told.kind:
                case "done":
                    return
                case "failed":
                    raise _error(told)
                case "step":
                    doing = told.text
            on_told(told)
    finally:
        _end(child)
        reader.join(END_S)


def _give(child: subprocess.Popen[bytes], lines: bytes) -> None:
    assert child.stdin is not None  # it is a pipe
    with suppress(BrokenPipeError):  # it died at once, which is noticed soon
        child.stdin.write(lines)
        child.stdin.flush()


def _read(child: subprocess.Popen[bytes], lines: queue.Queue[bytes | None]) -> None:
    assert child.stdout is not None  # it is a pipe
    for line in child.stdout:
        lines.put(line)
    lines.put(None)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it; nothing of it is worth waiting for, as apps are Serve's own."""
    assert child.stdin is not None  # both are pipes
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.close()
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _died(one: Watched, doing: str) -> str:
    during = f" while this was under way: {doing}" if doing else ""
    cause = one.cause()
    return f"{one.name} died{during}{f' ({cause})' if cause else ''}; its log is {one.log}"


def _without_a_word(
    child: subprocess.Popen[bytes], watched: Sequence[Watched], doing: str, log: Path
) -> str:
    """Why a child ended that has not said so: what it needs is gone, or it was killed."""
    for one in watched:
        if not one.is_alive():
            return _died(one, doing)
    return _died(
        Watched("the process that talks to Ray", log, bool, lambda: how(child.wait(END_S))), doing
    )


def _error(told: Told) -> OpsError:
    kind = getattr(errors, told.more, PlatformError)
    return kind(told.text)


def pipelines_first(names: set[str]) -> list[str]:
    """The order in which apps are taken away."""
    return sorted(names, key=lambda name: (not name.startswith("pipeline-"), name))


def digest_of(settings: Settings, more: str = "") -> str:
    """By what it is seen that settings have changed."""
    return hashlib.sha256((settings.model_dump_json() + more).encode()).hexdigest()
