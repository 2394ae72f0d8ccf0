"""What is known of a platform at one moment: the shapes that probes fill and rules read. Pure."""

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
    """What the configuration says should be there.

    Attributes:
        topics: That every installation and its pipelines need.
        models: Those whose versions the routes name.
    """

    pipelines: tuple[PipelineSettings, ...]
    topics: frozenset[str]
    models: frozenset[str]


@dataclass(frozen=True)
class Fault:
    """A probe that failed, or did not answer in time.

    Attributes:
        since: The first time of those without success between.
    """

    why: str
    since: datetime


@dataclass(frozen=True)
class LagSample:
    """Records of a pipeline that were not yet committed at a moment."""

    at: datetime
    lag: int


@dataclass(frozen=True)
class KafkaReading:
    """What the brokers tell.

    Attributes:
        topics: All that there are.
        lags: By pipeline, of the last minutes, the newest last.
        unread: By pipeline, why its lag cannot be read now.
        held: By pipeline, transactions of its producers that stay open.
    """

    topics: frozenset[str]
    lags: Mapping[str, tuple[LagSample, ...]]
    unread: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, tuple[OpenTransaction, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundTrip:
    """A record that was produced and read back."""

    took_ms: float


@dataclass(frozen=True)
class AppReading:
    """A Serve app.

    Attributes:
        message: Why it is not running; empty where it is.
        target: Replicas that it shall have.
        running: Those that it has.
        deaths: When replicas were found dead lately; those that were scaled away do not count.
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
        published: Whether the control topic has it, as far as SQL knows.
        since: When its epoch was first seen.
    """

    record: ControlRecord
    published: bool
    since: datetime


@dataclass(frozen=True)
class DatabaseReading:
    """What the database tells, and how long it took.

    Attributes:
        leader: Of the operators, by its lease; None where there never was one.
        lease_until: When the lease ends, unless it is renewed.
        restarts: What is to be told of operators that died; None where that is nothing.
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
        texts: Answers that were compared.
        agreed: Those with the label, or the embedding, of when the version was sealed.
        others: Digests of replicas that answered with other weights than the route names.
        fault: Why there is no answer; None where there is one.
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
        what: Whose they are.
        expires: When the file stops being of use; None where it cannot be read.
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
    """What the pipelines told of themselves.

    Attributes:
        consumers: The last heartbeat of each.
        windows: When each pipeline's newest telemetry window ended.
        drained_per_s: Records that each pipeline finished per second, of late.
        losses: Records that were deleted before they were read, as far as they are known.
    """

    consumers: tuple[ConsumerRecord, ...] = ()
    windows: Mapping[str, datetime] = field(default_factory=dict)
    drained_per_s: Mapping[str, float] = field(default_factory=dict)
    losses: tuple[DeletedRecords, ...] = ()


@dataclass(frozen=True)
class Readings:
    """All of it. None: not asked yet.

    Attributes:
        began: Since when it is watched.
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
