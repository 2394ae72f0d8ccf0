"""Findings about Serve apps, their replicas and their golden answers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from ops.health import kinds
from ops.health.findings import Finding, Severity, fine
from ops.health.readings import (
    AppReading,
    DatabaseReading,
    Expected,
    GoldenReading,
    Readings,
)
from ops.serving.observed_app import RUNNING
from serve.contract import AppName, app_name

REPEATED_DEATHS = 3


def serve_findings(expected: Expected, readings: Readings) -> Iterator[Finding]:
    """Yield the findings about all desired apps and about golden answers."""
    yield from _golden(readings)
    apps = readings.apps
    if not isinstance(apps, Mapping):
        return
    yield fine("ray/api", "Ray's API answers", readings.at)
    for name, answers in _wanted(expected, readings).items():
        yield from _app(name, apps.get(name), answers=answers, at=readings.at)


def _wanted(expected: Expected, readings: Readings) -> dict[str, bool]:
    """Return the names of desired apps, and whether records need them now."""
    wanted = dict.fromkeys((pipeline.app_name for pipeline in expected.pipelines), True)
    if isinstance(readings.database, DatabaseReading):
        for model, route in readings.database.routes.items():
            if model in expected.models:
                for version, share in route.record.versions.items():
                    wanted[app_name(model, version)] = share.weight > 0
    return wanted


def _app(name: str, app: AppReading | None, *, answers: bool, at: datetime) -> Iterator[Finding]:
    worst_case = Severity.DOWN if answers else Severity.DEGRADED
    if app is None:
        yield kinds.APP_DOWN.found(worst_case, f"{name} is not deployed", at, name=name)
        return
    count = f"{app.running} of {app.target} replicas of {name} run"
    what = f"{count} ({app.status})" + (f": {app.message}" if app.message else "")
    if app.running == 0 and app.target > 0:
        yield kinds.APP_DOWN.found(worst_case, what, at, name=name)
    elif app.running < app.target or app.status != RUNNING:
        yield kinds.REPLICAS_MISSING.found(Severity.DEGRADED, what, at, name=name)
    else:
        yield fine(f"app/{name}/replicas", count, at)
    if app.deaths:
        yield _deaths(name, app.deaths)


def _deaths(name: str, deaths: tuple[datetime, ...]) -> Finding:
    kind = kinds.REPLICAS_DIE if len(deaths) >= REPEATED_DEATHS else kinds.REPLICA_DIED
    which = f"{len(deaths)} replicas" if len(deaths) > 1 else "a replica"
    what = f"{which} of {name} died recently"
    return kind.found(Severity.DEGRADED, what, min(deaths), name=name)


def _golden(readings: Readings) -> Iterator[Finding]:
    if not isinstance(readings.golden, Mapping):
        return
    for name, reading in readings.golden.items():
        yield _answers(name, reading)
        if reading.others:
            known = ", ".join(digest[:12] for digest in reading.others)
            what = f"replicas of {name} answer with other weights than those released: {known}"
            model = AppName.parse(name).model
            differ = kinds.WEIGHTS_DIFFER
            yield differ.found(Severity.DOWN, what, reading.at, name=name, model=model)


def _answers(name: str, reading: GoldenReading) -> Finding:
    if reading.fault is not None:
        what = f"{name} does not answer its golden texts: {reading.fault}"
        return kinds.GOLDEN_SILENT.found(Severity.DEGRADED, what, reading.at, name=name)
    what = f"{name} answers {reading.agreed} of {reading.texts} golden texts as it did when sealed"
    if reading.agreed == reading.texts:
        return fine(f"golden/{name}/answers", what, reading.at)
    names = {"name": name, "model": AppName.parse(name).model}
    return kinds.GOLDEN_DIFFERS.found(Severity.DEGRADED, what, reading.at, **names)
