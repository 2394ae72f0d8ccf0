"""Hourly workloads of versions by size, in SQL; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, select

from ops.cost.advice import Size, Workload
from ops.sql.tables import workloads
from ops.sql.upsert import add_up

SIZE = tuple(field.name for field in fields(Size))
KEY = ("hour", "model", "label", *SIZE)
# Longer than the longest period that advice can cover.
KEPT = timedelta(days=367)
AMOUNTS = ("watched_s", "replica_s", "at_min_s", "busy_at_min_s", "lagging_s")


def add(connection: Connection, rows: Iterable[Workload]) -> None:
    """Add rows to the stored hours; no two rows may have the same hour, version and size.

    Rows older than ``KEPT`` are deleted.
    """
    values = [_row(row) for row in rows]
    if not values:
        return
    oldest = max(value["hour"] for value in values) - KEPT
    connection.execute(delete(workloads).where(workloads.c.hour < oldest))
    add_up(connection, workloads, values, amounts=AMOUNTS, newest=["until"])


def since(connection: Connection, moment: datetime, *, model: str | None = None) -> list[Workload]:
    """Return workloads of hours that begin at a moment or later, newest last."""
    query = select(workloads).where(workloads.c.hour >= moment)
    if model is not None:
        query = query.where(workloads.c.model == model)
    ordered = query.order_by(*(workloads.c[name] for name in ("until", *KEY)))
    return [_workload(row) for row in connection.execute(ordered)]


def _row(row: Workload) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in ("hour", "model", "label", "until", *AMOUNTS)}
    return values | asdict(row.size)


def _workload(row: Any) -> Workload:
    size = Size(**{name: getattr(row, name) for name in SIZE})
    amounts = {name: getattr(row, name) for name in AMOUNTS}
    return Workload(row.hour, row.model, row.label, size, row.until, **amounts)
