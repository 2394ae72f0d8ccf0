"""Redeploys apps that are stuck or dead; raises an alert if that does not help.

``repair_rules`` decides when and how often. Attempts are read from the ledger, so that an operator
that takes over continues to count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

from sqlalchemy import select

from ops.access.ledger import OPERATOR, Entry, append
from ops.health import alerts, kinds
from ops.health.findings import Finding, Severity
from ops.operator.repair_rules import (
    WITHIN,
    Act,
    AppFault,
    RepairStep,
    WatchedPipeline,
    fault_of_app,
    fault_of_pipeline,
    next_step,
)
from ops.releases.releases import Release
from ops.releases.state_machine import ReleaseState
from ops.scaling.backlog import Backlog
from ops.serving.apps import Make
from ops.serving.cluster import Cluster
from ops.serving.observed_app import ObservedApp
from ops.sql.tables import ledger
from ops.view import PlatformView
from serve.contract import AppName, app_name
from stream.schema import ConsumerRecord, ControlRecord
from stream.settings import PipelineSettings
from stream.times import to_ms

logger = logging.getLogger(__name__)

ACTION = "app.repair"
GAVE_UP = "app.give_up"
# Deploys one app on the cluster.
Deploy = Callable[[Cluster], object]


class Round(NamedTuple):
    """State that the operator found in this round.

    Attributes:
        routes: Routes in force, by model.
        releases: Open releases.
        wanted: Desired apps of versions, each with a function that returns its settings.
    """

    now: datetime
    routes: Mapping[str, ControlRecord]
    releases: Sequence[Release]
    wanted: Mapping[str, Make]


class Backlogs(Protocol):
    """Source of pipeline backlogs; ``ops.scaling.backlog.BacklogReader``."""

    def of(self, pipeline: str) -> Backlog:
        """Return the backlog that was read last."""
        ...


class Repairs:
    """Checks and repairs every app that should run."""

    def __init__(
        self,
        view: PlatformView,
        backlogs: Backlogs,
        *,
        pipelines: Sequence[PipelineSettings],
        deploys: Mapping[str, Deploy],
        deadline_s: float,
        may: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the repairs; nothing is checked yet.

        Args:
            deploys: Functions that deploy the consumers of each pipeline, by app name.
            deadline_s: Time limit for deploying one version.
            may: Returns False while another process changes apps, such as ``bertstream up``.
            clock: Clock of the backlogs.
        """
        self._database, self._observations, self._apps = view
        self._backlogs = backlogs
        self._pipelines = {pipeline.app_name: pipeline for pipeline in pipelines}
        self._deploys = deploys
        self._deadline_s = deadline_s
        self._may = may
        self._clock = clock
        self.others = frozenset(deploys)
        self._faulty_since: dict[str, datetime] = {}
        self._running_since_s: dict[tuple[str, int], float] = {}
        self._running_models: set[str] = set()
        self._heartbeats: dict[tuple[str, int], ConsumerRecord] = {}
        self._attempts: dict[str, list[datetime]] | None = None
        self._given_up: set[str] = set()

    def tick(self, found: Round) -> None:
        """Repair what is due."""
        deploys = {**self._deploys, **self._versions(found)}
        self._note_running()
        self._heartbeats = {
            (record.pipeline, record.consumer): record
            for record in self._observations.consumers(since_ms=0)
        }
        if self._attempts is None:
            self._remember(found.now)
        for name, deploy in deploys.items():
            fault = None if self._apps.is_busy(name) else self._fault(name, found.now)
            if fault is None:
                self._is_well(name, found.now)
                continue
            since = self._faulty_since.setdefault(name, found.now)
            if name in self._given_up:
                continue
            attempts = (self._attempts or {}).get(name, [])
            self._do(name, deploy, next_step(fault, since, attempts, found.now), found.now)

    def _versions(self, found: Round) -> dict[str, Deploy]:
        """Return the apps of versions; one that a release loads is judged by that release."""
        loading = {
            app_name(release.model, release.label)
            for release in found.releases
            if release.position.state is ReleaseState.LOADING
        }
        return {
            name: partial(self._deploy, make)
            for name, make in found.wanted.items()
            if name not in loading
        }

    def _deploy(self, make: Make, cluster: Cluster) -> None:
        cluster.deploy_model(make(), deadline_s=self._deadline_s)

    def _fault(self, name: str, now: datetime) -> AppFault | None:
        app = self._apps.found.get(name)
        fault = fault_of_app(app, self._apps.fault(name))
        pipeline = self._pipelines.get(name)
        if fault is not None or app is None or pipeline is None or not app.is_running:
            return fault
        return fault_of_pipeline(self._watched(app, pipeline), to_ms(now))

    def _watched(self, app: ObservedApp, pipeline: PipelineSettings) -> WatchedPipeline:
        now_s = self._clock()
        running_since_s = self._running_since_s.get((pipeline.app_name, app.target), now_s)
        reachable_since_s = self._backlogs.of(pipeline.name).reachable_since_s
        if reachable_since_s is None:
            reachable_since_s = now_s
        last = ((rank, self._heartbeats.get((pipeline.name, rank))) for rank in range(app.target))
        return WatchedPipeline(
            consumers=app.target,
            interval_s=pipeline.telemetry_interval_s,
            seen_for_s=now_s - max(running_since_s, reachable_since_s),
            heartbeats={rank: heartbeat for rank, heartbeat in last if heartbeat is not None},
            model_runs=pipeline.model in self._running_models,
        )

    def _note_running(self) -> None:
        """Note which models run, and since when each pipeline has run at its present size."""
        found = self._apps.found.items()
        self._running_models = {AppName.parse(name).model for name, app in found if app.is_running}
        now_s, before = self._clock(), self._running_since_s
        running = {
            (name, self._apps.found[name].target)
            for name in self._pipelines
            if name in self._apps.found
            and self._apps.found[name].is_running
            and not self._apps.is_busy(name)
        }
        self._running_since_s = {key: before.get(key, now_s) for key in running}

    def _remember(self, now: datetime) -> None:
        """Load the attempts of earlier operators, and the apps that they gave up."""
        query = select(ledger.c.at, ledger.c.evidence).where(
            ledger.c.action == ACTION, ledger.c.actor == OPERATOR, ledger.c.at >= now - WITHIN
        )
        found: dict[str, list[datetime]] = {}
        with self._database.read() as connection:
            for row in connection.execute(query.order_by(ledger.c.id)):
                found.setdefault(row.evidence.get("app", ""), []).append(row.at)
            keys = alerts.open_keys(connection, _key(""))
        self._given_up = {key.removeprefix(_key("")) for key in keys}
        self._attempts = found

    def _is_well(self, name: str, now: datetime) -> None:
        self._faulty_since.pop(name, None)
        if name in self._given_up and not self._apps.is_busy(name):
            with self._database.begin() as connection:
                alerts.close(connection, _key(name), now)
            self._given_up.discard(name)

    def _do(self, name: str, deploy: Deploy, step: RepairStep, now: datetime) -> None:
        if step.act is Act.WAIT or not self._may():
            return
        logger.warning("%s: %s: %s", name, step.act, step.reason)
        repairs = step.act is Act.REPAIR
        entry = Entry(
            at=now,
            actor=OPERATOR,
            action=ACTION if repairs else GAVE_UP,
            model=self._model_of(name),
            reason=f"{name}: {step.reason}",
            evidence={"app": name},
        )
        with self._database.begin() as connection:
            if not repairs:
                since = self._faulty_since[name]
                alerts.raise_alert(connection, _finding(name, step.reason, since), now)
            append(connection, entry)
        if not repairs:
            self._given_up.add(name)
            return
        assert self._attempts is not None  # loaded in the first round
        self._attempts.setdefault(name, []).append(now)
        self._faulty_since.pop(name, None)
        self._apps.redeploy(name, deploy)

    def _model_of(self, name: str) -> str:
        pipeline = self._pipelines.get(name)
        return pipeline.model if pipeline else AppName.parse(name).model


def _key(name: str) -> str:
    return f"repair/{name}"


def _finding(name: str, reason: str, since: datetime) -> Finding:
    return kinds.REPAIR_GIVEN_UP.found(Severity.DOWN, f"{name}: {reason}", since, name=name)
