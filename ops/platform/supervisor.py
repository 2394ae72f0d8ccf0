"""The process that starts the operator and starts it again when it dies; ``bertstream up`` runs it.

Owns its child and a file that tells how that stands. It imports nothing that could fail or grow,
and does nothing while the child lives.
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
# A child that lived for so long did not fail at its start: the next pause is the first again.
STEADY_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 60.0
KEPT_DEATHS: Final = 100
# What a child has from the signal to its end; ``up`` and ``down`` wait a little longer for both.
GRACE_S: Final = 12.0
# The same of a child whose supervisor is gone.
ORPHAN_S: Final = 10.0
# Beside one other process at work it still gets a fourth of a core.
NICENESS: Final = 5


class SupervisorNote(NamedTuple):
    """How the operator's process stands; moments in seconds since 1970.

    Attributes:
        pid: Of the child; None between two of them.
        deaths: When children died since the supervisor began, the newest last; a bounded number.
        how: The last of them died; empty where none has.
        lived_s: How long that one had lived.
        next_at: When the next one starts; None while one lives.
    """

    pid: int | None = None
    deaths: tuple[float, ...] = ()
    how: str = ""
    lived_s: float = 0.0
    next_at: float | None = None

    @classmethod
    def load(cls, state_dir: Path) -> SupervisorNote | None:
        """Read it; None where no supervisor runs."""
        try:
            known = json.loads((state_dir / NOTE_FILE).read_bytes())
            return cls(**known)._replace(deaths=tuple(known["deaths"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, state_dir: Path) -> None:
        """Write it, whole or not at all; what cannot be written is logged."""
        path = state_dir / NOTE_FILE
        try:
            replace_file(path, json.dumps(self._asdict()))
        except OSError as exc:
            logger.error("%s cannot be written: %s", path, exc)

    def sentence(self) -> str:
        """What has happened."""
        times = "once" if len(self.deaths) == 1 else f"{len(self.deaths)} times"
        return f"it has died {times}, the last time after {self.lived_s:.0f} s ({self.how})"


def pause_s(short_lives: int) -> float:
    """How long to wait before the next start.

    Args:
        short_lives: Children in a row, up to now, that died before they were steady.
    """
    return min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(short_lives - 1, 0), 16))


class Supervisor:
    """Keeps one child alive; in the main thread of a process.

    A child finds the configuration as the first line of its standard input, which then stays open
    and ends with its parent, however that dies. Its last argument is the name under which it holds
    the lease: its predecessor is dead for certain, so it need not wait until that one's ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        configuration: bytes,
        state_dir: Path,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        """Nothing is started yet.

        Args:
            configuration: A line without its end; it may hold passwords.
            grace_s: From the signal to the other one.
        """
        self._command = [*command, os.urandom(16).hex()]
        self._configuration = configuration
        self._state_dir = state_dir
        self._grace_s = grace_s
        self._told: int | None = None
        self._bell, ring = os.pipe()
        os.set_blocking(ring, False)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the bell rings all the same

    def run(self) -> None:
        """Start, wait, and start again until told to end; no child is left then."""
        note, short_lives = SupervisorNote(), 0
        while self._told is None:
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
            logger.error("the operator: %s; the next starts in %g s", note.sentence(), wait_s)
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
        """Wait until it has ended, by itself or as this process was told to."""
        end_s: float | None = None
        while child.poll() is None:
            if self._told is not None and end_s is None:
                child.send_signal(self._told)
                end_s = time.monotonic() + self._grace_s
            left_s = None if end_s is None else end_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                logger.error("the operator does not end within %g s; killing it", self._grace_s)
                child.kill()
                left_s = None
            self._listen(left_s)
        assert child.stdin is not None  # it is a pipe
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        return self._told is None

    def _pause(self, wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        while self._told is None and (left_s := end_s - time.monotonic()) > 0:
            self._listen(left_s)

    def _listen(self, timeout_s: float | None) -> None:
        """Until a signal comes; one that came since the last time counts."""
        if select.select([self._bell], [], [], timeout_s)[0]:
            heard = set(os.read(self._bell, 512)) & {signal.SIGTERM, signal.SIGINT}
            self._told = self._told or next(iter(heard), None)


def end_with_parent(stop: Callable[[], None], fileno: int, *, grace_s: float = ORPHAN_S) -> None:
    """Wait for the end of a pipe that the parent keeps open, then end this process.

    Args:
        stop: Ends it in order.
        grace_s: After which it ends at once.
    """
    while os.read(fileno, 1):
        pass  # nothing more is said
    logger.warning("the supervisor is gone; ending")
    stop()
    time.sleep(grace_s)
    logger.error("still here %g s later; ending at once", grace_s)
    os._exit(1)


def yield_to_others() -> None:
    """Let consumers, replicas and brokers go first where the machine is too small for all.

    Where Linux divides the machine among sessions first, being nice counts within one only: there
    the session itself is nice.
    """
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def how(status: int) -> str:
    """What the system says of a child that has ended."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def main() -> None:
    """Supervise the operator of a state directory; the configuration stands on stdin."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    configuration = sys.stdin.buffer.read()
    state_dir, *command = sys.argv[1:]
    Supervisor(command or OPERATOR, configuration, Path(state_dir)).run()


if __name__ == "__main__":
    main()
