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
`-- PlatformError             the platform as a whole
    |-- NotRunning            asked for what only a running platform has
    |-- Busy                  another ``up`` or ``down`` is at work on the same state
    |-- ClusterStartFailed    Ray died while it started, or did not answer in time
    |-- ClusterUnreachable    the Ray cluster that was named does not answer
    |-- NoRoom                the cluster has not what a replica wants
    `-- DeployFailed          a replica cannot be built
"""

from __future__ import annotations

from typing import ClassVar


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


class ClusterStartFailed(PlatformError):
    """Ray died while it started, or did not answer in time."""


class ClusterUnreachable(PlatformError):
    """The Ray cluster that was named does not answer."""


class NoRoom(PlatformError):
    """The cluster has not what a replica wants."""


class DeployFailed(PlatformError):
    """A replica cannot be built; the message is the replica's own."""
