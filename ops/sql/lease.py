"""Leases in SQL: only one operator acts at a time, even if two were started."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from ops.sql.tables import leases


def acquire(
    connection: Connection, name: str, holder: str, *, now: datetime, lasts: timedelta
) -> int | None:
    """Take or renew a lease.

    Returns:
        Its fence, which grows with every change of holder; None while another holder has it.
    """
    query = select(leases).where(leases.c.name == name).with_for_update()
    held = connection.execute(query).one_or_none()
    if held is None:
        values = {"name": name, "holder": holder, "until": now + lasts, "fence": 1}
        try:
            with connection.begin_nested():
                connection.execute(insert(leases).values(values))
        except IntegrityError:
            return None  # another process has taken it since
        return 1
    if held.holder != holder and held.until > now:
        return None
    fence = held.fence if held.holder == holder else held.fence + 1
    values = {"holder": holder, "until": now + lasts, "fence": fence}
    connection.execute(update(leases).where(leases.c.name == name).values(values))
    return int(fence)


def release_lease(connection: Connection, name: str, holder: str, now: datetime) -> None:
    """Release a lease, so that a successor need not wait until it expires."""
    mine = (leases.c.name == name) & (leases.c.holder == holder)
    connection.execute(update(leases).where(mine).values(until=now))


def last_held(connection: Connection, name: str, lasts: timedelta) -> datetime | None:
    """Return the latest time at which a lease was certainly held; None if it never was."""
    until: datetime | None = connection.scalar(select(leases.c.until).where(leases.c.name == name))
    return None if until is None else until - lasts
