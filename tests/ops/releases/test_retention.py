"""Versions are deleted, and those that may be needed are not."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.access.ledger import entries
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.errors import (
    StoreUnavailable,
    UnknownVersion,
    VersionInUse,
)
from ops.releases.retention import Retention
from ops.sql.database import Database
from tests.ops.catalogue.registered import (
    NOW,
    MakeModel,
    actions,
    fill,
    numbers,
    release,
    serve,
    v,
)


def test_deleted_version_keeps_its_row_and_loses_its_files(
    retention: Retention,
    database: Database,
    registry: Registry,
    make_model: MakeModel,
    tmp_path: Path,
    store: Any,
) -> None:
    fill(registry, make_model, 3)
    later = NOW + timedelta(hours=1)
    retention.delete(v(2), actor="bob", now=later, reason="too old")

    assert numbers(registry) == [3, 1]
    assert numbers(registry, deleted=True) == [3, 2, 1]
    assert registry.show(v(2)).deleted_at == later
    assert not store.within("sentiment").holds(registry.show(v(2)).digest)
    with pytest.raises(UnknownVersion, match=r"sentiment@2 were deleted at 2026-03-01 13:00 UTC"):
        registry.export(v(2), tmp_path / "out")
    with database.read() as connection:
        row = entries(connection)[0]
    assert (row.action, row.version, row.actor, row.reason) == (
        "version.delete",
        2,
        "bob",
        "too old",
    )
    assert registry.register("sentiment", make_model("new"), author="a", now=NOW).version == 4


def test_deletion_that_broke_off_is_finished_by_the_next(
    retention: Retention,
    database: Database,
    registry: Registry,
    make_model: MakeModel,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(registry, make_model, 1)
    digest = registry.show(v(1)).digest

    def fail(store: ArtifactStore, uri: str) -> None:
        raise StoreUnavailable("the network went")

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "delete", fail)
        with pytest.raises(StoreUnavailable):
            retention.delete(v(1), actor="bob", now=NOW)
    assert store.within("sentiment").holds(digest)

    retention.delete(v(1), actor="bob", now=NOW)
    assert not store.within("sentiment").holds(digest)
    assert actions(database) == [("version.register", 1), ("version.delete", 1)]


def test_files_of_another_model_with_the_same_bytes_stay(
    retention: Retention, registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    for name in ("sentiment", "intent"):
        registry.register(name, make_model("same"), author="ada", now=NOW)
    retention.delete(v(1), actor="bob", now=NOW)

    registry.export(v(1, "intent"), tmp_path / "out")


def refused(registry: Registry, retention: Retention, number: int) -> str:
    with pytest.raises(VersionInUse) as caught:
        retention.delete(v(number), actor="bob", now=NOW)
    assert registry.show(v(number)).deleted_at is None
    return str(caught.value)


def test_version_that_serves_is_not_deleted(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 5)
    serve(database, {"3": 0.95, "4": 0.05, "5": 0.0}, shadow="5")

    assert (
        refused(registry, retention, 3)
        == "sentiment@3 cannot be deleted: it serves, with weight 0.95"
    )
    assert refused(registry, retention, 4).endswith("it serves, with weight 0.05")
    assert refused(registry, retention, 5).endswith("it serves, with weight 0")
    assert retention.deletable("sentiment", keep=0) == [v(1), v(2)]


def test_version_of_an_open_release_is_not_deleted(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 3)
    release(database, 3, previous=2, ended=False)

    assert re.search(
        r"release \d+ of it is open; abort that one first$", refused(registry, retention, 3)
    )
    assert refused(registry, retention, 2).endswith("a rollback of sentiment@3 goes back to it")
    retention.delete(v(1), actor="bob", now=NOW)


def test_version_that_a_rollback_goes_back_to_is_not_deleted(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 5)
    release(database, 3, previous=1, ended=True)  # it is the newest of this version that counts
    release(database, 3, previous=2, ended=True)
    release(database, 4, previous=5, ended=True)  # does not serve
    serve(database, {"3": 1.0})

    assert refused(registry, retention, 2).endswith("a rollback of sentiment@3 goes back to it")
    assert retention.deletable("sentiment", keep=0) == [v(1), v(4), v(5)]


@pytest.mark.parametrize(
    "after",
    [
        # Gone back to: the next rollback goes on to the version before it, not forth again.
        {"previous": 3, "is_rollback": True},
        # The same version with other settings, which ended before it answered a record.
        {"previous": 2, "state": "aborted", "label": "2.1"},
        {"previous": 2, "state": "rolled_back", "label": "2.1"},
    ],
)
def test_what_a_rollback_goes_back_to_is_told_by_what_brought_the_live_version(
    retention: Retention,
    database: Database,
    registry: Registry,
    make_model: MakeModel,
    after: dict[str, Any],
) -> None:
    fill(registry, make_model, 3)
    release(database, 2, previous=1, ended=True, state="superseded")
    release(database, 2, ended=True, **after)
    serve(database, {"2": 1.0})

    assert refused(registry, retention, 1).endswith("a rollback of sentiment@2 goes back to it")
    retention.delete(v(3), actor="bob", now=NOW)


def test_versions_behind_the_newest_may_be_retired(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 6)
    serve(database, {"2": 1.0})
    retention.delete(v(1), actor="bob", now=NOW)

    assert retention.deletable("sentiment", keep=2) == [v(3), v(4)]
    assert retention.deletable("sentiment", keep=10) == []
    assert retention.deletable("intent", keep=1) == []


def test_routes_of_versions_that_are_not_registered_are_passed_over(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 1)
    serve(database, {"2026-03-01": 1.0})

    retention.delete(v(1), actor="bob", now=NOW)
