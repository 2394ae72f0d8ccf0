"""All errors of ``ops``.

OpsError
|-- RuntimeMissing            the embedded Kafka lacks a jar or a Java runtime
|   |-- JarUnavailable        a jar could not be downloaded (retriable)
|   |-- JarAltered            a jar did not match its pinned sha256 and was deleted (retriable)
|   `-- JavaMissing           there is no Java that is recent enough
|-- BrokerError               the embedded Kafka failed
|   |-- PortTaken             another process listens on its port
|   |-- BrokerStartFailed     it died, or did not answer in time
|   `-- BrokerNotStarted      an operation needs a broker that was started before
|-- ConfigError               the YAML file is invalid
|-- NoJsonObject              a line to send is not a JSON object
|-- PolicyError               a model's policy is invalid
|-- PlatformError             an operation on the whole platform failed
|   |-- NotRunning            an operation needs a running platform
|   |-- GroupTaken            another application uses a pipeline's consumer group
|   |-- Busy                  another ``up`` or ``down`` uses the same state directory
|   |-- ClusterStartFailed    Ray died while it started, or did not answer in time
|   |-- DriverDied            a process that ``up`` needs died during deployment
|   |-- ClusterUnreachable    the configured Ray cluster does not answer
|   |-- NoCapacity                the cluster lacks the resources for a replica
|   `-- DeployFailed          a replica cannot be built
|-- DatabaseUnavailable       the database is unavailable, or was busy for too long (retriable)
|-- DatabaseIncompatible      its tables belong to another version of bertstream
|-- ArtifactStoreError        the artifact store failed
|   |-- StoreUnavailable      it cannot be reached, read or written (retriable)
|   `-- StoreUnsupported      this kind of store needs a package that is not installed
|-- RegistryError             an operation on models or versions failed
|   |-- BadModelName          a model cannot have this name
|   |-- UnknownVersion        no such model or version, or its files were deleted
|   `-- VersionInUse          the version serves, or a rollback could need it
|-- ReleaseError              a release cannot do what was requested
|   |-- UnknownRelease        there is no release with this number, or none is open
|   |-- ReleaseOpen           another release of the model is still open
|   |-- VersionIsLive         the version is already live with the same settings
|   |-- EventRefused          the request is not possible in the release's state
|   |-- OutsideWindow         the policy refuses releases at this time
|   `-- ReleaseMoved          another process changed the release at the same time (retriable)
|-- RequestError              the control API refuses a request
|   |-- NotAuthenticated      the request has no valid token
|   |-- NotAllowed            a permission is missing
|   |-- Invalid               the request is invalid for every caller; lists the problems
|   |-- NotFound              no such person, team, grant, token or policy
|   |-- Conflict              the request conflicts with the current state
|   `-- UploadBroken          an upload stalled or broke off (retriable)
|-- ApiRefused                the control API answered the command line with an error
|-- NoRoundTrip               a probe's record was not read back from Kafka in time (retriable)
`-- NotReady                  the platform cannot do this at the moment (retriable)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ops.problems import Problem


class OpsError(Exception):
    """Base class of the errors of ``ops``."""

    retriable: ClassVar[bool] = False


class RuntimeMissing(OpsError):
    """The embedded Kafka lacks a jar or a Java runtime."""


class JarUnavailable(RuntimeMissing):
    """A jar could not be downloaded."""

    retriable: ClassVar[bool] = True


class JarAltered(RuntimeMissing):
    """A jar did not match its pinned sha256 and was deleted."""

    retriable: ClassVar[bool] = True


class JavaMissing(RuntimeMissing):
    """There is no Java that is recent enough."""


class BrokerError(OpsError):
    """The embedded Kafka failed."""


class PortTaken(BrokerError):
    """Another process listens on the broker's port."""


class BrokerStartFailed(BrokerError):
    """The broker died while it started, or did not answer in time."""


class BrokerNotStarted(BrokerError):
    """The operation needs a broker that was started before."""


class ConfigError(OpsError):
    """The YAML file is invalid; the message lists every mistake."""


class NoJsonObject(OpsError):
    """A line to send as JSON is not a JSON object."""


class PlatformError(OpsError):
    """An operation on the whole platform failed."""


class NotRunning(PlatformError):
    """The operation needs a running platform."""


class Busy(PlatformError):
    """Another ``up`` or ``down`` uses the same state directory."""


class GroupTaken(PlatformError):
    """Another application or installation uses a pipeline's consumer group."""


class ClusterStartFailed(PlatformError):
    """Ray died while it started, or did not answer in time."""


class DriverDied(PlatformError):
    """The deploying process, the Ray head or Kafka died during deployment."""


class ClusterUnreachable(PlatformError):
    """The configured Ray cluster does not answer."""


class NoCapacity(PlatformError):
    """The cluster lacks the resources for a replica."""


class DeployFailed(PlatformError):
    """A replica cannot be built; the message is the replica's own."""


class DatabaseUnavailable(OpsError):
    """The database is unavailable, or was busy for too long."""

    retriable: ClassVar[bool] = True


class DatabaseIncompatible(OpsError):
    """The database's tables belong to another version of bertstream."""


class ArtifactStoreError(OpsError):
    """The artifact store failed, or a URI in it is wrong."""


class StoreUnavailable(ArtifactStoreError):
    """The artifact store cannot be reached, read or written."""

    retriable: ClassVar[bool] = True


class StoreUnsupported(ArtifactStoreError):
    """This kind of artifact store needs a package that is not installed."""


class RegistryError(OpsError):
    """An operation on models or versions failed."""


class BadModelName(RegistryError):
    """A model cannot have this name."""


class UnknownVersion(RegistryError):
    """There is no such model or version, or its files were deleted."""


class VersionInUse(RegistryError):
    """The version serves, or a rollback could need it."""


class PolicyError(OpsError):
    """A model's policy is invalid; the message lists every mistake."""


class ReleaseError(OpsError):
    """A release cannot do what was requested."""


class UnknownRelease(ReleaseError):
    """There is no release with this number, or the model has no open release."""


class ReleaseOpen(ReleaseError):
    """Another release of the model is still open."""


class VersionIsLive(ReleaseError):
    """The version is already live with the same settings."""


class EventRefused(ReleaseError):
    """The request is not possible in the release's state."""


class OutsideWindow(ReleaseError):
    """The policy refuses releases at this time."""


class ReleaseMoved(ReleaseError):
    """Another process changed the release at the same time."""

    retriable: ClassVar[bool] = True


class RequestError(OpsError):
    """The control API refuses a request."""


class NotAuthenticated(RequestError):
    """The request has no token, or an invalid one."""


class NotAllowed(RequestError):
    """The caller lacks a permission; the message names it and who has it."""


class Invalid(RequestError):
    """The request is invalid for every caller.

    Attributes:
        problems: One for each mistake, if the request contains a text.
    """

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class NotFound(RequestError):
    """There is no such person, team, grant, token or policy."""


class Conflict(RequestError):
    """The request conflicts with the current state: it exists, is in use or is the last one."""


class UploadBroken(RequestError):
    """An upload stalled or broke off; the message has the number of bytes received."""

    retriable: ClassVar[bool] = True


class ApiRefused(OpsError):
    """The control API refused a request or failed; the message is the API's.

    Attributes:
        status: HTTP status code.
        problems: Mistakes, each with ``line``, ``column``, ``path`` and ``message``.
    """

    def __init__(
        self, message: str, status: int, problems: tuple[dict[str, object], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems


class NoRoundTrip(OpsError):
    """A record written to Kafka as a probe was not read back in time."""

    retriable: ClassVar[bool] = True


class NotReady(OpsError):
    """The platform cannot do this at the moment; the message says why."""

    retriable: ClassVar[bool] = True
