"""Deaths of the operator's process: a ledger row for each, and an alert if they repeat.

The supervisor notes them; the next operator records them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, select

from ops.access.ledger import OPERATOR, Entry, append
from ops.health import alerts, kinds
from ops.health.findings import Finding, Severity
from ops.platform.supervisor import SupervisorNote
from ops.sql import tables

ACTION: Final = "operator.restart"
# Key of the alert, and of the finding that health derives from it.
KEY: Final = kinds.OPERATOR_DIES.key
WITHIN: Final = timedelta(hours=1)
# This many deaths within WITHIN raise the alert.
REPEATED: Final = 3


def record(connection: Connection, note: SupervisorNote, now: datetime) -> None:
    """Record the predecessor's death; do nothing for the supervisor's first child."""
    if not note.deaths:
        return
    update_alert(connection, note, now)
    entry = Entry(
        at=now,
        actor=OPERATOR,
        action=ACTION,
        reason=f"the operator was restarted: {note.sentence()}",
        evidence={"how": note.how, "lived_s": note.lived_s, "deaths": len(note.deaths)},
    )
    append(connection, entry)


def update_alert(connection: Connection, note: SupervisorNote, now: datetime) -> None:
    """Open, update or close the alert according to the deaths of the last hour."""
    lately = lately_died(note, now)
    if len(lately) < REPEATED:
        alerts.close(connection, KEY, now)
        return
    what = f"the operator dies repeatedly: {note.sentence()}"
    dies = kinds.OPERATOR_DIES.found(Severity.DEGRADED, what, lately[0])
    alerts.raise_alert(connection, dies, now)


def finding(connection: Connection) -> Finding | None:
    """Return the open alert as a finding; None if there is none."""
    this = (tables.alerts.c.key == KEY) & tables.alerts.c.closed_at.is_(None)
    row = connection.execute(select(tables.alerts).where(this)).one_or_none()
    if row is None:
        return None
    return Finding(KEY, Severity(row.severity), row.what, row.since, row.hurts, row.todo)


def lately_died(note: SupervisorNote, now: datetime) -> list[datetime]:
    """Return the times of death within the last hour, oldest first."""
    moments = (datetime.fromtimestamp(died_at, UTC) for died_at in note.deaths)
    return [moment for moment in moments if now - moment < WITHIN]
