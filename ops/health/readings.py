"""Readings of a platform at one moment: probes create them, rules evaluate them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ops.health.findings import Finding
from ops.telemetry.observations import DeletedRecords
from stream.records import OpenTransaction
from stream.schema import ConsumerRecord, ControlRecord
from stream.settings import PipelineSettings


class Expected(NamedTuple):
    """Desired state according to the configuration.

    Attributes:
        topics: Topics that the platform and its pipelines need.
        models: Configured models, whose versions the routes name.
    """

    pipelines: tuple[PipelineSettings, ...]
    topics: frozenset[str]
    models: frozenset[str]


@dataclass(frozen=True)
class Fault:
    """A probe that failed, or did not answer in time.

    Attributes:
        since: Time of the first failure since the last success.
    """

    why: str
    since: datetime


@dataclass(frozen=True)
class LagSample:
    """Number of records of a pipeline that were not yet committed at a moment."""

    at: datetime
    lag: int


@dataclass(frozen=True)
class KafkaReading:
    """State reported by the brokers.

    Attributes:
        topics: Names of all topics.
        lags: Samples of the last minutes by pipeline, newest last.
        unread: Reason why a lag cannot be read now, by pipeline.
        held: Producer transactions that stay open in the input topics, by pipeline.
    """

    topics: frozenset[str]
    lags: Mapping[str, tuple[LagSample, ...]]
    unread: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, tuple[OpenTransaction, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundTrip:
    """Duration for a record to be produced and read back."""

    took_ms: float


@dataclass(frozen=True)
class AppReading:
    """A Serve app.

    Attributes:
        message: Reason why the app is not running; empty if it is.
        target: Desired number of replicas.
        running: Actual number of replicas.
        deaths: When replicas were recently found dead, without those stopped by scaling down.
    """

    status: str
    message: str
    target: int
    running: int
    deaths: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class RouteReading:
    """A model's route in force.

    Attributes:
        published: Whether the route is on the control topic, according to SQL.
        since: When the route's epoch was first seen.
    """

    record: ControlRecord
    published: bool
    since: datetime


@dataclass(frozen=True)
class DatabaseReading:
    """State in the database, and the time of the query.

    Attributes:
        leader: Operator that holds the lease; None if there never was one.
        lease_until: When the lease ends, unless it is renewed.
        restarts: Finding about operators that died; None if there is none.
    """

    took_ms: float
    routes: Mapping[str, RouteReading]
    leader: str | None
    lease_until: datetime | None
    restarts: Finding | None = None


@dataclass(frozen=True)
class GoldenReading:
    """How the replicas of a version answered its golden texts.

    Attributes:
        texts: Number of answers that were compared.
        agreed: Number of answers with the label or embedding from when the version was sealed.
        others: Digests of replicas that answered with other weights than the route names.
        fault: Reason why there is no answer; None if there is one.
    """

    at: datetime
    texts: int
    agreed: int
    others: tuple[str, ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class Certificate:
    """A file with certificates.

    Attributes:
        what: Setting that names the file.
        expires: When the file expires; None if it cannot be read.
    """

    what: str
    path: str
    expires: datetime | None
    fault: str = ""


@dataclass(frozen=True)
class MachineReading:
    """Disk under the state directory, in bytes, and certificate files."""

    path: str
    free_bytes: int
    total_bytes: int
    certificates: tuple[Certificate, ...] = ()


@dataclass(frozen=True)
class PipelineReports:
    """Recent reports of the pipelines.

    Attributes:
        consumers: The last heartbeat of each consumer.
        windows: End of the newest telemetry window, by pipeline.
        drained_per_s: Records completed per second recently, by pipeline.
        losses: Known records that were deleted before they were read.
    """

    consumers: tuple[ConsumerRecord, ...] = ()
    windows: Mapping[str, datetime] = field(default_factory=dict)
    drained_per_s: Mapping[str, float] = field(default_factory=dict)
    losses: tuple[DeletedRecords, ...] = ()


@dataclass(frozen=True)
class Readings:
    """All readings of one round; None where a probe has not run yet.

    Attributes:
        began: When monitoring started.
    """

    at: datetime
    began: datetime
    kafka: KafkaReading | Fault | None = None
    round_trip: RoundTrip | Fault | None = None
    control: Mapping[str, ControlRecord] | Fault | None = None
    apps: Mapping[str, AppReading] | Fault | None = None
    database: DatabaseReading | Fault | None = None
    golden: Mapping[str, GoldenReading] | Fault | None = None
    machine: MachineReading | Fault | None = None
    telling: PipelineReports = field(default_factory=PipelineReports)
