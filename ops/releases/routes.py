"""Routes in SQL: the one in force for each model, and which ones are not yet published."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, update

from ops.sql.tables import routes
from stream.schema import ControlRecord


def put_route(connection: Connection, record: ControlRecord) -> None:
    """Put a route into the outbox of the control topic."""
    values = {"epoch": record.epoch, "record": record.model_dump(mode="json")}
    this = routes.c.model == record.model
    if connection.execute(update(routes).where(this).values(values)).rowcount == 0:
        connection.execute(insert(routes).values(values | {"model": record.model}))


def unpublished(connection: Connection) -> list[ControlRecord]:
    """Return routes that are not known to be on the control topic yet."""
    sent = func.coalesce(routes.c.published_epoch, -1)
    query = select(routes.c.record).where(sent < routes.c.epoch).order_by(routes.c.model)
    return [ControlRecord.model_validate(record) for record in connection.scalars(query)]


def mark_published(connection: Connection, record: ControlRecord) -> None:
    """Record that the route is on the control topic."""
    this = (routes.c.model == record.model) & (routes.c.epoch == record.epoch)
    connection.execute(update(routes).where(this).values(published_epoch=record.epoch))


def all_routes(connection: Connection) -> dict[str, ControlRecord]:
    """Return the routes in force, by model."""
    found = connection.scalars(select(routes.c.record).order_by(routes.c.model))
    return {record.model: record for record in map(ControlRecord.model_validate, found)}


def live_label(connection: Connection, model: str) -> str | None:
    """Return the label of the version that answers most records; None if none does."""
    query = select(routes.c.record).where(routes.c.model == model)
    found = connection.scalars(query).first()
    if found is None:
        return None
    record = ControlRecord.model_validate(found)
    return record.fallback or max(record.versions, key=lambda v: record.versions[v].weight)
