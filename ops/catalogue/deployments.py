"""What a version is called on the wire: a label for each set of settings it was served with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from ops.catalogue.versions import number_of
from ops.sql.tables import deployments


def deployment(connection: Connection, model: str, label: str) -> dict[str, Any]:
    """The settings that a version is served with; empty where none were kept."""
    query = select(deployments.c.settings).where(
        deployments.c.model == model, deployments.c.label == label
    )
    return dict(connection.scalars(query).first() or {})


def ensure_label(
    connection: Connection, model: str, version: int, settings: dict[str, Any], now: datetime
) -> str:
    """What a version with these settings is called; a new label where they are new."""
    query = (
        select(deployments.c.label, deployments.c.settings)
        .where(deployments.c.model == model, deployments.c.version == version)
        .order_by(deployments.c.created_at)
    )
    known = list(connection.execute(query))
    for row in known:
        if dict(row.settings) == settings:
            return str(row.label)
    label = f"{version}.{len(known)}" if known else str(version)
    keep_deployment(connection, model, label, settings, now)
    return label


def keep_deployment(
    connection: Connection, model: str, label: str, settings: Mapping[str, Any], now: datetime
) -> None:
    """Remember what a label stands for."""
    connection.execute(
        insert(deployments).values(
            model=model,
            label=label,
            version=number_of(label) or 0,
            settings=dict(settings),
            created_at=now,
        )
    )
