"""Labels of versions in routing: one for each set of settings a version was served with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from ops.catalogue.versions import number_of
from ops.sql.tables import deployments
from serve.settings import ModelSettings

# Settings that identify a version rather than how it is served.
OF_THE_VERSION = {"name", "version", "path"}


def deployment(connection: Connection, model: str, label: str) -> dict[str, Any]:
    """Return the settings that a version is served with; empty if none were stored."""
    query = select(deployments.c.settings).where(
        deployments.c.model == model, deployments.c.label == label
    )
    return dict(connection.scalars(query).first() or {})


def ensure_label(
    connection: Connection, model: str, version: int, settings: dict[str, Any], now: datetime
) -> str:
    """Return the label of a version with these settings, creating one for new settings."""
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
    """Store the version and settings that a label stands for."""
    connection.execute(
        insert(deployments).values(
            model=model,
            label=label,
            version=number_of(label) or 0,
            settings=dict(settings),
            created_at=now,
        )
    )


def serving_settings(model: ModelSettings) -> dict[str, Any]:
    """Return the settings with which a model is served, whatever the version."""
    return model.model_dump(mode="json", exclude=OF_THE_VERSION)


def as_served(
    template: ModelSettings, label: str, settings: Mapping[str, Any], path: Path
) -> ModelSettings:
    """Return the model settings of a version, with those that its label stands for."""
    content = template.model_dump() | dict(settings) | {"version": label, "path": path}
    return ModelSettings.model_validate(content)
