"""Time limits for starting processes, extended on a busy machine; pure except for the load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

# A machine with more load than this many times its capacity is not merely busy.
MAX_FACTOR: Final = 5.0


class Patience:
    """A time limit that starts at creation and grows with the machine's load."""

    def __init__(self, limit_s: float, load: Callable[[], float] | None = None) -> None:
        """Start the time limit.

        Args:
            limit_s: Limit in seconds on a machine with a core for each runnable process.
            load: Returns the runnable processes per core; by default this machine's.
        """
        self._limit_s = limit_s
        self._load = load or load_per_core
        self._since_s = time.monotonic()
        self._factor = 1.0

    def is_over(self) -> bool:
        """Return whether the limit has passed, by the highest load seen since the start.

        The load falls again just when the delayed work continues."""
        self._factor = max(self._factor, min(self._load(), MAX_FACTOR))
        return self.waited_s > self._limit_s * self._factor

    @property
    def waited_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._since_s

    def __str__(self) -> str:
        """Return how long it has waited, and why that long."""
        busy = f" on a machine with {self._factor:.1f} processes a core" if self._factor > 1 else ""
        return f"{self.waited_s:.0f} s{busy}"


def load_per_core() -> float:
    """Return the runnable processes per core in the last minute; 1.0 when all were just busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.getloadavg()[0] / (cores or 1)
