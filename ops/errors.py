"""Every error of ``ops``.

OpsError
|-- RuntimeMissing            what the embedded Kafka runs on is not there
|   |-- JarUnavailable        a jar could not be downloaded (retriable)
|   |-- JarAltered            a jar has not the pinned sha256; it was removed (retriable)
|   `-- JavaMissing           no Java that is new enough
|-- BrokerError               the embedded Kafka
|   |-- PortTaken             something else listens on its port
|   |-- BrokerStartFailed     it died, or did not answer in time
|   `-- BrokerNotStarted      asked for what only a started broker has
|-- ConfigError               the YAML file says something that cannot be
|-- NoJsonObject              a line that is to be sent is no JSON object
|-- PolicyError               a model's policy says something that cannot be
|-- PlatformError             the platform as a whole
|   |-- NotRunning            asked for what only a running platform has
|   |-- GroupTaken            others read with a pipeline's consumer group
|   |-- Busy                  another ``up`` or ``down`` is at work on the same state
|   |-- ClusterStartFailed    Ray died while it started, or did not answer in time
|   |-- DriverDied            what ``up`` needs died while it deployed
|   |-- ClusterUnreachable    the Ray cluster that was named does not answer
|   |-- NoRoom                the cluster has not what a replica wants
|   `-- DeployFailed          a replica cannot be built
|-- DatabaseUnavailable       the database is gone, or was busy for too long (retriable)
|-- DatabaseIncompatible      its tables are not those of this version
|-- ArtifactStoreError        where the files of versions are kept
|   |-- StoreUnavailable      it cannot be reached, read or written (retriable)
|   `-- StoreUnsupported      its kind needs a package that is not installed
|-- RegistryError             models and their versions
|   |-- BadModelName          a name that a model cannot have
|   |-- UnknownVersion        no such model or version, or its files were deleted
|   `-- VersionInUse          it serves, or a rollback could need it
|-- ReleaseError              a release cannot do what was asked
|   |-- UnknownRelease        there is none of that number, or none that is open
|   |-- ReleaseOpen           another release of the model is not over
|   |-- VersionIsLive         it serves already, with the same settings
|   |-- EventRefused          what was asked means nothing in its state
|   |-- OutsideWindow         the policy refuses releases at this time
|   `-- ReleaseMoved          somebody else moved it at the same moment (retriable)
|-- RequestError              what somebody asked of the control API
|   |-- NotAuthenticated      no token, or none that counts
|   |-- NotAllowed            a permission is missing
|   |-- Invalid               it cannot be, whoever asks; lists the problems
|   |-- NotFound              no such person, team, grant, token or policy
|   |-- Conflict              it does not fit to what is there
|   `-- UploadBroken          what was being sent stalled or broke off (retriable)
|-- ApiRefused                what the control API answered to the command line
|-- NoRoundTrip               a record of ours did not come back from Kafka in time (retriable)
`-- NotReady                  the platform cannot do at the moment what it is asked (retriable)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ops.problems import Problem


class OpsError(Exception):
    """Root of the errors of ``ops``."""

    retriable: ClassVar[bool] = False


class RuntimeMissing(OpsError):
    """What the embedded Kafka runs on is not there."""


class JarUnavailable(RuntimeMissing):
    """A jar could not be downloaded."""

    retriable: ClassVar[bool] = True


class JarAltered(RuntimeMissing):
    """A jar has not the pinned sha256; it was removed."""

    retriable: ClassVar[bool] = True


class JavaMissing(RuntimeMissing):
    """No Java that is new enough."""


class BrokerError(OpsError):
    """The embedded Kafka."""


class PortTaken(BrokerError):
    """Something else listens on the broker's port."""


class BrokerStartFailed(BrokerError):
    """The broker died while it started, or did not answer in time."""


class BrokerNotStarted(BrokerError):
    """Asked for what only a broker has that was started once."""


class ConfigError(OpsError):
    """The YAML file says something that cannot be; the message lists every such thing."""


class NoJsonObject(OpsError):
    """A line that is to be sent as JSON is no JSON object."""


class PlatformError(OpsError):
    """The platform as a whole."""


class NotRunning(PlatformError):
    """Asked for what only a running platform has."""


class Busy(PlatformError):
    """Another ``up`` or ``down`` is at work on the same state directory."""


class GroupTaken(PlatformError):
    """Another application, or another installation, reads with a pipeline's consumer group."""


class ClusterStartFailed(PlatformError):
    """Ray died while it started, or did not answer in time."""


class DriverDied(PlatformError):
    """The process that deploys, Ray's head or Kafka died while apps were deployed."""


class ClusterUnreachable(PlatformError):
    """The Ray cluster that was named does not answer."""


class NoRoom(PlatformError):
    """The cluster has not what a replica wants."""


class DeployFailed(PlatformError):
    """A replica cannot be built; the message is the replica's own."""


class DatabaseUnavailable(OpsError):
    """The database is gone, or was busy for too long."""

    retriable: ClassVar[bool] = True


class DatabaseIncompatible(OpsError):
    """The tables of the database are not those of this version of bertstream."""


class ArtifactStoreError(OpsError):
    """Where the files of versions are kept, or what a URI there names."""


class StoreUnavailable(ArtifactStoreError):
    """The artifact store cannot be reached, read or written."""

    retriable: ClassVar[bool] = True


class StoreUnsupported(ArtifactStoreError):
    """An artifact store of this kind needs a package that is not installed."""


class RegistryError(OpsError):
    """Models and their versions."""


class BadModelName(RegistryError):
    """A name that a model cannot have."""


class UnknownVersion(RegistryError):
    """There is no such model or version, or its files were deleted."""


class VersionInUse(RegistryError):
    """The version serves, or a rollback could need it."""


class PolicyError(OpsError):
    """A model's policy says something that cannot be; the message lists every such thing."""


class ReleaseError(OpsError):
    """A release cannot do what was asked."""


class UnknownRelease(ReleaseError):
    """There is no release of that number, or none of that model that is open."""


class ReleaseOpen(ReleaseError):
    """Another release of the model is not over."""


class VersionIsLive(ReleaseError):
    """The version serves already, with the same settings."""


class EventRefused(ReleaseError):
    """What was asked means nothing in the state of the release."""


class OutsideWindow(ReleaseError):
    """The policy refuses releases at this time."""


class ReleaseMoved(ReleaseError):
    """Somebody else has moved the release at the same moment."""

    retriable: ClassVar[bool] = True


class RequestError(OpsError):
    """Something that was asked of the control API and is refused."""


class NotAuthenticated(RequestError):
    """No token came with the request, or one that does not count."""


class NotAllowed(RequestError):
    """Who asks has not the permission; the message says which one, and who has it."""


class Invalid(RequestError):
    """What was sent cannot be, whoever sends it.

    Attributes:
        problems: One for each mistake, where what was sent is a text.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class NotFound(RequestError):
    """There is no such person, team, grant, token or policy."""


class Conflict(RequestError):
    """It does not fit to what is there: it exists, it is used, it is the last of its kind."""


class UploadBroken(RequestError):
    """What was being sent stalled or broke off; the message says after how much."""

    retriable: ClassVar[bool] = True


class ApiRefused(OpsError):
    """The control API refused or failed; the message is its own.

    Attributes:
        status: Of HTTP.
        problems: Each with ``line``, ``column``, ``path`` and ``message``.
    """

    def __init__(
        self, message: str, status: int, problems: tuple[dict[str, object], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems


class NoRoundTrip(OpsError):
    """A record that was written to Kafka as a probe did not come back in time."""

    retriable: ClassVar[bool] = True


class NotReady(OpsError):
    """The platform cannot do at the moment what it is asked; the message says why."""

    retriable: ClassVar[bool] = True
