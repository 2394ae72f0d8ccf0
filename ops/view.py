"""What the parts of the operator read, and what they act on."""

from __future__ import annotations

from typing import NamedTuple

from ops.serving.apps import Apps
from ops.sql.database import Database
from ops.telemetry.observations import Observations


class PlatformView(NamedTuple):
    """A platform as its operator sees it.

    Attributes:
        observations: What consumers have reported.
        apps: Serve's, as they were found last.
    """

    database: Database
    observations: Observations
    apps: Apps
