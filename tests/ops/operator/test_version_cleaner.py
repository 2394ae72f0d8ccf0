"""Versions that a policy no longer keeps, deleted by the operator in the real catalogue."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from ops.access.ledger import OPERATOR, entries
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import VersionId
from ops.errors import StoreUnavailable
from ops.operator.version_cleaner import VersionCleaner
from ops.policy import store as policy_store
from ops.policy.file import load
from ops.sql.database import Database
from ops.sql.tables import routes
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import make_directory

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXT = "model: sentiment\nretention: {versions: 2}\n"


@pytest.fixture
def store() -> ArtifactStore:
    return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")


@pytest.fixture
def registry(database: Database, store: ArtifactStore, tmp_path: Path) -> Registry:
    """Five versions each of a model with a policy, of which the first serves, and one without."""
    found = Registry(database, store)
    for name in ("sentiment", "intent"):
        for number in range(1, 6):
            weights = f"{name}-{number}"
            directory = make_directory(tmp_path / weights, weights=weights.encode())
            found.register(name, directory, author="ada", now=NOW)
    record = ControlRecord(model="sentiment", epoch=1, versions={"1": VersionRoute(weight=1.0)})
    with database.begin() as connection:
        policy_store.put(connection, load(TEXT, now=NOW), TEXT, author="root", now=NOW)
        values = {"epoch": 1, "record": record.model_dump(mode="json")}
        connection.execute(insert(routes).values(model="sentiment", **values))
    return found


def cleaner(database: Database, store: ArtifactStore, *, leads: bool = True) -> VersionCleaner:
    later = NOW + timedelta(hours=1)
    return VersionCleaner(database, store, leads=lambda: leads, clock=lambda: later)


def numbers(registry: Registry, name: str) -> list[int]:
    return [version.number for version in registry.versions(name)]


def test_what_the_policy_names_is_deleted_with_a_row_each(
    database: Database, store: ArtifactStore, registry: Registry
) -> None:
    digests = {n: registry.show(VersionId("sentiment", n)).digest for n in range(1, 6)}
    cleaner(database, store).clean(threading.Event())

    assert numbers(registry, "sentiment") == [5, 4, 1]
    assert numbers(registry, "intent") == [5, 4, 3, 2, 1]
    kept = [n for n, digest in digests.items() if store.within("sentiment").holds(digest)]
    assert kept == [1, 4, 5]
    with database.read() as connection:
        rows = [row for row in entries(connection) if row.action == "version.delete"]
    assert [(row.version, row.actor, row.reason) for row in rows] == [
        (n, OPERATOR, "the policy keeps the newest 2 versions, and this one is not in use")
        for n in (3, 2)
    ]


def test_an_operator_that_does_not_lead_deletes_nothing(
    database: Database, store: ArtifactStore, registry: Registry
) -> None:
    cleaner(database, store, leads=False).clean(threading.Event())
    assert numbers(registry, "sentiment") == [5, 4, 3, 2, 1]


def test_files_that_could_not_be_deleted_are_deleted_the_next_time(
    database: Database,
    store: ArtifactStore,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(store: ArtifactStore, uri: str) -> None:
        raise StoreUnavailable("the network is down")

    digest = registry.show(VersionId("sentiment", 2)).digest
    cleaning = cleaner(database, store)
    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "delete", fail)
        cleaning.clean(threading.Event())
    assert store.within("sentiment").holds(digest)
    cleaning.clean(threading.Event())
    assert not store.within("sentiment").holds(digest)
    assert numbers(registry, "sentiment") == [5, 4, 1]


def test_a_thread_of_it_ends_when_it_is_told_to(
    database: Database, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.operator.version_cleaner.FIRST_AFTER_S", 0.01)
    asked, stopping = threading.Event(), threading.Event()

    def leads() -> bool:
        asked.set()
        return False

    cleaning = VersionCleaner(database, store, leads=leads, clock=lambda: NOW)
    thread = threading.Thread(target=cleaning.run, args=[stopping])
    thread.start()
    assert asked.wait(60)
    stopping.set()
    thread.join(60)
    assert not thread.is_alive()
