"""The process that starts the operator and restarts it when it dies; ``bertstream up`` runs it.

Owns its child and a file with the child's status. It imports nothing that could fail or grow,
and is idle while the child runs.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ops.processes.state_file import replace_file

logger = logging.getLogger(__name__)

OPERATOR: Final = (sys.executable, "-m", "ops.operator.server")
# In the state directory.
NOTE_FILE: Final = "operator.json"
# A child that lived this long did not fail at startup: the pauses begin with the shortest again.
STEADY_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 60.0
KEPT_DEATHS: Final = 100
# Time for a child to exit after the signal; ``up`` and ``down`` wait a little longer for both.
GRACE_S: Final = 12.0
# The same for a child whose supervisor has died.
ORPHAN_S: Final = 10.0
# Alongside one other busy process it still gets a quarter of a core.
NICENESS: Final = 5


class SupervisorNote(NamedTuple):
    """Status of the operator's process; times in seconds since 1970.

    Attributes:
        pid: Process id of the child; None between two children.
        deaths: When children of this supervisor died, the newest last; a bounded number.
        how: How the last of them died; empty if none has.
        lived_s: How long that one had lived.
        next_at: When the next one starts; None while one runs.
    """

    pid: int | None = None
    deaths: tuple[float, ...] = ()
    how: str = ""
    lived_s: float = 0.0
    next_at: float | None = None

    @classmethod
    def load(cls, state_dir: Path) -> SupervisorNote | None:
        """Read the note; None if no supervisor runs."""
        try:
            known = json.loads((state_dir / NOTE_FILE).read_bytes())
            return cls(**known)._replace(deaths=tuple(known["deaths"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, state_dir: Path) -> None:
        """Write the note atomically; a failure is logged."""
        path = state_dir / NOTE_FILE
        try:
            replace_file(path, json.dumps(self._asdict()))
        except OSError as exc:
            logger.error("%s cannot be written: %s", path, exc)

    def sentence(self) -> str:
        """Return a sentence about the deaths."""
        times = "once" if len(self.deaths) == 1 else f"{len(self.deaths)} times"
        return f"it has died {times}, the last time after {self.lived_s:.0f} s ({self.how})"


def pause_s(short_lives: int) -> float:
    """Return how long to wait before the next start.

    Args:
        short_lives: Number of most recent children in a row that died before ``STEADY_S``.
    """
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(short_lives - 1, 0), 16))


class Supervisor:
    """Keeps one child alive; must run in the main thread of a process.

    A child reads the configuration from the first line of its standard input, which then stays
    open and closes with its parent, however that dies. Its last argument is the name of the lease's
    holder, the same for all children: the predecessor is dead, so its lease can be taken at once.
    """

    def __init__(
        self,
        command: Sequence[str],
        configuration: bytes,
        state_dir: Path,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            configuration: One line without its newline; it may contain passwords.
            grace_s: Seconds between passing on a signal and killing the child.
        """
        self._command = [*command, os.urandom(16).hex()]
        self._configuration = configuration
        self._state_dir = state_dir
        self._grace_s = grace_s
        self._signal: int | None = None
        self._bell, ring = os.pipe()
        os.set_blocking(ring, False)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wakeup fd is still written

    def run(self) -> None:
        """Start the child and restart it until a signal arrives; no child is left on return."""
        note, short_lives = SupervisorNote(), 0
        while self._signal is None:
            began_s = time.monotonic()
            child = self._start()
            note = note._replace(pid=child.pid, next_at=None)
            note.save(self._state_dir)
            if not self._died(child):
                break
            lived_s = time.monotonic() - began_s
            short_lives = 0 if lived_s >= STEADY_S else short_lives + 1
            wait_s = pause_s(short_lives)
            now = time.time()
            deaths = (*note.deaths, now)[-KEPT_DEATHS:]
            note = SupervisorNote(
                None, deaths, how(child.returncode), round(lived_s, 1), now + wait_s
            )
            note.save(self._state_dir)
            logger.error("the operator: %s; it restarts in %g s", note.sentence(), wait_s)
            self._pause(wait_s)
        (self._state_dir / NOTE_FILE).unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        assert child.stdin is not None  # it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it has died already
            child.stdin.write(self._configuration + b"\n")
            child.stdin.flush()
        return child

    def _died(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait until the child has ended; return whether it ended by itself."""
        end_s: float | None = None
        while child.poll() is None:
            if self._signal is not None and end_s is None:
                child.send_signal(self._signal)
                end_s = time.monotonic() + self._grace_s
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                logger.error("the operator did not exit within %g s; killing it", self._grace_s)
                child.kill()
                left_s = None
            self._listen(left_s)
        assert child.stdin is not None  # it is a pipe
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        return self._signal is None

    def _pause(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while self._signal is None and (left_s := end_s - time.monotonic()) > 0:
            self._listen(left_s)

    def _listen(self, timeout_s: float | None) -> None:
        """Wait for a signal; one that arrived since the last call counts."""
        if select.select([self._bell], [], [], timeout_s)[0]:
            heard = set(os.read(self._bell, 512)) & {signal.SIGTERM, signal.SIGINT}
            self._signal = self._signal or next(iter(heard), None)


def end_with_parent(stop: Callable[[], None], fileno: int, *, grace_s: float = ORPHAN_S) -> None:
    """Wait until a pipe that the parent keeps open is closed, then end this process.

    Args:
        stop: Shuts the process down in order.
        grace_s: Seconds after which the process exits at once.
    """
    while os.read(fileno, 1):
        pass  # the parent sends nothing more
    logger.warning("the supervisor has died; shutting down")
    stop()
    time.sleep(grace_s)
    logger.error("still running after %g s; exiting at once", grace_s)
    os._exit(1)


def yield_to_others() -> None:
    """Let consumers, replicas and brokers run first on a machine that is too small for all.

    Where Linux shares the machine among sessions first (autogroup), niceness counts only within a
    session, so the session itself is made nice.
    """
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def how(status: int) -> str:
    """Describe how a process ended, by its exit status."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def main() -> None:
    """Supervise the operator of a state directory; the configuration is read from stdin."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    configuration = sys.stdin.buffer.read()
    state_dir, *command = sys.argv[1:]
    Supervisor(command or OPERATOR, configuration, Path(state_dir)).run()


if __name__ == "__main__":
    main()
