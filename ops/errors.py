"""Every error of ``ops``.

OpsError
|-- RuntimeMissing            what the embedded Kafka runs on is not there
|   |-- JarUnavailable        a jar could not be downloaded (retriable)
|   |-- JarAltered            a jar has not the pinned sha256; it was removed (retriable)
|   `-- JavaMissing           no Java that is new enough
`-- BrokerError               the embedded Kafka
    |-- PortTaken             something else listens on its port
    |-- BrokerStartFailed     it died, or did not answer in time
    `-- BrokerNotStarted      asked for what only a started broker has
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
