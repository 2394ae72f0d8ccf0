"""Probes of the database, Serve apps, the machine and pipelines; each returns one reading.

A probe keeps its connection between runs and reconnects after an error. It may fail or hang; the
monitor handles both.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ops.access.transactions import Clock
from ops.config.settings import PlatformConfig
from ops.health import restarts
from ops.health.readings import (
    AppReading,
    Certificate,
    DatabaseReading,
    Expected,
    MachineReading,
    PipelineReports,
    RouteReading,
)
from ops.releases.routes import all_routes, unpublished
from ops.serving.cluster import applications
from ops.serving.observed_app import observed
from ops.sql.database import Transactions
from ops.sql.tables import leases
from ops.telemetry.observations import Observations
from stream.times import from_ms, to_ms

KEPT_DEATHS = timedelta(minutes=10)
KEPT_WINDOWS = timedelta(minutes=10)
KEPT_CONSUMERS = timedelta(hours=1)
DRAIN_S = 60.0


class DatabaseProbe:
    """Reads routes, the operator's lease and its restarts from the database."""

    def __init__(self, database: Transactions, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._seen: dict[str, tuple[int, datetime]] = {}

    def __call__(self) -> DatabaseReading:
        """Query the database.

        Raises:
            DatabaseUnavailable, DatabaseIncompatible: It does not answer as expected.
        """
        began = time.monotonic()
        with self._database.read() as connection:
            routes = all_routes(connection)
            waiting = {record.model for record in unpublished(connection)}
            lease = connection.execute(select(leases)).one_or_none()
            died = restarts.finding(connection)
        took_ms = (time.monotonic() - began) * 1000
        now = self._clock()
        for model, record in routes.items():
            if self._seen.get(model, (None,))[0] != record.epoch:
                self._seen[model] = record.epoch, now
        known = {
            model: RouteReading(record, model not in waiting, self._seen[model][1])
            for model, record in routes.items()
        }
        holder, until = (lease.holder, lease.until) if lease else (None, None)
        return DatabaseReading(took_ms, known, holder, until, died)

    def close(self) -> None:
        """Do nothing; the database is shared and closed elsewhere."""


class AppsProbe:
    """Reads the Serve apps from Ray's API and tracks which replicas died."""

    def __init__(self, dashboard: str, token_path: Path | None, clock: Clock) -> None:
        self._dashboard, self._token_path, self._clock = dashboard, token_path, clock
        self._mortality: dict[str, DeathCounter] = {}

    def __call__(self) -> Mapping[str, AppReading]:
        """Query Ray's API.

        Raises:
            NotRunning: The API does not answer.
        """
        found = applications(self._dashboard, self._token_path)
        for name in self._mortality.keys() - found.keys():
            del self._mortality[name]
        return {name: self._reading(name, app) for name, app in found.items()}

    def close(self) -> None:
        """Do nothing; no connection is kept open."""

    def _reading(self, name: str, app: Mapping[str, Any]) -> AppReading:
        found = observed(app)
        mortality = self._mortality.setdefault(name, DeathCounter())
        return AppReading(
            status=found.status,
            message=found.message,
            target=found.target,
            running=found.replicas,
            deaths=mortality.observe(app, self._clock()),
        )


class DeathCounter:
    """Counts replicas of one app that died unexpectedly.

    Serve lists stopped replicas without a reason or time. So every new entry counts, minus the
    replicas that a deployment or a smaller target stopped.
    """

    def __init__(self) -> None:
        self._known: set[str] | None = None
        self._deployed_at: float | None = None
        self._target = 0
        self._told_to_stop = 0
        self._deaths: list[datetime] = []

    def observe(self, app: Mapping[str, Any], now: datetime) -> tuple[datetime, ...]:
        """Process an app's state from Serve; return when replicas were recently found dead."""
        deployments = app.get("deployments", {}).values()
        gone = {r["replica_id"] for d in deployments for r in d.get("recent_dead_replicas", ())}
        target = sum(d.get("target_num_replicas", 0) for d in deployments)
        deployed_at = app.get("last_deployed_time_s")
        if self._known is None:  # their time of death is unknown
            self._known, self._deployed_at, self._target = gone, deployed_at, target
        if deployed_at != self._deployed_at:
            self._told_to_stop += self._target
        else:
            self._told_to_stop += max(0, self._target - target)
        new = len(gone - self._known)
        stopped = min(new, self._told_to_stop)
        self._told_to_stop -= stopped
        self._deaths += [now] * (new - stopped)
        self._deaths = [moment for moment in self._deaths if now - moment <= KEPT_DEATHS]
        self._known, self._deployed_at, self._target = gone, deployed_at, target
        return tuple(self._deaths)


class MachineProbe:
    """Checks the disk of the state directory and certificate files."""

    def __init__(self, config: PlatformConfig) -> None:
        self._state_dir = config.state_dir
        self._files = certificate_files(config)

    def __call__(self) -> MachineReading:
        """Read disk usage and certificates.

        Raises:
            OSError: The directory is missing.
        """
        disk = shutil.disk_usage(self._state_dir)
        certificates = tuple(certificate(what, path) for what, path in self._files.items())
        place = str(self._state_dir.resolve())
        return MachineReading(place, disk.free, disk.total, certificates)

    def close(self) -> None:
        """Do nothing; no file is kept open."""


def certificate_files(config: PlatformConfig) -> dict[str, Path]:
    """Return the certificate files that the configuration names, by setting."""
    named = {
        "api.tls_certfile": config.api.tls_certfile,
        "kafka.ssl_certfile": config.kafka.ssl_certfile,
        "kafka.ssl_cafile": config.kafka.ssl_cafile,
    }
    return {what: path for what, path in named.items() if path is not None}


def certificate(what: str, path: Path) -> Certificate:
    """Return when a certificate file expires.

    A chain expires with its first certificate; a set of authorities with its last.
    """
    from cryptography import x509  # imported late: most configurations name no file

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as exc:
        return Certificate(what, str(path), None, str(exc))
    ends = [one.not_valid_after_utc for one in found]
    return Certificate(what, str(path), max(ends) if "cafile" in what else min(ends))


def telling(expected: Expected, observations: Observations, now: datetime) -> PipelineReports:
    """Return what the pipelines reported recently."""
    consumers = observations.consumers(since_ms=to_ms(now - KEPT_CONSUMERS))
    drained: dict[str, int] = {}
    recent_ms = to_ms(now) - DRAIN_S * 1000
    for model in {pipeline.model for pipeline in expected.pipelines}:
        for window in observations.windows(model, since_ms=to_ms(now - KEPT_WINDOWS)):
            name = window.pipeline or ""
            if window.end_ms > recent_ms:
                done = window.answers + sum(window.failures.values())
                drained[name] = drained.get(name, 0) + done
    ends = observations.newest_ms()  # for an idle pipeline, from long ago
    return PipelineReports(
        consumers=tuple(consumers),
        windows={name: from_ms(ms) for name, ms in ends.items()},
        drained_per_s={name: count / DRAIN_S for name, count in drained.items()},
        losses=tuple(observations.losses()),
    )
