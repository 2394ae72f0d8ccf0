"""Real processes: a child that dies is followed by another, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ops.platform.supervisor import (
    FIRST_PAUSE_S,
    MAX_PAUSE_S,
    NOTE_FILE,
    SupervisorNote,
    how,
    pause_s,
)

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0
# A child as the operator is: a line of configuration, then the pipe that its parent holds.
CHILD = """
import pathlib, signal, sys, threading
from ops.platform.supervisor import end_with_parent
line, stopping = sys.stdin.buffer.readline(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
threading.Thread(target=end_with_parent, args=(stopping.set, 0), daemon=True).start()
with open(sys.argv[1], "ab") as told:
    told.write(line.strip() + b" " + sys.argv[2].encode() + b"\\n")
stopping.wait()
pathlib.Path(sys.argv[1]).with_suffix(".ended").touch()
"""
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open({told!r}, "w") as told:
    print("begun", file=told)
signal.pause()
"""
IMPATIENT = """
import pathlib, sys
import pytest

from ops.platform.supervisor import Supervisor
configuration = sys.stdin.buffer.read()
Supervisor(sys.argv[2:], configuration, pathlib.Path(sys.argv[1]), grace_s=0.3).run()
"""


def wait_until(question: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not question():
        assert time.monotonic() < end, what
        time.sleep(0.02)


@contextmanager
def supervised(
    folder: Path, *command: str, module: tuple[str, ...] = ("-m", "ops.platform.supervisor")
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *module, str(folder), sys.executable, *command],
            stdin=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(b'{"password": "secret"}')
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def child_of(folder: Path, before: int = 0) -> int:
    """The child's process number, once it has said so itself."""
    told = folder / "told"
    wait_until(lambda: told.exists() and len(lines_of(told)) > before, "no child has begun")
    note = SupervisorNote.load(folder)
    assert note is not None
    assert note.pid is not None
    return note.pid


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_killed_child_is_followed_by_another_of_the_same_name(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with supervised(tmp_path, "-c", CHILD, str(told)) as supervisor:
        first = child_of(tmp_path)
        os.kill(first, signal.SIGKILL)
        second = child_of(tmp_path, before=1)
        assert second != first
        lines = lines_of(told)
        assert lines[0] == lines[1]  # configuration, and the holder of the lease
        assert lines[0].startswith('{"password": "secret"} ')
        note = SupervisorNote.load(tmp_path)
        assert note is not None
        assert (len(note.deaths), note.how, note.next_at) == (1, "SIGKILL", None)
        supervisor.terminate()
        assert supervisor.wait(DEADLINE_S) == 0
        assert is_gone(second)
        assert told.with_suffix(".ended").exists()  # it was told, not killed
    assert not (tmp_path / NOTE_FILE).exists()
    assert "secret" not in (tmp_path / "log").read_text()


def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with supervised(tmp_path, "-c", CHILD, str(told)) as supervisor:
        child = child_of(tmp_path)
        supervisor.kill()
        wait_until(lambda: is_gone(child), "the child has outlived its parent")
    assert told.with_suffix(".ended").exists()


def test_child_that_is_stuck_ends_without_its_parent(tmp_path: Path) -> None:
    stuck = CHILD.replace("(stopping.set, 0)", '(print, 0), kwargs={"grace_s": 0.2}')
    with supervised(tmp_path, "-c", stuck, str(tmp_path / "told")) as supervisor:
        child = child_of(tmp_path)
        supervisor.kill()
        wait_until(lambda: is_gone(child), "the child has outlived its parent")


def test_child_that_cannot_start_is_tried_again_ever_more_slowly(tmp_path: Path) -> None:
    with supervised(tmp_path, "-c", "raise SystemExit(3)") as supervisor:
        notes: list[SupervisorNote] = []

        def died_thrice() -> bool:
            note = SupervisorNote.load(tmp_path)
            if note is not None and note.next_at and (not notes or note != notes[-1]):
                notes.append(note)
            return bool(notes) and len(notes[-1].deaths) == 3

        wait_until(died_thrice, "it was not tried again")
        died = notes[-1].deaths
        assert notes[-1].how == "exit code 3"
        assert died[1] - died[0] >= FIRST_PAUSE_S
        assert died[2] - died[1] >= 2 * FIRST_PAUSE_S
        assert psutil.Process(supervisor.pid).cpu_times().user < 2.0
        supervisor.send_signal(signal.SIGINT)  # in the middle of a pause
        assert supervisor.wait(DEADLINE_S) == 0
    assert "has died 3 times" in (tmp_path / "log").read_text()


def test_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = DEAF.format(told=str(tmp_path / "told"))
    with supervised(tmp_path, "-c", deaf, module=("-c", IMPATIENT)) as supervisor:
        child = child_of(tmp_path)
        supervisor.terminate()
        assert supervisor.wait(DEADLINE_S) == 0
        assert is_gone(child)


def test_supervisor_is_small_and_sleeps(tmp_path: Path) -> None:
    with supervised(tmp_path, "-c", CHILD, str(tmp_path / "told")) as supervisor:
        child_of(tmp_path)
        process = psutil.Process(supervisor.pid)
        before = process.num_ctx_switches().voluntary
        bare = [sys.executable, "-c", "import psutil; print(psutil.Process().memory_info().rss)"]
        of_python = int(subprocess.check_output(bare))
        assert process.memory_info().rss < of_python + 4 * 2**20
        assert process.num_ctx_switches().voluntary - before <= 1


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = [pause_s(short_lives) for short_lives in range(12)]
    assert pauses[:4] == [FIRST_PAUSE_S, FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause_s(10**6) == MAX_PAUSE_S


def test_an_end_has_a_name() -> None:
    assert [how(0), how(1), how(-9)] == ["exit code 0", "exit code 1", "SIGKILL"]
    assert how(-35).startswith("signal") or how(-35).startswith("SIG")


def test_a_broken_note_is_none(tmp_path: Path) -> None:
    assert SupervisorNote.load(tmp_path) is None
    (tmp_path / NOTE_FILE).write_text('{"pid": 3')
    assert SupervisorNote.load(tmp_path) is None
