from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from ops.access.ledger import entries, verify
from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import Registered, VersionId
from ops.errors import (
    ArtifactStoreError,
    BadModelName,
    StoreUnavailable,
    UnknownVersion,
    VersionInUse,
)
from ops.releases.retention import Retention
from ops.sql.database import Database
from ops.sql.tables import models, releases, routes, versions
from serve.artifact import Artifact, load
from serve.errors import ArtifactAltered
from stream.schema import ControlRecord, VersionRoute
from tests.ops.directories import make_directory

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_S = 60.0

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


def test_versions_are_numbered_from_one_for_each_model(
    database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 3)
    fill(registry, make_model, 2, name="intent")

    assert numbers(registry) == [3, 2, 1]
    assert numbers(registry, "intent") == [2, 1]
    assert [(m.name, m.versions, m.newest) for m in registry.models()] == [
        ("intent", 2, 2),
        ("sentiment", 3, 3),
    ]
    assert actions(database) == [("version.register", number) for number in (1, 2, 3, 1, 2)]


def test_same_bytes_keep_their_number(
    database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 2)
    again = registry.register("sentiment", make_model("sentiment-1"), author="bob", now=NOW)

    assert (again.version, again.existed) == (1, True)
    assert again.digest == registry.show(v(1)).digest
    assert numbers(registry) == [2, 1]
    assert len(actions(database)) == 2
    other = registry.register("intent", make_model("sentiment-1"), author="bob", now=NOW)
    assert (other.version, other.existed) == (1, False)


def test_version_is_shown_as_it_was_registered(registry: Registry, make_model: MakeModel) -> None:
    directory = make_model(metrics={"accuracy": 0.9})
    registered = registry.register(
        "sentiment", directory, author="ada", now=NOW, source="hub/sentiment"
    )
    shown, artifact = registry.show(v(1)), load(directory)

    assert registered == Registered("sentiment", 1, artifact.digest, existed=False)
    assert (shown.digest, shown.card, str(shown.id)) == (
        artifact.digest,
        artifact.card,
        "sentiment@1",
    )
    assert set(shown.files) == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "bertstream.json",
    }
    assert shown.size_bytes == sum(file.bytes for file in shown.files.values()) > 0
    assert (shown.author, shown.created_at, shown.deleted_at) == ("ada", NOW, None)
    assert shown.source == "hub/sentiment"


def test_registering_at_once_gives_different_numbers(
    database: Database, registry: Registry, make_model: MakeModel
) -> None:
    """Also of a model that none of them finds there yet."""
    directories = [make_model(f"model-{number % 6}") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        futures = [
            threads.submit(registry.register, "sentiment", path, author="ada", now=NOW)
            for path in directories
        ]
        results = [future.result(DEADLINE_S) for future in futures]

    assert sorted(result.version for result in results if not result.existed) == [1, 2, 3, 4, 5, 6]
    assert sum(result.existed for result in results) == 2
    assert len({result.digest: result.version for result in results}) == 6
    assert len(actions(database)) == 6


@pytest.mark.parametrize(
    "name", ["", "Sentiment", "a b", "-a", "a" * 64, "a/../b", "a@1", "a\n", "ä"]
)
def test_name_that_cannot_be_is_refused(
    registry: Registry, make_model: MakeModel, name: str
) -> None:
    with pytest.raises(BadModelName, match="lower case letters, digits and hyphens"):
        registry.register(name, make_model(), author="ada", now=NOW)


def test_directory_that_was_altered_is_not_registered(
    registry: Registry, make_model: MakeModel
) -> None:
    directory = make_model()
    (directory / "config.json").write_text("{}")

    with pytest.raises(ArtifactAltered, match=r"config\.json"):
        registry.register("sentiment", directory, author="ada", now=NOW)
    assert registry.models() == []


def test_pages_go_on_where_the_last_one_ended(registry: Registry, make_model: MakeModel) -> None:
    fill(registry, make_model, 5)

    assert numbers(registry, limit=2) == [5, 4]
    assert numbers(registry, limit=2, before=4) == [3, 2]
    assert numbers(registry, limit=2, before=1) == []


def test_unknown_version_says_what_there_is(registry: Registry, make_model: MakeModel) -> None:
    fill(registry, make_model, 2)

    with pytest.raises(UnknownVersion, match="no version sentiment@7; the newest is 2"):
        registry.show(v(7))
    with pytest.raises(UnknownVersion, match="no model 'intent'; see `bertstream models list`"):
        registry.show(v(1, "intent"))
    with pytest.raises(UnknownVersion, match="no model 'intent'"):
        registry.versions("intent")


@pytest.mark.parametrize("text", ["sentiment", "sentiment@", "sentiment@0", "@1", "A@1", "a@1x"])
def test_text_that_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(UnknownVersion, match="write it as sentiment@3"):
        VersionId.parse(text)


def test_version_is_read_as_people_write_it() -> None:
    assert VersionId.parse("sentiment@12") == ("sentiment", 12)
    assert str(v(12)) == "sentiment@12"


def test_diff_reads_what_differs(registry: Registry, make_model: MakeModel) -> None:
    good, bad = {"good": 0.9, "bad": 0.1}, {"good": 0.1, "bad": 0.9}
    before = make_model(golden={"a": good, "b": good}, metrics={"accuracy": 0.8})
    after = make_model("larger weights", golden={"a": good, "b": bad}, config={"hidden_size": 64})
    for directory in (before, after):
        registry.register("sentiment", directory, author="ada", now=NOW)
    diff = registry.diff(v(1), v(2))

    assert diff.metrics[0].name == "accuracy"
    assert tuple(map(astuple, diff.config)) == (("hidden_size", 32, 64),)
    assert diff.golden.compared == 2
    assert [change.text for change in diff.golden.differing] == ["b"]
    assert diff.size_bytes == (registry.show(v(1)).size_bytes, registry.show(v(2)).size_bytes)


def test_exported_directory_is_what_was_registered(
    registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    fill(registry, make_model, 1)
    registry.export(v(1), tmp_path / "out")

    assert load(tmp_path / "out").digest == registry.show(v(1)).digest
    with pytest.raises(ArtifactStoreError, match="not empty"):
        registry.export(v(1), tmp_path / "out")


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


def test_deleted_version_comes_back_with_its_number(
    retention: Retention,
    database: Database,
    registry: Registry,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    fill(registry, make_model, 2)
    retention.delete(v(1), actor="bob", now=NOW)
    again = registry.register("sentiment", make_model("sentiment-1"), author="bob", now=NOW)

    assert (again.version, again.existed) == (1, True)
    assert registry.show(v(1)).deleted_at is None
    registry.export(v(1), tmp_path / "out")
    assert actions(database)[2:] == [("version.delete", 1), ("version.restore", 1)]


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


def test_files_that_went_while_registering_are_kept_again(
    retention: Retention,
    registry: Registry,
    make_model: MakeModel,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A deletion between keeping the files and writing the row takes them away."""
    fill(registry, make_model, 1)
    put = ArtifactStore.put

    def overtaken(store: ArtifactStore, artifact: Artifact, *, move: bool) -> str:
        uri = put(store, artifact, move=move)
        monkeypatch.setattr(ArtifactStore, "put", put)
        retention.delete(v(1), actor="bob", now=NOW)
        return uri

    monkeypatch.setattr(ArtifactStore, "put", overtaken)
    registry.register("sentiment", make_model("sentiment-1"), author="ada", now=NOW)

    registry.export(v(1), tmp_path / "out")


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
    assert retention.retirable("sentiment", keep=0) == [v(1), v(2)]


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
    assert retention.retirable("sentiment", keep=0) == [v(1), v(4), v(5)]


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

    assert retention.retirable("sentiment", keep=2) == [v(3), v(4)]
    assert retention.retirable("sentiment", keep=10) == []
    assert retention.retirable("intent", keep=1) == []


def test_routes_of_versions_that_are_not_registered_are_passed_over(
    retention: Retention, database: Database, registry: Registry, make_model: MakeModel
) -> None:
    fill(registry, make_model, 1)
    serve(database, {"2026-03-01": 1.0})

    retention.delete(v(1), actor="bob", now=NOW)


def test_rows_are_not_left_by_a_registration_that_failed(
    database: Database, registry: Registry, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*entry: object) -> int:
        raise RuntimeError

    monkeypatch.setattr("ops.access.ledger.append", fail)
    with pytest.raises(RuntimeError):
        registry.register("sentiment", make_model(), author="ada", now=NOW)
    with database.read() as connection:
        assert connection.execute(select(versions)).all() == []
        assert connection.execute(select(models)).all() == []
