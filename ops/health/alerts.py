"""Alerts: what somebody should see to, from when to when; in the caller's transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, desc, insert, select, update

from ops.health.findings import Finding, Severity
from ops.sql.tables import alerts


@dataclass(frozen=True, kw_only=True)
class Alert(Finding):
    """A finding that was stored when it was opened; ``closed_at`` is None while it is so."""

    id: int
    opened_at: datetime
    closed_at: datetime | None


def raise_alert(connection: Connection, finding: Finding, now: datetime) -> bool:
    """Open an alert, or bring the open one of its key up to date.

    Returns:
        Whether it was opened.
    """
    told = {name: getattr(finding, name) for name in ("severity", "what", "hurts", "todo")}
    this = (alerts.c.key == finding.key) & alerts.c.closed_at.is_(None)
    if connection.execute(update(alerts).where(this).values(told)).rowcount:
        return False
    values = told | {"key": finding.key, "since": finding.since, "opened_at": now}
    connection.execute(insert(alerts).values(values))
    return True


def close(connection: Connection, key: str, now: datetime) -> bool:
    """Close the open alert of a key; False where there is none."""
    this = (alerts.c.key == key) & alerts.c.closed_at.is_(None)
    return bool(connection.execute(update(alerts).where(this).values(closed_at=now)).rowcount)


def open_keys(connection: Connection, prefix: str = "") -> set[str]:
    """Keys of the open alerts that begin with a prefix."""
    query = select(alerts.c.key).where(alerts.c.closed_at.is_(None))
    return {key for key in connection.scalars(query) if key.startswith(prefix)}


def page(
    connection: Connection,
    *,
    open_only: bool = True,
    limit: int = 50,
    before_id: int | None = None,
) -> list[Alert]:
    """The newest first, below an id where one is given."""
    query = select(alerts).order_by(desc(alerts.c.id)).limit(limit)
    if open_only:
        query = query.where(alerts.c.closed_at.is_(None))
    if before_id is not None:
        query = query.where(alerts.c.id < before_id)
    return [
        Alert(**{**row, "severity": Severity(row["severity"])})
        for row in connection.execute(query).mappings()
    ]
