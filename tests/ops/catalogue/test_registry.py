from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import pytest
from sqlalchemy import select

from ops.catalogue.registry import Registry
from ops.catalogue.store import ArtifactStore
from ops.catalogue.versions import Registered, VersionId
from ops.errors import (
    ArtifactStoreError,
    BadModelName,
    UnknownVersion,
)
from ops.releases.retention import Retention
from ops.sql.database import Database
from ops.sql.tables import models, versions
from serve.artifact import Artifact, load
from serve.errors import ArtifactAltered
from tests.ops.catalogue.registered import (
    NOW,
    MakeModel,
    actions,
    fill,
    numbers,
    v,
)

DEADLINE_S = 60.0


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
