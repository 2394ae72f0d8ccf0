"""A registry in memory with versions and releases, as fixtures."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from ops.access.ledger import entries, verify
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.releases.retention import Retention
from ops.sql.database import Database
from ops.sql.tables import releases, routes
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import make_directory

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


MakeModel = Callable[..., Path]


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")


@pytest.fixture
def registry(database: Database, store: ArtifactStore) -> Registry:
    return Registry(database, store)


@pytest.fixture
def retention(database: Database, store: ArtifactStore) -> Retention:
    return Retention(database, store)


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    def make(weights: str = "weights", **content: Any) -> Path:
        name = f"{weights}-{uuid.uuid4().hex}"
        return make_directory(tmp_path / name, weights=weights.encode(), **content)

    return make


def fill(registry: Registry, make_model: MakeModel, count: int, name: str = "sentiment") -> None:
    for number in range(1, count + 1):
        registry.register(name, make_model(f"{name}-{number}"), author="ada", now=NOW)


def v(number: int, name: str = "sentiment") -> VersionId:
    return VersionId(name, number)


def serve(database: Database, weights: dict[str, float], *, shadow: str | None = None) -> None:
    shares = {version: VersionRoute(weight=weight) for version, weight in weights.items()}
    record = ControlRecord(model="sentiment", epoch=1, versions=shares, shadow=shadow)
    values = {"epoch": 1, "record": record.model_dump(mode="json")}
    with database.begin() as connection:
        if connection.execute(update(routes).values(values)).rowcount == 0:
            connection.execute(insert(routes).values(model="sentiment", **values))


def release(
    database: Database, version: int, *, previous: int | None, ended: bool, **more: Any
) -> None:
    values = {
        "model": "sentiment",
        "version": version,
        "label": str(version),
        "is_rollback": False,
        "version_digest": "a" * 64,
        "policy_digest": "b" * 64,
        "policy_text": "model: sentiment",
        "state": "live" if ended else "canary",
        "previous": previous,
        "author": "ada",
        "created_at": NOW,
        "entered_at": NOW,
        "ended_at": NOW if ended else None,
        "evidence": {},
    }
    with database.begin() as connection:
        connection.execute(insert(releases).values(values | more))


def numbers(registry: Registry, name: str = "sentiment", **page: Any) -> list[int]:
    return [version.number for version in registry.versions(name, **page)]


def actions(database: Database) -> list[tuple[str, int | None]]:
    with database.read() as connection:
        assert verify(connection) is None
        return [(row.action, row.version) for row in reversed(entries(connection))]
