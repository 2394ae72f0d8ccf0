"""State shared by the parts of the operator."""

from __future__ import annotations

from typing import NamedTuple

from ops.serving.apps import Apps
from ops.sql.database import Database
from ops.telemetry.observations import Observations


class PlatformView(NamedTuple):
    """A platform as its operator sees it.

    Attributes:
        observations: Recent reports of the consumers.
        apps: Serve apps, as of the last refresh.
    """

    database: Database
    observations: Observations
    apps: Apps
