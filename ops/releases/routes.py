"""Routes in SQL: the one in force of each model, and what the control topic has not yet of them."""

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
    """Routes that the control topic has not yet, as far as is known."""
    sent = func.coalesce(routes.c.published_epoch, -1)
    query = select(routes.c.record).where(sent < routes.c.epoch).order_by(routes.c.model)
    return [ControlRecord.model_validate(record) for record in connection.scalars(query)]


def mark_published(connection: Connection, record: ControlRecord) -> None:
    """The control topic has it."""
    this = (routes.c.model == record.model) & (routes.c.epoch == record.epoch)
    connection.execute(update(routes).where(this).values(published_epoch=record.epoch))


def all_routes(connection: Connection) -> dict[str, ControlRecord]:
    """The routes in force, by model."""
    found = connection.scalars(select(routes.c.record).order_by(routes.c.model))
    return {record.model: record for record in map(ControlRecord.model_validate, found)}


def live_label(connection: Connection, model: str) -> str | None:
    """The version that answers most records, as it is called on the wire; None for none."""
    query = select(routes.c.record).where(routes.c.model == model)
    found = connection.scalars(query).first()
    if found is None:
        return None
    record = ControlRecord.model_validate(found)
    return record.fallback or max(record.versions, key=lambda v: record.versions[v].weight)
