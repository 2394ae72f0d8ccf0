"""Records losses in the ledger: input records deleted before a pipeline read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select

from ops.access.ledger import OPERATOR, Entry, append
from ops.sql.database import Database
from ops.sql.tables import ledger
from ops.telemetry.observations import DeletedRecords

ACTION: Final = "records.deleted-unread"


class DeletedRecordsLog:
    """Records each loss once, no matter which operator received the report."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written: set[DeletedRecords] = set()

    def record(self, found: Sequence[DeletedRecords], now: datetime) -> None:
        """Add the losses that are missing in the ledger.

        Raises:
            OpsError: The database does not answer.
        """
        fresh = [loss for loss in found if loss not in self._written]
        if fresh:
            with self._database.begin() as connection:
                known = select(ledger.c.id).where(ledger.c.action == ACTION)
                for loss in fresh:
                    reason = loss.sentence()
                    if connection.execute(known.where(ledger.c.reason == reason)).first() is None:
                        evidence = {
                            "pipeline": loss.pipeline,
                            "first": loss.place,
                            "records": loss.records,
                        }
                        entry = Entry(
                            at=now, actor=OPERATOR, action=ACTION, reason=reason, evidence=evidence
                        )
                        append(connection, entry)
        self._written = set(found)
