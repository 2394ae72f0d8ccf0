"""What the cluster has room for, and who gives some back when there is too little. Pure.

A version that is being released waits for room that others have grown into: those give back what
they were given beyond their least. Otherwise no release would find room beside a full stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ops.serving.observed_app import ObservedApp

# What is left of tenths that were added up.
ROUNDING = 1e-3


class Capacity:
    """CPUs and GPUs during one round of decisions."""

    def __init__(self, free: Mapping[str, float] | None, apps: Iterable[ObservedApp]) -> None:
        """Know what nothing has reserved.

        Args:
            free: By resource, beside what runs and what is asked for; below 0 where more is asked
                for than there is. None where the cluster grows by itself.
            apps: All that have reserved something.
        """
        self._free = None if free is None else dict(free)
        self._when_gone = dict(free or {})
        for app in apps:
            leaving = max(0, app.replicas - app.target)
            for resource, each in app.resources.items():
                self._when_gone[resource] = self._when_gone.get(resource, 0.0) + each * leaving

    def for_more(self, app: ObservedApp) -> int | None:
        """How many more fit; None where the cluster grows, or where they reserve nothing."""
        if self._free is None:
            return None
        fitting = [
            int(max(0.0, self._free.get(resource, 0.0)) / each + ROUNDING)
            for resource, each in app.resources.items()
            if each > 0
        ]
        return min(fitting, default=None)

    def missing(self, app: ObservedApp) -> int:
        """How many of an app have to go for all that is asked for to fit, as far as they help."""
        if self._free is None:
            return 0
        return max(
            (
                math.ceil(-self._when_gone.get(resource, 0.0) / each - ROUNDING)
                for resource, each in app.resources.items()
                if each > 0 and self._when_gone.get(resource, 0.0) < 0
            ),
            default=0,
        )

    def take(self, app: ObservedApp, more: int) -> None:
        """Count replicas that an app is given, or gives back where ``more`` is below 0."""
        for resource, each in app.resources.items():
            if self._free is not None:
                self._free[resource] = self._free.get(resource, 0.0) - each * more
            self._when_gone[resource] = self._when_gone.get(resource, 0.0) - each * more
