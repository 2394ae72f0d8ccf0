from __future__ import annotations

import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pytest

from ops.catalogue.store import ArtifactStore
from ops.errors import ArtifactStoreError, ConfigError, StoreUnavailable, StoreUnsupported
from serve.artifact import MANIFEST_FILE, WEIGHTS_FILE, ManifestEntry, load
from serve.errors import ArtifactAltered, ArtifactError, ArtifactMissing
from tests.ops.directories import make_directory

DEADLINE_S = 30.0


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "local":
        return ArtifactStore(tmp_path / "store")
    return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")


@pytest.fixture
def remote() -> ArtifactStore:
    return ArtifactStore(f"memory://store-{uuid.uuid4().hex}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = make_directory(tmp_path / "model", weights=os.urandom(3_000_000))
    (directory / ".cache").mkdir()
    (directory / ".cache" / "graph.xml").write_text("<net/>")
    return directory


def digest_of(directory: Path) -> str:
    return load(directory).digest


def files_under(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def spoil(uri: str, name: str) -> None:
    """Change one byte of a kept file."""
    files, home = fsspec.core.url_to_fs(uri)
    content = bytearray(files.cat_file(f"{home}/{name}"))
    content[0] ^= 1
    files.pipe_file(f"{home}/{name}", bytes(content))


def test_what_was_kept_is_fetched(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    digest = digest_of(model)
    assert not store.holds(digest)
    uri = store.put(load(model))
    assert uri == f"{store.url}/{digest}"
    assert store.holds(digest)
    shutil.rmtree(model)

    artifact = store.fetch(uri, digest, tmp_path / "copies")
    assert artifact.digest == digest == digest_of(artifact.path)
    assert not (artifact.path / ".cache").exists()


def test_folder_is_served_without_a_copy(tmp_path: Path, model: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    artifact = store.fetch(store.put(load(model)), digest_of(model), tmp_path / "copies")

    assert artifact.path == tmp_path / "store" / artifact.digest
    assert not (tmp_path / "copies").exists()
    assert files_under(tmp_path / "store") == {
        f"{artifact.digest}/{name}" for name in files_under(model) if ".cache" not in name
    }


def test_keeping_again_changes_nothing(store: ArtifactStore, model: Path) -> None:
    uri = store.put(load(model))
    files, home = fsspec.core.url_to_fs(uri)
    before = files.modified(f"{home}/{WEIGHTS_FILE}")

    assert store.put(load(model)) == uri
    assert files.modified(f"{home}/{WEIGHTS_FILE}") == before


def test_keeping_at_once_keeps_one(tmp_path: Path, model: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    with ThreadPoolExecutor(4) as threads:
        uris = {
            f.result(DEADLINE_S) for f in [threads.submit(store.put, load(model)) for _ in range(4)]
        }

    assert len(uris) == 1
    assert [path.name for path in (tmp_path / "store").iterdir()] == [digest_of(model)]
    store.fetch(uris.pop(), digest_of(model), tmp_path)


def test_copy_that_another_put_there_meanwhile_stays(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ArtifactStore(tmp_path / "store")
    seen_before_it_was_there = slow.is_whole(digest_of(model))
    uri = ArtifactStore(tmp_path / "store").put(load(model))
    kept = (tmp_path / "store" / digest_of(model)).stat()

    monkeypatch.setattr(slow, "is_whole", lambda _: seen_before_it_was_there)
    assert slow.put(load(model)) == uri
    assert (tmp_path / "store" / digest_of(model)).stat().st_ino == kept.st_ino


@pytest.mark.parametrize("name", [WEIGHTS_FILE, "config.json"])
def test_damaged_copy_is_refused_by_name(
    store: ArtifactStore, model: Path, tmp_path: Path, name: str
) -> None:
    uri = store.put(load(model))
    spoil(uri, name)

    with pytest.raises(ArtifactAltered, match=rf"{name} has sha256 .* the manifest "):
        store.fetch(uri, digest_of(model), tmp_path / "copies")
    copies = tmp_path / "copies"
    assert not copies.exists() or list(copies.iterdir()) == []


def test_manifest_that_cannot_be_read_is_refused(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    uri = store.put(load(model))
    spoil(uri, MANIFEST_FILE)

    with pytest.raises(ArtifactError, match=MANIFEST_FILE):
        store.fetch(uri, digest_of(model), tmp_path / "copies")


def test_copy_with_a_manifest_of_its_own_is_refused(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    """Whole in itself, and not what the digest names."""
    uri = store.put(load(model))
    other = make_directory(tmp_path / "other", weights=b"others")
    files, home = fsspec.core.url_to_fs(uri)
    for name in files_under(other) | {MANIFEST_FILE}:
        files.pipe_file(f"{home}/{name}", (other / name).read_bytes())

    with pytest.raises(ArtifactAltered, match=rf"{MANIFEST_FILE} (does not match|has) digest"):
        store.fetch(uri, digest_of(model), tmp_path / "copies")
    with pytest.raises(ArtifactAltered, match=rf"{MANIFEST_FILE} does not match digest"):
        store.export(uri, digest_of(model), tmp_path / "out")


@pytest.mark.parametrize("name", [WEIGHTS_FILE, MANIFEST_FILE])
def test_missing_file_is_named(
    store: ArtifactStore, model: Path, tmp_path: Path, name: str
) -> None:
    uri = store.put(load(model))
    files, home = fsspec.core.url_to_fs(uri)
    files.rm_file(f"{home}/{name}")

    with pytest.raises(ArtifactMissing, match=name):
        store.fetch(uri, digest_of(model), tmp_path / "copies")


def test_keeping_again_repairs_a_damaged_folder(tmp_path: Path, model: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    uri = store.put(load(model))
    spoil(uri, WEIGHTS_FILE)

    assert store.put(load(model)) == uri
    store.fetch(uri, digest_of(model), tmp_path)


def test_upload_that_broke_off_is_not_there(
    remote: ArtifactStore, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, _ = fsspec.core.url_to_fs(remote.url)

    def fail(files: Any, path: str, value: bytes) -> None:
        raise OSError("the network went")

    with monkeypatch.context() as patched:
        patched.setattr(type(files), "pipe_file", fail)
        with pytest.raises(StoreUnavailable, match=r"memory://store-.*network went.*try again"):
            remote.put(load(model))
    assert not remote.holds(digest_of(model))

    uri = remote.put(load(model))
    remote.fetch(uri, digest_of(model), tmp_path)


def test_download_that_broke_off_leaves_nothing(
    remote: ArtifactStore, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = remote.put(load(model))
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(StoreUnavailable, match="No space left"):
            remote.fetch(uri, digest_of(model), tmp_path / "copies")

    assert list((tmp_path / "copies").iterdir()) == []
    remote.fetch(uri, digest_of(model), tmp_path / "copies")


def test_damaged_copy_on_this_machine_is_fetched_again(
    remote: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    uri, digest = remote.put(load(model)), digest_of(model)
    first = remote.fetch(uri, digest, tmp_path / "copies")
    (first.path / WEIGHTS_FILE).write_bytes(b"spoilt")

    again = remote.fetch(uri, digest, tmp_path / "copies")
    assert (again.path / WEIGHTS_FILE).stat().st_size == 3_000_000


def test_copy_on_this_machine_serves_without_the_store(
    remote: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    uri, digest = remote.put(load(model)), digest_of(model)
    remote.fetch(uri, digest, tmp_path / "copies")
    remote.delete(uri)

    assert remote.fetch(uri, digest, tmp_path / "copies").digest == digest


def test_what_is_staged_lies_on_the_disk_of_a_folder(
    remote: ArtifactStore, tmp_path: Path, model: Path
) -> None:
    store = ArtifactStore(tmp_path / "store")
    with store.staged() as folder:
        assert folder.is_relative_to(tmp_path / "store")
        shutil.copytree(model, folder / "model")
        store.put(load(folder / "model"), move=True)
        assert not (folder / "model").exists()
        assert store.is_whole(digest_of(model))
    assert [path.name for path in (tmp_path / "store").iterdir()] == [digest_of(model)]
    elsewhere = ArtifactStore(remote.url, staging=tmp_path / "staged")
    with elsewhere.staged() as folder:
        assert folder.parent == tmp_path / "staged"
    assert list((tmp_path / "staged").iterdir()) == []


def test_room_is_that_of_the_disk(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "not" / "there" / "yet")
    store.require_space(1)
    with pytest.raises(StoreUnavailable, match=r"no space for .* are free"):
        store.require_space(1 << 60)


def test_what_dead_processes_left_is_swept(tmp_path: Path, model: Path) -> None:
    old, young = tmp_path / "store" / ".partial-old", tmp_path / "store" / ".partial-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    ArtifactStore(tmp_path / "store").put(load(model))

    assert (old.exists(), young.exists()) == (False, True)


def test_exported_directory_is_ones_own(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    uri, digest = store.put(load(model)), digest_of(model)
    (tmp_path / "out").mkdir()
    store.export(uri, digest, tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest

    with pytest.raises(ArtifactStoreError, match="out is not empty; name a new directory"):
        store.export(uri, digest, tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest


def test_one_file_is_read_and_verified(store: ArtifactStore, model: Path) -> None:
    uri = store.put(load(model))
    manifest = orjson.loads((model / MANIFEST_FILE).read_bytes())
    expected = ManifestEntry(**manifest["files"]["config.json"])
    assert store.read(uri, "config.json", expected) == b'{"hidden_size":32}'

    spoil(uri, "config.json")
    with pytest.raises(ArtifactAltered, match=r"config\.json has sha256"):
        store.read(uri, "config.json", expected)
    with pytest.raises(ArtifactMissing, match=r"golden\.jsonl is not in the artifact store"):
        store.read(uri, "golden.jsonl", expected)


def test_deleting_takes_everything_and_may_be_repeated(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    uri = store.put(load(model))
    store.delete(uri)
    files, home = fsspec.core.url_to_fs(uri)

    assert not files.exists(home)
    assert not store.holds(digest_of(model))
    store.delete(uri)


@pytest.mark.parametrize("uri", ["file:///etc", "memory://bucket", "memory://bucket/abc"])
def test_only_kept_directories_are_deleted(store: ArtifactStore, uri: str) -> None:
    with pytest.raises(ArtifactStoreError, match="does not end in a digest"):
        store.delete(uri)


def test_manifest_that_leads_outside_is_refused(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    artifact = load(model)
    (tmp_path / "secret").write_text("secret")
    manifest = orjson.loads((model / MANIFEST_FILE).read_bytes())
    entry = {
        "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
        "bytes": 6,
    }
    manifest["files"]["../secret"] = entry
    (model / MANIFEST_FILE).write_bytes(orjson.dumps(manifest))

    with pytest.raises(ArtifactAltered, match=r"names \.\./secret, which is outside"):
        store.put(artifact)


def test_altered_directory_is_not_kept(store: ArtifactStore, model: Path) -> None:
    artifact = load(model)
    (model / "config.json").write_text("{}")

    with pytest.raises(ArtifactAltered, match=r"config\.json has sha256"):
        store.put(artifact)
    assert not store.holds(artifact.digest)


def test_package_that_a_store_needs_is_named() -> None:
    with pytest.raises(StoreUnsupported, match=r"s3://bucket/models needs.*s3fs"):
        ArtifactStore("s3://bucket/models")


def test_unknown_kind_of_store_is_told() -> None:
    with pytest.raises(StoreUnsupported, match=r"ftps3://x.*known protocols: .*memory"):
        ArtifactStore("ftps3://x")


def test_password_in_the_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="contains a password") as caught:
        ArtifactStore("sftp://eve:s3cret@host/models")
    assert "s3cret" not in str(caught.value)


def test_store_that_cannot_be_written_is_told(tmp_path: Path, model: Path) -> None:
    (tmp_path / "store").write_text("a file")

    with pytest.raises(StoreUnavailable, match=r"artifact store at file://.*store cannot be used"):
        ArtifactStore(tmp_path / "store").put(load(model))
