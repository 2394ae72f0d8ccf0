"""Deletes versions that a policy no longer keeps, once an hour.

``ops.releases.retention`` decides which versions must stay regardless of the policy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy import select

from ops.access.ledger import OPERATOR
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.errors import OpsError, VersionInUse
from ops.policy.store import all_in_force
from ops.releases.retention import Retention
from ops.sql.database import Database
from ops.sql.tables import models

FIRST_AFTER_S: Final = 60.0
EVERY_S: Final = 3600.0

logger = logging.getLogger(__name__)


class VersionCleaner:
    """Applies ``retention`` of every policy in force; a model without a policy keeps all versions.

    Deleting is slow on a remote store, so it runs in a separate thread.
    """

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        *,
        leads: Callable[[], bool],
        clock: Callable[[], datetime],
    ) -> None:
        """Store the dependencies; nothing is deleted yet.

        Args:
            leads: Returns whether this operator holds the lease.
            clock: Returns the time, timezone-aware.
        """
        self._database = database
        self._retention = Retention(database, store)
        self._leads = leads
        self._clock = clock
        self._unfinished: dict[VersionId, str] = {}

    def run(self, stopping: threading.Event) -> None:
        """Clean until ``stopping`` is set; an error is logged and retried an hour later."""
        pause_s = FIRST_AFTER_S
        while not stopping.wait(pause_s):
            pause_s = EVERY_S
            if self._leads():
                try:
                    self.clean(stopping)
                except OpsError as exc:
                    logger.warning("could not delete versions no longer kept by policy: %s", exc)

    def clean(self, stopping: threading.Event) -> None:
        """Delete every version that its policy no longer keeps; each has a row in the ledger.

        A version whose files could not be deleted is tried again the next time.

        Raises:
            OpsError: The database does not answer.
        """
        with self._database.read() as connection:
            policies = all_in_force(connection, connection.scalars(select(models.c.name)).all())
        due = dict(self._unfinished)
        for model, kept in policies.items():
            keep = kept.policy().retention.versions
            reason = f"the policy keeps the newest {keep} versions, and this one is not in use"
            due |= dict.fromkeys(self._retention.deletable(model, keep=keep), reason)
        for version, reason in due.items():
            if stopping.is_set() or not self._leads():
                return
            self._delete(version, reason)

    def _delete(self, version: VersionId, reason: str) -> None:
        self._unfinished[version] = reason
        try:
            self._retention.delete(version, actor=OPERATOR, now=self._clock(), reason=reason)
        except VersionInUse:
            pass  # a release of it has started meanwhile
        except OpsError as exc:
            logger.warning("%s is not deleted yet: %s", version, exc)
            return
        else:
            logger.info("%s deleted: %s", version, reason)
        del self._unfinished[version]
