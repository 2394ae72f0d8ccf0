"""Leases in SQL: one operator acts at a time; two that were started do no harm."""

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
        Its fence, which grows with every change of holder; None while another holds it.
    """
    query = select(leases).where(leases.c.name == name).with_for_update()
    held = connection.execute(query).one_or_none()
    if held is None:
        values = {"name": name, "holder": holder, "until": now + lasts, "fence": 1}
        try:
            with connection.begin_nested():
                connection.execute(insert(leases).values(values))
        except IntegrityError:
            return None  # another has taken it since
        return 1
    if held.holder != holder and held.until > now:
        return None
    fence = held.fence if held.holder == holder else held.fence + 1
    values = {"holder": holder, "until": now + lasts, "fence": fence}
    connection.execute(update(leases).where(leases.c.name == name).values(values))
    return int(fence)


def release_lease(connection: Connection, name: str, holder: str, now: datetime) -> None:
    """Give a lease back, so that a successor need not wait for its end."""
    mine = (leases.c.name == name) & (leases.c.holder == holder)
    connection.execute(update(leases).where(mine).values(until=now))


def last_held(connection: Connection, name: str, lasts: timedelta) -> datetime | None:
    """When somebody held a lease for certain, at the latest; None where nobody ever has."""
    until: datetime | None = connection.scalar(select(leases.c.until).where(leases.c.name == name))
    return None if until is None else until - lasts
