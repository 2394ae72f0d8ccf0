"""Free capacity of the cluster, and how much apps must give back if it is too small. Pure.

Apps that have grown beyond their minimum give capacity back to a version that is being released.
Otherwise no release could load while the pipelines use the whole cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ops.serving.observed_app import ObservedApp

# Tolerance for rounding errors in sums of fractions.
ROUNDING = 1e-3


class Capacity:
    """Free CPUs and GPUs during one round of decisions."""

    def __init__(self, free: Mapping[str, float] | None, apps: Iterable[ObservedApp]) -> None:
        """Start from the resources that no app has reserved.

        Args:
            free: Amount by resource, not counting what runs or is requested; below 0 if more is
                requested than exists. None if the cluster grows by itself.
            apps: All apps that have reserved resources.
        """
        self._free = None if free is None else dict(free)
        self._free_later = dict(free or {})
        for app in apps:
            leaving = max(0, app.replicas - app.target)
            for resource, each in app.resources.items():
                self._free_later[resource] = self._free_later.get(resource, 0.0) + each * leaving

    def for_more(self, app: ObservedApp) -> int | None:
        """Return how many more replicas fit; None if the cluster grows or they reserve nothing."""
        if self._free is None:
            return None
        fitting = [
            int(max(0.0, self._free.get(resource, 0.0)) / each + ROUNDING)
            for resource, each in app.resources.items()
            if each > 0
        ]
        return min(fitting, default=None)

    def missing(self, app: ObservedApp) -> int:
        """Return how many replicas of an app must stop, as far as that helps, for all to fit."""
        if self._free is None:
            return 0
        return max(
            (
                math.ceil(-self._free_later.get(resource, 0.0) / each - ROUNDING)
                for resource, each in app.resources.items()
                if each > 0 and self._free_later.get(resource, 0.0) < 0
            ),
            default=0,
        )

    def take(self, app: ObservedApp, more: int) -> None:
        """Reserve ``more`` replicas for an app; below 0 it gives them back."""
        for resource, each in app.resources.items():
            if self._free is not None:
                self._free[resource] = self._free.get(resource, 0.0) - each * more
            self._free_later[resource] = self._free_later.get(resource, 0.0) - each * more
