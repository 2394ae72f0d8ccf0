"""What is wrong with Serve apps, their replicas and what these answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from ops.health.findings import Finding, Severity, fine
from ops.health.readings import (
    AppReading,
    DatabaseReading,
    Expected,
    GoldenReading,
    Readings,
)
from ops.serving.observed_app import RUNNING
from serve.contract import app_name

REPEATED_DEATHS = 3


def serve_findings(expected: Expected, readings: Readings) -> Iterator[Finding]:
    """Apps that should be there and how they are, and what versions answer."""
    yield from _golden(readings)
    apps = readings.apps
    if not isinstance(apps, Mapping):
        return
    yield fine("ray/api", "Ray's API answers", readings.at)
    for name, answers in _wanted(expected, readings).items():
        yield from _app(name, apps.get(name), answers=answers, at=readings.at)


def _wanted(expected: Expected, readings: Readings) -> dict[str, bool]:
    """Names of apps, and whether records need them now."""
    wanted = dict.fromkeys((pipeline.app_name for pipeline in expected.pipelines), True)
    if isinstance(readings.database, DatabaseReading):
        for model, route in readings.database.routes.items():
            if model in expected.models:
                for version, share in route.record.versions.items():
                    wanted[app_name(model, version)] = share.weight > 0
    return wanted


def _app(name: str, app: AppReading | None, *, answers: bool, at: datetime) -> Iterator[Finding]:
    worst_case = Severity.DOWN if answers else Severity.DEGRADED
    hurts = f"records that need {name} wait in Kafka; none is lost"
    todo = "the operator deploys it anew; its log and the Ray dashboard say why that fails"
    key = f"app/{name}/replicas"
    if app is None:
        yield Finding(key, worst_case, f"{name} is not deployed", at, hurts, todo)
        return
    count = f"{app.running} of {app.target} replicas of {name} run"
    why = f": {app.message}" if app.message else ""
    if app.running == 0 and app.target > 0:
        yield Finding(key, worst_case, f"{count} ({app.status}){why}", at, hurts, todo)
    elif app.running < app.target or app.status != RUNNING:
        yield Finding(
            key,
            Severity.DEGRADED,
            f"{count} ({app.status}){why}",
            at,
            f"{name} answers less than it was planned for",
            "Serve starts the others when the cluster has room; see the Ray dashboard",
        )
    else:
        yield fine(key, count, at)
    if app.deaths:
        yield _deaths(name, app.deaths)


def _deaths(name: str, deaths: tuple[datetime, ...]) -> Finding:
    again = len(deaths) >= REPEATED_DEATHS
    return Finding(
        f"app/{name}/deaths",
        Severity.DEGRADED,
        f"{len(deaths)} replicas of {name} died lately"
        if len(deaths) > 1
        else f"a replica of {name} died lately",
        min(deaths),
        "what was begun there is done again by others" + (", over and over" if again else ""),
        "see its log on the Ray dashboard: memory, a record that kills it, or a machine that went",
    )


def _golden(readings: Readings) -> Iterator[Finding]:
    if not isinstance(readings.golden, Mapping):
        return
    for name, reading in readings.golden.items():
        yield _answers(name, reading)
        if reading.others:
            known = ", ".join(digest[:12] for digest in reading.others)
            yield Finding(
                f"golden/{name}/digest",
                Severity.DOWN,
                f"replicas of {name} answer with other weights than those released: {known}",
                reading.at,
                "its results are those of another model",
                f"take it back with `bertstream rollback {name.partition('@')[0]}`, then see how "
                "its files were changed",
            )


def _answers(name: str, reading: GoldenReading) -> Finding:
    key = f"golden/{name}/answers"
    if reading.fault is not None:
        return Finding(
            key,
            Severity.DEGRADED,
            f"{name} does not answer its golden texts: {reading.fault}",
            reading.at,
            "records may wait for it as well",
            "see its replicas above and on the Ray dashboard",
        )
    what = f"{name} answers {reading.agreed} of {reading.texts} golden texts as it did when sealed"
    if reading.agreed == reading.texts:
        return fine(key, what, reading.at)
    return Finding(
        key,
        Severity.DEGRADED,
        what,
        reading.at,
        "its results may be wrong",
        f"restart its replicas; when it stays, `bertstream rollback {name.partition('@')[0]}`",
    )
