"""How long to wait for something that starts: longer where the machine is busy. Pure but for a look
at the load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

# Where more is asked of a machine than this many times what it has, it is not merely busy.
MAX_FACTOR: Final = 5.0


class Patience:
    """A limit that is counted from now on and grows with the machine's load."""

    def __init__(self, limit_s: float, load: Callable[[], float] | None = None) -> None:
        """Begin to wait.

        Args:
            limit_s: On a machine with a core for each that wants one; in seconds.
            load: How many processes want each core; the machine's own by default.
        """
        self._limit_s = limit_s
        self._load = load or load_per_core
        self._since_s = time.monotonic()
        self._factor = 1.0

    def is_over(self) -> bool:
        """Whether the limit has passed. The highest load that was seen since the beginning counts:
        it falls again just when what was held up goes on."""
        self._factor = max(self._factor, min(self._load(), MAX_FACTOR))
        return self.waited_s > self._limit_s * self._factor

    @property
    def waited_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._since_s

    def __str__(self) -> str:
        """How long was waited, and why that long."""
        busy = f" on a machine with {self._factor:.1f} processes a core" if self._factor > 1 else ""
        return f"{self.waited_s:.0f} s{busy}"


def load_per_core() -> float:
    """How many processes wanted each core in the last minute, 1.0 when all were just busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.getloadavg()[0] / (cores or 1)
