"""Whether the replicas of a version can answer."""

from __future__ import annotations

from typing import NamedTuple


class Readiness(NamedTuple):
    """How the new version's replicas stand.

    Attributes:
        ready: They answer.
        fault: Why they never will; None while they may.
        age_s: Since loading began.
        deadline_s: After which it has failed.
        waiting_for: What they lack at the moment, in words.
    """

    ready: bool
    fault: str | None = None
    age_s: float = 0.0
    deadline_s: float = 180.0
    waiting_for: str = ""
