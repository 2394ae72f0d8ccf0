"""What the operator does beside releases, at every round: scale, repair, count what it costs.

Each of the three stands for itself; what cannot be known holds, and nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ops.access.ledger import OPERATOR, Entry, append
from ops.cost.metering import Accounts
from ops.cost.utilisation import Survey
from ops.operator.repairs import Backlogs, Repairs, Round
from ops.scaling.scaler import MEASURED_S, PlatformSnapshot, Scaler
from ops.serving.apps import Apps
from ops.serving.nodes import Machines
from ops.sql.database import Database
from ops.telemetry.observations import Observations
from stream.settings import PipelineSettings
from stream.times import to_ms


class Upkeep:
    """Scales, repairs and counts; for one operator that leads."""

    def __init__(
        self,
        database: Database,
        observations: Observations,
        apps: Apps,
        *,
        pipelines: Sequence[PipelineSettings],
        backlogs: Backlogs,
        machines: Machines,
        scaler: Scaler | None,
        repairs: Repairs,
        accounts: Accounts,
        survey: Survey,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            scaler: None leaves every size alone.
            clock: Of the backlogs.
        """
        self._database = database
        self._observations = observations
        self._apps = apps
        self._pipelines = pipelines
        self._backlogs = backlogs
        self._machines = machines
        self._scaler = scaler
        self._repairs = repairs
        self._accounts = accounts
        self._survey = survey
        self._clock = clock

    @property
    def others(self) -> frozenset[str]:
        """Apps that are repaired and are of no version in the catalogue."""
        return self._repairs.others

    def tick(self, found: Round) -> None:
        """One round, after Serve was asked how its apps stand.

        Raises:
            OpsError: The database or Ray's API does not answer.
        """
        self._accounts.tick(found.now)
        self._repairs.tick(found)
        self._scale(found)

    def _scale(self, found: Round) -> None:
        if self._scaler is None:
            return
        for wish in self._scaler.wishes(self._sight(found)):
            self._apps.scale(wish.app, wish.target)
            entry = Entry(
                at=found.now,
                actor=OPERATOR,
                action="app.scale",
                model=wish.model,
                version=wish.version,
                from_state=str(wish.before),
                to_state=str(wish.target),
                reason=f"{wish.app}: {wish.reason}",
                evidence=wish.evidence,
            )
            with self._database.begin() as connection:
                append(connection, entry)
        self._survey.tick(found.now, self._scaler.parts)

    def _sight(self, found: Round) -> PlatformSnapshot:
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
            caps=self._accounts.caps,
            free=self._free(),
        )

    def _free(self) -> dict[str, float] | None:
        """What no app has reserved; replicas that are still to come count as well."""
        total = self._machines.total()
        if total is None:
            return None
        free = dict(total)
        for app in self._apps.found.values():
            for resource, each in app.resources.items():
                free[resource] = free.get(resource, 0.0) - each * max(app.target, app.replicas)
        return free
