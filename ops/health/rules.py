"""How a platform stands: from readings to findings and one grade. Pure.

Nothing is asked here; the probes do that. What concerns pipelines is in
``pipeline_rules``, what concerns Serve apps and versions in ``serving_rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ops.health.findings import Finding, Severity, fine, remembered, worst
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
# An operator that ticks renews its lease every second or so.
LEASE_GRACE = timedelta(seconds=5)
FIRST_TICK_WITHIN = timedelta(seconds=20)
EXPIRES_SOON = timedelta(days=21)
SCARCE_SHARE, SCARCE_BYTES = 0.10, 2 * 10**9
FULL_SHARE, FULL_BYTES = 0.02, 200 * 10**6

RELEASES_STAND_STILL = "releases and scaling stand still; records go on by the last route"


@dataclass(frozen=True)
class Health:
    """How it stands.

    Attributes:
        readings: What the findings follow from; None where nobody could read.
    """

    at: datetime
    findings: tuple[Finding, ...]
    readings: Readings | None = None

    @property
    def status(self) -> Severity:
        """Of all findings the worst; its ``grade`` is the overall grade."""
        return worst(self.findings)


def judge(expected: Expected, readings: Readings, earlier: Iterable[Finding] = ()) -> Health:
    """What readings mean.

    Args:
        earlier: Findings of the round before: those that still stand keep their time.
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


# Of each probe: its key, how bad it is when it has no answer, what that hurts, what to do.
_UNANSWERED: Mapping[str, tuple[str, Severity, str, str]] = {
    "kafka": (
        "kafka/brokers",
        Severity.DOWN,
        "nothing is read and no result is written; records wait with their producers",
        "see that the brokers run and can be reached from here; `bertstream up` starts the "
        "embedded one again",
    ),
    "round_trip": (
        "kafka/round-trip",
        Severity.DOWN,
        "results cannot be written or read",
        "see the brokers' logs, their disks and their in-sync replicas",
    ),
    "control": (
        "control/topic",
        Severity.DEGRADED,
        "nobody knows which routes the pipelines follow",
        "see that topic bertstream.control can be read from here",
    ),
    "apps": (
        "ray/api",
        Severity.DEGRADED,
        "replicas can be neither seen nor scaled, and no release can load; calls may go on",
        "see that the Ray head runs and its dashboard can be reached from here; `bertstream up` "
        "starts an own one again",
    ),
    "database": (
        "database/answers",
        Severity.DEGRADED,
        RELEASES_STAND_STILL + ", and the control API refuses",
        "see that the database runs, can be reached from here and has room",
    ),
    "golden": (
        "golden/asked",
        Severity.DEGRADED,
        "nobody knows whether versions still answer as they did",
        "see that the Ray cluster and the artifact store can be reached from here",
    ),
    "machine": (
        "machine/files",
        Severity.DEGRADED,
        "nobody knows whether the disk is full or a certificate expires",
        "see that the state directory can be read",
    ),
}


def _faults(readings: Readings) -> Iterator[Finding]:
    for probe, (key, severity, hurts, todo) in _UNANSWERED.items():
        reading = getattr(readings, probe)
        if isinstance(reading, Fault):
            yield Finding(key, severity, reading.why, reading.since, hurts, todo)


def _kafka(expected: Expected, readings: Readings) -> Iterator[Finding]:
    if isinstance(readings.kafka, KafkaReading):
        yield fine("kafka/brokers", "the brokers answer", readings.at)
        missing = sorted(expected.topics - readings.kafka.topics)
        if missing:
            names = ", ".join(missing)
            yield Finding(
                "kafka/topics",
                Severity.DOWN,
                f"there is no topic {names}",
                readings.at,
                "what is sent there has no place, and what is read there never comes",
                "create it again, or `bertstream up` does; records that it held are gone",
            )
        else:
            count = len(expected.topics)
            yield fine("kafka/topics", f"all {count} topics are there", readings.at)
    if isinstance(readings.round_trip, RoundTrip):
        took_ms = readings.round_trip.took_ms
        what = f"a record through Kafka and back took {took_ms:.0f} ms"
        if took_ms <= SLOW_ROUND_TRIP_MS:
            yield fine("kafka/round-trip", what, readings.at)
        else:
            todo = "see the load of the brokers and their disks"
            yield Finding(
                "kafka/round-trip",
                Severity.DEGRADED,
                what,
                readings.at,
                "every result takes that much longer",
                todo,
            )


def _control(readings: Readings) -> Iterator[Finding]:
    """Routes in force against those that were sent, and those that can be read back."""
    if not isinstance(readings.database, DatabaseReading):
        return
    todo = "see the operator's log; it sends them again by itself"
    hurts = "pipelines follow an older route"
    for model, route in readings.database.routes.items():
        if readings.at - route.since <= PUBLISHED_WITHIN:
            continue
        key, epoch = f"control/{model}", route.record.epoch
        if not route.published:
            what = f"the route of {model} (epoch {epoch}) was not sent yet"
            yield Finding(key, Severity.DEGRADED, what, route.since, hurts, todo)
        elif isinstance(readings.control, Mapping):
            if readings.control.get(model) == route.record:
                yield fine(key, f"topic bertstream.control has epoch {epoch}", readings.at)
                continue
            held = readings.control.get(model)
            has = f"epoch {held.epoch}" if held else "no route"
            what = f"topic bertstream.control has {has} of {model}, another than epoch {epoch}"
            todo = "`bertstream up` sends all routes again; see who else writes that topic"
            yield Finding(key, Severity.DEGRADED, what, readings.at, hurts, todo)


def _database(readings: Readings) -> Iterator[Finding]:
    database = readings.database
    if not isinstance(database, DatabaseReading):
        return
    what = f"the database answers in {database.took_ms:.0f} ms"
    if database.took_ms <= SLOW_DATABASE_MS:
        yield fine("database/answers", what, readings.at)
    else:
        hurts, todo = "commands and releases are slow", "see its load and its disk"
        yield Finding("database/answers", Severity.DEGRADED, what, readings.at, hurts, todo)
    if database.restarts is not None:
        yield database.restarts
    until = database.lease_until
    if until is not None and readings.at <= until + LEASE_GRACE:
        moment = until.isoformat(timespec="seconds")
        yield fine("operator/lease", f"{database.leader} leads until {moment}", readings.at)
        return
    if readings.at - readings.began <= FIRST_TICK_WITHIN:
        return  # an operator that begins takes it with its first tick
    ended = f"; the last lease ended {until.isoformat(timespec='seconds')}" if until else ""
    yield Finding(
        "operator/lease",
        Severity.DEGRADED,
        f"no operator leads{ended}",
        until or readings.began,
        RELEASES_STAND_STILL,
        "a new one starts by itself within seconds; where it does not, see the operator's log, and "
        "`bertstream up` starts it again",
    )


def _machine(readings: Readings) -> Iterator[Finding]:
    machine = readings.machine
    if not isinstance(machine, MachineReading):
        return
    yield _disk(machine, readings.at)
    for certificate in machine.certificates:
        yield _certificate(certificate, readings.at)


def _disk(machine: MachineReading, at: datetime) -> Finding:
    free, share = machine.free_bytes, machine.free_bytes / max(1, machine.total_bytes)
    what = f"{free / 1e9:.1f} GB ({share:.0%}) are free where {machine.path} lies"
    if share >= SCARCE_SHARE and free >= SCARCE_BYTES:
        return fine("machine/disk", what, at)
    full = share < FULL_SHARE or free < FULL_BYTES
    severity = Severity.DOWN if full else Severity.DEGRADED
    hurts = "a broker or database without room stops taking what is written"
    todo = "make room, move state_dir, or have topics keep less (retention.ms, retention.bytes)"
    return Finding("machine/disk", severity, what, at, hurts, todo)


def _certificate(certificate: Certificate, at: datetime) -> Finding:
    key, expires = f"certificate/{certificate.what}", certificate.expires
    name = f"{certificate.what} ({certificate.path})"
    hurts, todo = "connections are refused from then on", "put a new one there and restart"
    if expires is None:
        what = f"{name} cannot be read: {certificate.fault}"
        return Finding(key, Severity.DEGRADED, what, at, "its end is not known", "correct the file")
    day = expires.isoformat(timespec="minutes")
    if expires <= at:
        return Finding(key, Severity.DOWN, f"{name} expired {day}", expires, hurts, todo)
    if expires - at < EXPIRES_SOON:
        since = expires - EXPIRES_SOON
        return Finding(key, Severity.DEGRADED, f"{name} expires {day}", since, hurts, todo)
    return fine(key, f"{name} is good until {day}", at)
