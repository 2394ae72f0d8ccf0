"""Work of the operator in every round in addition to releases: scaling, repairs, metering.

The three are independent. What is unknown leaves things unchanged, and nothing blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ops.access.ledger import OPERATOR, Entry, append
from ops.cost.metering import UsageMeter
from ops.cost.utilisation import LoadSampler
from ops.operator.repairs import Backlogs, Repairs, Round
from ops.scaling.scaler import MEASURED_S, PlatformSnapshot, Scaler
from ops.serving.nodes import Machines
from ops.view import PlatformView
from stream.settings import PipelineSettings
from stream.times import to_ms


class Upkeep:
    """Meters, repairs and scales; used by the operator that holds the lease."""

    def __init__(
        self,
        accounts: UsageMeter,
        repairs: Repairs,
        scaling: Scaling | None,
        survey: LoadSampler,
    ) -> None:
        """Combine the parts.

        Args:
            scaling: None leaves all sizes unchanged.
        """
        self._accounts = accounts
        self._repairs = repairs
        self._scaling = scaling
        self._survey = survey

    @property
    def others(self) -> frozenset[str]:
        """Apps that are repaired but belong to no version in the catalogue."""
        return self._repairs.others

    def tick(self, found: Round) -> None:
        """Run one round, after the state of the Serve apps was refreshed.

        Raises:
            OpsError: The database or Ray's API does not answer.
        """
        self._accounts.tick(found.now)
        self._repairs.tick(found)
        if self._scaling is not None:
            self._scaling.tick(found, self._accounts.caps)
            self._survey.tick(found.now, self._scaling.scaler.parts)


class Scaling:
    """Scales every app to its load; each change is a row of the ledger."""

    def __init__(
        self,
        view: PlatformView,
        scaler: Scaler,
        machines: Machines,
        *,
        pipelines: Sequence[PipelineSettings],
        backlogs: Backlogs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store the dependencies.

        Args:
            clock: Clock of the backlogs.
        """
        self._database, self._observations, self._apps = view
        self.scaler = scaler
        self._machines = machines
        self._pipelines = pipelines
        self._backlogs = backlogs
        self._clock = clock

    def tick(self, found: Round, caps: Mapping[str, int]) -> None:
        """Scale the apps whose size should change.

        Args:
            caps: Upper limits of replicas, by model.
        Raises:
            OpsError: The database or Ray's API does not answer.
        """
        for target_size in self.scaler.targets(self._snapshot(found, caps)):
            self._apps.scale(target_size.app, target_size.target)
            entry = Entry(
                at=found.now,
                actor=OPERATOR,
                action="app.scale",
                model=target_size.model,
                version=target_size.version,
                from_state=str(target_size.before),
                to_state=str(target_size.target),
                reason=f"{target_size.app}: {target_size.reason}",
                evidence=target_size.evidence,
            )
            with self._database.begin() as connection:
                append(connection, entry)

    def _snapshot(self, found: Round, caps: Mapping[str, int]) -> PlatformSnapshot:
        now_ms = to_ms(found.now)
        since_ms = now_ms - int(MEASURED_S * 1000)
        models = {pipeline.model for pipeline in self._pipelines}
        return PlatformSnapshot(
            now_s=self._clock(),
            now_ms=now_ms,
            apps=self._apps.found,
            routes=found.routes,
            releases=found.releases,
            backlogs={p.name: self._backlogs.of(p.name) for p in self._pipelines},
            windows={m: self._observations.windows(m, since_ms=since_ms) for m in models},
            caps=caps,
            free=self._free(),
        )

    def _free(self) -> dict[str, float] | None:
        """Return resources that no app has reserved; replicas still to start count as well."""
        total = self._machines.total()
        if total is None:
            return None
        free = dict(total)
        for app in self._apps.found.values():
            for resource, each in app.resources.items():
                free[resource] = free.get(resource, 0.0) - each * max(app.target, app.replicas)
        return free
