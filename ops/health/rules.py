"""Health of a platform: from readings to findings and one grade. Pure.

The probes create the readings. Rules for pipelines are in ``pipeline_rules``, rules for Serve apps
and versions in ``serving_rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ops.health import kinds
from ops.health.findings import Finding, Severity, fine, remembered, worst
from ops.health.kinds import FindingKind
from ops.health.pipeline_rules import pipeline_findings
from ops.health.readings import (
    Certificate,
    DatabaseReading,
    Expected,
    Fault,
    KafkaReading,
    MachineReading,
    Readings,
    RoundTrip,
)
from ops.health.serving_rules import serve_findings

SLOW_ROUND_TRIP_MS = 1_000.0
SLOW_DATABASE_MS = 500.0
PUBLISHED_WITHIN = timedelta(seconds=10)
# A running operator renews its lease about once a second.
LEASE_GRACE = timedelta(seconds=5)
FIRST_TICK_WITHIN = timedelta(seconds=20)
EXPIRES_SOON = timedelta(days=21)
SCARCE_SHARE, SCARCE_BYTES = 0.10, 2 * 10**9
FULL_SHARE, FULL_BYTES = 0.02, 200 * 10**6


@dataclass(frozen=True)
class Health:
    """Health report of a platform.

    Attributes:
        readings: Readings behind the findings; None if they are unavailable.
    """

    at: datetime
    findings: tuple[Finding, ...]
    readings: Readings | None = None

    @property
    def status(self) -> Severity:
        """Worst severity of all findings; its ``grade`` is the overall grade."""
        return worst(self.findings)


def judge(expected: Expected, readings: Readings, earlier: Iterable[Finding] = ()) -> Health:
    """Derive the health report from readings.

    Args:
        earlier: Findings of the previous round; those that persist keep their time.
    """
    found = [
        *_faults(readings),
        *_kafka(expected, readings),
        *serve_findings(expected, readings),
        *_control(readings),
        *_database(readings),
        *_machine(readings),
        *pipeline_findings(expected, readings),
    ]
    return Health(readings.at, tuple(remembered(found, earlier)), readings)


# Kind and severity of the finding if a probe fails.
_UNANSWERED: Mapping[str, tuple[FindingKind, Severity]] = {
    "kafka": (kinds.KAFKA_SILENT, Severity.DOWN),
    "round_trip": (kinds.ROUND_TRIP_FAILED, Severity.DOWN),
    "control": (kinds.CONTROL_UNREADABLE, Severity.DEGRADED),
    "apps": (kinds.RAY_SILENT, Severity.DEGRADED),
    "database": (kinds.DATABASE_SILENT, Severity.DEGRADED),
    "golden": (kinds.GOLDEN_UNASKED, Severity.DEGRADED),
    "machine": (kinds.FILES_UNREADABLE, Severity.DEGRADED),
}


def _faults(readings: Readings) -> Iterator[Finding]:
    for probe, (kind, severity) in _UNANSWERED.items():
        reading = getattr(readings, probe)
        if isinstance(reading, Fault):
            yield kind.found(severity, reading.why, reading.since)


def _kafka(expected: Expected, readings: Readings) -> Iterator[Finding]:
    if isinstance(readings.kafka, KafkaReading):
        yield fine("kafka/brokers", "the brokers answer", readings.at)
        missing = sorted(expected.topics - readings.kafka.topics)
        if missing:
            what = f"there is no topic {', '.join(missing)}"
            yield kinds.TOPICS_MISSING.found(Severity.DOWN, what, readings.at)
        else:
            count = len(expected.topics)
            yield fine("kafka/topics", f"all {count} topics exist", readings.at)
    if isinstance(readings.round_trip, RoundTrip):
        took_ms = readings.round_trip.took_ms
        what = f"a record through Kafka and back took {took_ms:.0f} ms"
        if took_ms <= SLOW_ROUND_TRIP_MS:
            yield fine("kafka/round-trip", what, readings.at)
        else:
            yield kinds.ROUND_TRIP_SLOW.found(Severity.DEGRADED, what, readings.at)


def _control(readings: Readings) -> Iterator[Finding]:
    """Compare routes in force with those that were published and those on the control topic."""
    if not isinstance(readings.database, DatabaseReading):
        return
    for model, route in readings.database.routes.items():
        if readings.at - route.since <= PUBLISHED_WITHIN:
            continue
        key, epoch = f"control/{model}", route.record.epoch
        if not route.published:
            what = f"the route of {model} (epoch {epoch}) has not been published yet"
            yield kinds.ROUTE_NOT_SENT.found(Severity.DEGRADED, what, route.since, model=model)
        elif isinstance(readings.control, Mapping):
            if readings.control.get(model) == route.record:
                yield fine(key, f"topic bertstream.control has epoch {epoch}", readings.at)
                continue
            held = readings.control.get(model)
            has = f"epoch {held.epoch}" if held else "no route"
            what = f"topic bertstream.control has {has} of {model} instead of epoch {epoch}"
            yield kinds.ROUTE_DIFFERS.found(Severity.DEGRADED, what, readings.at, model=model)


def _database(readings: Readings) -> Iterator[Finding]:
    database = readings.database
    if not isinstance(database, DatabaseReading):
        return
    what = f"the database answers in {database.took_ms:.0f} ms"
    if database.took_ms <= SLOW_DATABASE_MS:
        yield fine("database/answers", what, readings.at)
    else:
        yield kinds.DATABASE_SLOW.found(Severity.DEGRADED, what, readings.at)
    if database.restarts is not None:
        yield database.restarts
    until = database.lease_until
    if until is not None and readings.at <= until + LEASE_GRACE:
        moment = until.isoformat(timespec="seconds")
        yield fine("operator/lease", f"{database.leader} leads until {moment}", readings.at)
        return
    if readings.at - readings.began <= FIRST_TICK_WITHIN:
        return  # an operator that starts acquires the lease in its first tick
    ended = f"; the last lease ended {until.isoformat(timespec='seconds')}" if until else ""
    what = f"no operator leads{ended}"
    yield kinds.NO_LEADER.found(Severity.DEGRADED, what, until or readings.began)


def _machine(readings: Readings) -> Iterator[Finding]:
    machine = readings.machine
    if not isinstance(machine, MachineReading):
        return
    yield _disk(machine, readings.at)
    for certificate in machine.certificates:
        yield _certificate(certificate, readings.at)


def _disk(machine: MachineReading, at: datetime) -> Finding:
    free, share = machine.free_bytes, machine.free_bytes / max(1, machine.total_bytes)
    what = f"{free / 1e9:.1f} GB ({share:.0%}) are free on the disk of {machine.path}"
    if share >= SCARCE_SHARE and free >= SCARCE_BYTES:
        return fine("machine/disk", what, at)
    full = share < FULL_SHARE or free < FULL_BYTES
    severity = Severity.DOWN if full else Severity.DEGRADED
    return kinds.DISK_SCARCE.found(severity, what, at)


def _certificate(certificate: Certificate, at: datetime) -> Finding:
    setting, expires = certificate.what, certificate.expires
    name = f"{setting} ({certificate.path})"
    ends = partial(kinds.CERTIFICATE_ENDS.found, setting=setting)
    if expires is None:
        what = f"{name} cannot be read: {certificate.fault}"
        unreadable = kinds.CERTIFICATE_UNREADABLE
        return unreadable.found(Severity.DEGRADED, what, at, setting=setting)
    day = expires.isoformat(timespec="minutes")
    if expires <= at:
        return ends(Severity.DOWN, f"{name} expired {day}", expires)
    if expires - at < EXPIRES_SOON:
        return ends(Severity.DEGRADED, f"{name} expires {day}", expires - EXPIRES_SOON)
    return fine(f"certificate/{setting}", f"{name} is valid until {day}", at)
