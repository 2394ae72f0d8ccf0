"""Hourly usage in SQL: summed on writing, read for bills; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from ops.catalogue.versions import number_of
from ops.cost.billing import Usage, UsageSource
from ops.sql.tables import usage
from ops.sql.upsert import add_up

KEY = ("hour", "model", "version", "pipeline", "node_type")
AMOUNTS = ("replica_s", "cpu_s", "gpu_s", "predictions")
# Values for missing parts of the key: a primary key column cannot be NULL.
NO_NUMBER, NO_NAME = 0, ""


def add(connection: Connection, rows: Iterable[Usage]) -> None:
    """Add usage to the amounts already stored for its hours."""
    add_up(connection, usage, _summed(_row(row) for row in rows), amounts=AMOUNTS)


def between(
    connection: Connection, since: datetime, until: datetime, *, model: str | None = None
) -> list[Usage]:
    """Return the usage of hours that begin at or after ``since`` and before ``until``."""
    query = select(usage).where(usage.c.hour >= since, usage.c.hour < until)
    if model is not None:
        query = query.where(usage.c.model == model)
    ordered = query.order_by(*(usage.c[name] for name in KEY))
    return [_usage(row) for row in connection.execute(ordered)]


def totals(connection: Connection, since: datetime) -> list[Usage]:
    """Return usage since a moment, one row for each source; ``hour`` is its first hour."""
    columns = [usage.c[name] for name in KEY[1:]]
    sums = [func.sum(usage.c[name]).label(name) for name in AMOUNTS]
    query = select(func.min(usage.c.hour).label("hour"), *columns, *sums)
    summed = query.where(usage.c.hour >= since).group_by(*columns).order_by(*columns)
    found = connection.execute(summed)
    return [_usage(row) for row in found]


def _row(row: Usage) -> dict[str, Any]:
    source = row.source
    return {
        "hour": row.hour,
        "model": source.model,
        "version": number_of(source.version or "") or NO_NUMBER,
        "pipeline": source.pipeline or NO_NAME,
        "node_type": source.node_type or NO_NAME,
        **{name: getattr(row, name) for name in AMOUNTS},
    }


def _summed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum rows by key: ``3`` and ``3.1`` are the same version with other settings."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        total = found.setdefault(tuple(row[name] for name in KEY), row)
        if total is not row:
            total |= {name: total[name] + row[name] for name in AMOUNTS}
    return [*found.values()]


def _usage(row: Any) -> Usage:
    version = str(row.version) if row.version != NO_NUMBER else None
    source = UsageSource(row.model, version, row.pipeline or None, row.node_type or None)
    return Usage(
        row.hour, source, row.replica_s, row.cpu_s, row.gpu_s, predictions=int(row.predictions)
    )
