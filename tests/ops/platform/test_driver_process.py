"""The child in which Ray is used: what its parent makes of what it says, and of its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ops.errors import DriverDied, NoCapacity, PlatformError
from ops.platform import driver_process
from ops.platform.driver_process import DriverReport, DriverTask, WatchedProcess, run
from ops.platform.installation import PlatformState

Child = Callable[[str], None]
SAYS = """
import json, os, sys, time
config, task = sys.stdin.readline(), sys.stdin.readline()
say = lambda **told: print(json.dumps(told), flush=True)
"""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Child:
    """Puts code in the place of the process that imports Ray."""

    def does(code: str) -> None:
        monkeypatch.setattr(driver_process, "COMMAND", (sys.executable, "-c", SAYS + code))

    return does


def told_by(folder: Path, *watched: WatchedProcess) -> list[DriverReport]:
    told: list[DriverReport] = []
    run(DriverTask(state=PlatformState(instance="i")), b"{}", folder, watched, told.append)
    return told


def one(folder: Path, *, is_alive: bool) -> WatchedProcess:
    return WatchedProcess(
        "Ray's head", folder / "ray.log", lambda: is_alive, lambda: "out of memory"
    )


def test_what_it_tells_arrives_in_order(child: Child, tmp_path: Path) -> None:
    child(
        'say(kind="step", text="a"); say(kind="deployed", text="m@1", more="d"); say(kind="done")'
    )
    found = told_by(tmp_path, one(tmp_path, is_alive=True))
    assert [(t.kind, t.text, t.more) for t in found] == [
        ("step", "a", ""),
        ("deployed", "m@1", "d"),
    ]


def test_its_error_is_raised_here(child: Child, tmp_path: Path) -> None:
    child('say(kind="failed", text="no room", more="NoCapacity")')
    with pytest.raises(NoCapacity, match="no room"):
        told_by(tmp_path)


@pytest.mark.slow
def test_an_error_of_a_library_is_told_as_such(child: Child, tmp_path: Path) -> None:
    child('say(kind="failed", text="RpcError: gone", more="RpcError")')
    with pytest.raises(PlatformError, match="RpcError: gone"):
        told_by(tmp_path)
    with pytest.raises(DriverDied, match="Ray's head died"):
        told_by(tmp_path, one(tmp_path, is_alive=False))


@pytest.mark.slow
def test_an_end_without_a_word_names_how_and_the_log(child: Child, tmp_path: Path) -> None:
    child('say(kind="step", text="m@1: deploying"); os.kill(os.getpid(), 9)')
    with pytest.raises(
        DriverDied, match=r"talks to Ray died .*: m@1: deploying \(SIGKILL\).*deploy\.log"
    ):
        told_by(tmp_path)


@pytest.mark.slow
def test_a_death_that_it_waits_for_is_noticed_and_nothing_stays(
    child: Child, tmp_path: Path
) -> None:
    child('say(kind="step", text=str(os.getpid())); sys.stderr.write("raw line"); time.sleep(600)')
    began = time.monotonic()
    with pytest.raises(DriverDied) as caught:
        told_by(tmp_path, one(tmp_path, is_alive=False))
    assert time.monotonic() - began < 60
    words = str(caught.value)
    assert words.startswith("Ray's head died while this was under way: ")
    assert words.endswith(f"(out of memory); its log is {tmp_path / 'ray.log'}")
    assert (tmp_path / driver_process.LOG).read_text() == "raw line"
    pid = int(words.partition("under way: ")[2].partition(" ")[0])
    assert not psutil.pid_exists(pid)
