"""Computes the target size of every app, and the reason for it.

Owns the step from the state of the platform to the readings that ``decision`` evaluates. Does no
I/O and changes nothing: the operator supplies the state and applies the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ops.catalogue.versions import number_of
from ops.config.scaling import ScalingSettings
from ops.releases.releases import Release
from ops.scaling.backlog import UNKNOWN, Backlog
from ops.scaling.capacity import Capacity
from ops.scaling.decision import ScalingState, decide
from ops.scaling.need import ScalingReading
from ops.scaling.rates import ReplicaLoad, measure, rate_per_consumer, replica_seconds
from ops.scaling.share import share_to_carry
from ops.serving.observed_app import ObservedApp
from serve.contract import AppName, app_name
from serve.settings import ModelSettings
from stream.schema import ControlRecord, TelemetryRecord
from stream.settings import PipelineSettings

# Telemetry of this period determines the rate of a replica.
MEASURED_S = 30.0
FREES_CAPACITY = "frees capacity for another app"


class PlatformSnapshot(NamedTuple):
    """State of the platform at one moment.

    Attributes:
        now_s: Time on the clock of the backlogs.
        now_ms: Unix time in milliseconds, the clock of telemetry.
        apps: Apps as reported by Serve, by name.
        routes: Routes in force, by model.
        releases: Open releases.
        backlogs: Backlogs, by pipeline.
        windows: Telemetry of the last ``MEASURED_S``, by model.
        caps: Upper limits of replicas, by model, if its cost ceiling is reached.
        free: CPUs and GPUs that no app has reserved; None if the cluster grows by itself.
    """

    now_s: float
    now_ms: int
    apps: Mapping[str, ObservedApp]
    routes: Mapping[str, ControlRecord]
    releases: Sequence[Release]
    backlogs: Mapping[str, Backlog]
    windows: Mapping[str, Sequence[TelemetryRecord]]
    caps: Mapping[str, int] = {}
    free: Mapping[str, float] | None = None


class TargetSize(NamedTuple):
    """A new size for an app.

    Attributes:
        before: Number of replicas or consumers last requested from Serve.
        version: Version number; None for a pipeline and for a model without versions.
        reason: Reason in one sentence.
        evidence: The reading behind the decision.
    """

    app: str
    model: str
    version: int | None
    before: int
    target: int
    reason: str
    evidence: Mapping[str, Any]


class ScalableApp(NamedTuple):
    """An app that can be scaled, before the free capacity is taken into account.

    Attributes:
        label: Label of the version; None for a pipeline.
        settings: Bounds and delays of this app.
    """

    app: str
    model: str
    label: str | None
    reading: ScalingReading
    settings: ScalingSettings


class Scaler:
    """Decides the size of every app in turn; keeps only the state for the next decision.

    Attributes:
        parts: Apps of the last round.
    """

    def __init__(
        self,
        scaling: ScalingSettings,
        models: Sequence[ModelSettings],
        pipelines: Sequence[PipelineSettings],
    ) -> None:
        """Begin without readings.

        Args:
            models: Models; ``replicas`` is the minimum, unless a cost ceiling requires fewer.
            pipelines: Pipelines; ``consumers`` is the minimum.
        """
        self._scaling = scaling
        self._least = {model.name: model.replicas for model in models}
        # A model without a pipeline is not scaled: its load is unknown.
        self._pipelines = {
            model.name: [p for p in pipelines if p.model == model.name]
            for model in models
            if any(p.model == model.name for p in pipelines)
        }
        self._states: dict[str, ScalingState] = {}
        self._counts: dict[str, list[tuple[float, int]]] = {}
        self.parts: Sequence[ScalableApp] = ()

    def targets(self, snapshot: PlatformSnapshot) -> list[TargetSize]:
        """Return the apps whose size should change; apps that do not run are left alone."""
        self._states = {app: state for app, state in self._states.items() if app in snapshot.apps}
        self._counts = {
            name: _counted(self._counts.get(name, ()), snapshot.now_ms / 1000, app.replicas)
            for name, app in snapshot.apps.items()
        }
        room = Capacity(snapshot.free, snapshot.apps.values())
        found = []
        self.parts = [*self._parts(snapshot)]
        for part in self.parts:
            app = snapshot.apps[part.app]
            reading = part.reading._replace(room=room.for_more(app))
            given_back = min(room.missing(app), app.target - part.settings.min_replicas)
            if given_back > 0:
                most = app.target - given_back
                limit = most if reading.limit is None else min(most, reading.limit)
                reading = reading._replace(limit=limit)
            state = self._states.get(part.app, ScalingState())
            decision = decide(reading, part.settings, state, snapshot.now_s)
            self._states[part.app] = decision.state
            if decision.target == app.target:
                continue
            room.take(app, decision.target - app.target)
            reason = f"{FREES_CAPACITY}, {decision.reason}" if given_back > 0 else decision.reason
            found.append(_target_size(part, reading, app.target, decision.target, reason))
        return found

    def _parts(self, snapshot: PlatformSnapshot) -> Iterator[ScalableApp]:
        versions, releases = _versions(snapshot.apps), {r.model: r for r in snapshot.releases}
        for model, pipelines in self._pipelines.items():
            loads = {
                label: _load(
                    label, self._counts[app_name(model, label)], snapshot.windows.get(model, ())
                )
                for label in versions.get(model, ())
            }
            yield from self._versions_of(model, releases.get(model), loads, snapshot)
            busy = max(
                (load.busy for load in loads.values() if load.busy is not None), default=None
            )
            yield from self._consumers_of(model, pipelines, busy, snapshot)

    def _versions_of(
        self,
        model: str,
        release: Release | None,
        loads: Mapping[str, ReplicaLoad],
        snapshot: PlatformSnapshot,
    ) -> Iterator[ScalableApp]:
        route, pipelines = snapshot.routes.get(model), self._pipelines[model]
        known = [load.rate_per_replica for load in loads.values() if load.rate_per_replica]
        backlogs = [snapshot.backlogs.get(p.name, UNKNOWN) for p in pipelines]
        whole = _together(backlogs, snapshot.now_s)
        settings = self._scaling.of(model, least=self._least[model])
        for label, load in loads.items():
            name = app_name(model, label)
            present = share_to_carry(label, route, None) if route else 1.0
            weight = share_to_carry(label, route, release) if route else 1.0
            reading = whole._replace(
                current=snapshot.apps[name].replicas,
                # A version without answers is assumed to be as fast as the fastest other one.
                rate_per_replica=load.rate_per_replica or max(known, default=None),
                busy=load.busy if load.rate_per_replica else 0.0,
                weight=weight,
                announced=weight > present,
                limit=snapshot.caps.get(model),
            )
            yield ScalableApp(name, model, label, reading, settings)

    def _consumers_of(
        self,
        model: str,
        pipelines: Sequence[PipelineSettings],
        busy: float | None,
        snapshot: PlatformSnapshot,
    ) -> Iterator[ScalableApp]:
        for pipeline in pipelines:
            settings = self._scaling.of(pipeline.model, least=pipeline.consumers)
            found = snapshot.apps.get(pipeline.app_name)
            if found is None or not found.is_running:
                continue
            backlog = snapshot.backlogs.get(pipeline.name, UNKNOWN)
            reading = _together([backlog], snapshot.now_s)._replace(
                current=found.replicas,
                rate_per_replica=backlog.rates
                and rate_per_consumer(
                    backlog.rates,
                    consumers=found.replicas,
                    busy=busy,
                    target_drain_s=settings.target_drain_s,
                ),
                limit=backlog.partitions,
                noun="consumer",
            )
            yield ScalableApp(pipeline.app_name, model, None, reading, settings)


def _versions(apps: Mapping[str, ObservedApp]) -> dict[str, list[str]]:
    """Return the labels of running versions, by model."""
    labels: dict[str, list[str]] = {}
    for name, found in apps.items():
        model, label, _ = AppName.parse(name)
        if label and found.is_running:
            labels.setdefault(model, []).append(label)
    return labels


def _counted(
    before: Sequence[tuple[float, int]], now_s: float, replicas: int
) -> list[tuple[float, int]]:
    """Return the counts of replicas over the period of telemetry, and one change before it."""
    recent = [at for at in before if at[0] >= now_s - 2 * MEASURED_S]
    kept = [*before[: len(before) - len(recent)][-1:], *recent]
    return kept if kept and kept[-1][1] == replicas else [*kept, (now_s, replicas)]


def _together(backlogs: Sequence[Backlog], now_s: float) -> ScalingReading:
    """Combine the backlogs of a model's pipelines in one reading, as old as the oldest."""
    rates = [backlog.rates for backlog in backlogs]
    ages = [now_s - b.read_at_s for b in backlogs if b.read_at_s is not None]
    arrivals = [r.arrival_per_s for r in rates if r and r.arrival_per_s is not None]
    drains = [r.drain_per_s for r in rates if r and r.drain_per_s is not None]
    lags = [r.lag for r in rates if r]
    complete = len(backlogs)
    return ScalingReading(
        age_s=max(ages) if len(ages) == complete else None,
        reachable=all(b.reachable_since_s is not None for b in backlogs),
        current=0,
        lag=sum(lags) if len(lags) == complete else None,
        arrival_per_s=sum(arrivals) if len(arrivals) == complete else None,
        drain_per_s=sum(drains) if len(drains) == complete else None,
    )


def _load(
    label: str, counts: Sequence[tuple[float, int]], windows: Sequence[TelemetryRecord]
) -> ReplicaLoad:
    """Return the rate of a version's replicas and how busy they were."""
    own = [window for window in windows if window.version == label]
    if not own:
        return ReplicaLoad(None, None)
    begin_s, end_s = min(w.start_ms for w in own) / 1000, max(w.end_ms for w in own) / 1000
    return measure(
        sum(window.answers for window in own),
        busy_s=sum(window.replica_us for window in own) / 1e6,
        replica_s=replica_seconds(counts, begin_s, end_s),
    )


def _target_size(
    part: ScalableApp, reading: ScalingReading, before: int, target: int, reason: str
) -> TargetSize:
    evidence = {"app": part.app, **reading._asdict()}
    return TargetSize(
        app=part.app,
        model=part.model,
        version=number_of(part.label) if part.label else None,
        before=before,
        target=target,
        reason=reason,
        evidence={key: value for key, value in evidence.items() if value is not None},
    )
