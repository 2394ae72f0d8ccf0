"""Alerts in SQL: problems that need attention, opened and closed in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, desc, insert, select, update

from ops.health.findings import Finding, Severity
from ops.sql.tables import alerts


@dataclass(frozen=True, kw_only=True)
class Alert(Finding):
    """A stored finding; ``closed_at`` is None while the alert is open."""

    id: int
    opened_at: datetime
    closed_at: datetime | None


def raise_alert(connection: Connection, finding: Finding, now: datetime) -> bool:
    """Open an alert, or update the open one with the same key.

    Returns:
        Whether a new alert was opened.
    """
    fields = {name: getattr(finding, name) for name in ("severity", "what", "hurts", "todo")}
    this = (alerts.c.key == finding.key) & alerts.c.closed_at.is_(None)
    if connection.execute(update(alerts).where(this).values(fields)).rowcount:
        return False
    values = fields | {"key": finding.key, "since": finding.since, "opened_at": now}
    connection.execute(insert(alerts).values(values))
    return True


def close(connection: Connection, key: str, now: datetime) -> bool:
    """Close the open alert of a key; return False if there is none."""
    this = (alerts.c.key == key) & alerts.c.closed_at.is_(None)
    return bool(connection.execute(update(alerts).where(this).values(closed_at=now)).rowcount)


def open_keys(connection: Connection, prefix: str = "") -> set[str]:
    """Return the keys of open alerts that begin with a prefix."""
    query = select(alerts.c.key).where(alerts.c.closed_at.is_(None))
    return {key for key in connection.scalars(query) if key.startswith(prefix)}


def page(
    connection: Connection,
    *,
    open_only: bool = True,
    limit: int = 50,
    before_id: int | None = None,
) -> list[Alert]:
    """Return alerts, newest first; only those below ``before_id`` if it is given."""
    query = select(alerts).order_by(desc(alerts.c.id)).limit(limit)
    if open_only:
        query = query.where(alerts.c.closed_at.is_(None))
    if before_id is not None:
        query = query.where(alerts.c.id < before_id)
    return [
        Alert(**{**row, "severity": Severity(row["severity"])})
        for row in connection.execute(query).mappings()
    ]
