"""The readiness of the replicas of a version."""

from __future__ import annotations

from typing import NamedTuple


class Readiness(NamedTuple):
    """Readiness of a new version's replicas.

    Attributes:
        ready: Whether they answer.
        fault: Why they never will; None while they may.
        age_s: Seconds since loading began.
        deadline_s: Seconds after which loading has failed.
        waiting_for: What they lack at the moment, in words.
    """

    ready: bool
    fault: str | None = None
    age_s: float = 0.0
    deadline_s: float = 180.0
    waiting_for: str = ""
