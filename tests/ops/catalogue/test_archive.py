"""Archives: the same directory again, and nothing but what its manifest names."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.catalogue.archive import (
    BLOCK,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    PLAIN_MAX_BYTES,
    sizes_of,
    tar_bytes,
    tar_of,
    unpack,
)
from ops.errors import ArtifactStoreError, StoreUnavailable
from serve.artifact import MANIFEST_FILE, load
from serve.errors import ArtifactAltered, ArtifactError
from tests.ops.directories import archive_of, make_directory, small_disk


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_directory(tmp_path / "made", weights=bytes(range(256)) * 17)


def names_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_directory_is_the_same_again(directory: Path, tmp_path: Path) -> None:
    (directory / ".cache").mkdir()
    (directory / ".cache" / "graph.xml").write_text("<net/>")
    content = archive_of(directory)
    assert len(content) == tar_bytes(sizes_of((directory / MANIFEST_FILE).read_bytes()))

    unpack(io.BytesIO(content + bytes(8 * BLOCK)), tmp_path / "out")

    assert load(tmp_path / "out").digest == load(directory).digest
    assert names_under(tmp_path / "out") == names_under(directory) - {".cache/graph.xml"}
    (directory / "config.json").touch()  # later
    assert archive_of(directory) == content


def test_other_tools_read_it(directory: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_of(directory))) as archive:
        assert archive.getnames()[0] == MANIFEST_FILE
        member = archive.extractfile("model.safetensors")
        assert member is not None
        assert member.read() == (directory / "model.safetensors").read_bytes()


def test_a_file_that_a_plain_header_has_no_room_for() -> None:
    """Its header alone: nobody wants to write the file."""
    parts = tar_of({"model.safetensors": PLAIN_MAX_BYTES}, lambda _: io.BytesIO())
    entry = tarfile.TarInfo.frombuf(next(iter(parts)), "utf-8", "strict")
    assert (entry.name, entry.size) == ("model.safetensors", PLAIN_MAX_BYTES)


@pytest.mark.parametrize(("name", "size"), [("a" * 300, 0), ("a" * 101, PLAIN_MAX_BYTES)])
def test_a_name_that_is_too_long_is_told(name: str, size: int) -> None:
    with pytest.raises(ArtifactStoreError, match="shorter name"):
        next(iter(tar_of({name: size}, lambda _: io.BytesIO())))


@pytest.mark.parametrize("content", [b"", b"1234", b"123456"])
def test_a_file_that_changes_while_it_is_sent(content: bytes) -> None:
    with pytest.raises(ArtifactAltered, match=r"a\.txt .*is being changed"):
        list(tar_of({"a.txt": 5}, lambda _: io.BytesIO(content)))


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_is_cut_anywhere_is_told(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        content = archive_of(make_directory(Path(folder) / "made"))
        kept = data.draw(st.integers(0, len(content) - 1))
        with pytest.raises((ArtifactStoreError, ArtifactError)):
            unpack(io.BytesIO(content[:kept]), Path(folder) / "out")


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_altered_anywhere_leads_nowhere_else(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        made = make_directory(folder / "made")
        content, digest = bytearray(archive_of(made)), load(made).digest
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        try:
            unpack(io.BytesIO(content), folder / "deep" / "out")
            found = load(folder / "deep" / "out").digest
        except (ArtifactStoreError, ArtifactError):
            found = digest
        assert found == digest
        assert {path.name for path in folder.iterdir()} <= {"made", "deep"}
        assert {path.name for path in (folder / "deep").glob("*")} <= {"out"}


@given(content=st.binary(max_size=3 * BLOCK))
@example(content=bytes(2 * BLOCK))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        with pytest.raises(ArtifactStoreError):
            unpack(io.BytesIO(content), Path(folder) / "out")
        assert list(Path(folder).iterdir()) == []


def tar(entries: list[tuple[tarfile.TarInfo, bytes]], kind: Any = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def plain(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def manifest(*names: str, size: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    files = {name: {"sha256": empty, "bytes": size} for name in names}
    return plain(MANIFEST_FILE, orjson.dumps({"files": files}))


BOMB = tarfile.TarInfo("x")
BOMB.pax_headers = {"comment": "x" * 10_000_000}
REFUSED: dict[str, tuple[bytes, str]] = {
    "no manifest": (tar([plain("a.txt")]), "first file is not MANIFEST"),
    "manifest later": (tar([plain("a.txt"), manifest("a.txt")]), "first file is not"),
    "manifest that is none": (tar([plain(MANIFEST_FILE, b"[]")]), "is invalid"),
    "manifest without end": (
        tar([plain(MANIFEST_FILE, b" " * (MAX_MANIFEST_BYTES + 1))]),
        "at most 4,194,304 bytes",
    ),
    "empty manifest": (tar([plain(MANIFEST_FILE)]), "at most"),
    "too many files": (
        tar([manifest(*(f"{n}" for n in range(MAX_FILES + 1)))]),
        "more than 10,000 files",
    ),
    "absolute": (tar([manifest("/etc/passwd"), plain("/etc/passwd")]), "not a valid name"),
    "outside": (tar([manifest("../x"), plain("../x")]), "not a valid name"),
    "outside and back": (tar([manifest("a/../../x"), plain("a/../../x")]), "not a valid name"),
    "with a dot": (tar([manifest("./a"), plain("./a")]), "not a valid name"),
    "twice the slash": (tar([manifest("a//b"), plain("a//b")]), "not a valid name"),
    "no name": (tar([manifest(""), plain("")]), "not a valid name"),
    "a zero in it": (tar([manifest("a\0b")]), "not a valid name"),
    "compiled files": (tar([manifest(".cache/x"), plain(".cache/x")]), "not a valid name"),
    "manifest of itself": (tar([manifest(MANIFEST_FILE)]), "not a valid name"),
    "long step": (tar([manifest("a" * 256)]), "too long for a name"),
    "within a file": (tar([manifest("a", "a/b"), plain("a"), plain("a/b")]), "inside another"),
    "not listed": (tar([manifest("a"), plain("a"), plain("b")]), "'b' occurs twice, or is not"),
    "listed, not there": (tar([manifest("a", "b"), plain("a")]), "ends without 'b'"),
    "twice": (tar([manifest("a"), plain("a"), plain("a")]), "'a' occurs twice"),
    "manifest twice": (tar([manifest("a"), manifest("a")]), "occurs twice"),
    "symbolic link": (tar([manifest("a"), special("a", tarfile.SYMTYPE, "/etc")]), "a plain"),
    "hard link": (tar([manifest("a"), special("a", tarfile.LNKTYPE, "/etc/x")]), "a plain"),
    "directory": (tar([manifest("a"), special("a", tarfile.DIRTYPE)]), "a plain file"),
    "device": (tar([manifest("a"), special("a", tarfile.CHRTYPE)]), "a plain file"),
    "pipe": (tar([manifest("a"), special("a", tarfile.FIFOTYPE)]), "a plain file"),
    "manifest that is a link": (tar([special(MANIFEST_FILE, tarfile.SYMTYPE, "/x")]), "a plain"),
    "header without end": (tar([(BOMB, b"")], tarfile.PAX_FORMAT), "a plain file"),
    "long name": (tar([manifest("a" * 120), plain("a" * 120)]), "a plain file"),
    "more behind it": ((archive := tar([manifest("a"), plain("a")])) + b"x", "after its end"),
    "half an end": (archive[: 3 * BLOCK] + bytes(BLOCK) + b"x" * BLOCK, "end marker is"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_archives_are_refused(tmp_path: Path, name: str) -> None:
    content, why = REFUSED[name]
    with pytest.raises(ArtifactStoreError, match=why):
        unpack(io.BytesIO(content), tmp_path / "deep" / "out")
    assert names_under(tmp_path) <= {f"deep/out/{file}" for file in (MANIFEST_FILE, "a")}


def test_a_size_below_zero_is_none(tmp_path: Path) -> None:
    """Which base 256 can say, and which would read to the end."""
    entry = tarfile.TarInfo("a")
    entry.size = -1
    header = entry.tobuf(tarfile.GNU_FORMAT)
    content = tar([manifest("a", size=1)])[: 2 * BLOCK] + header + bytes(2 * BLOCK)
    with pytest.raises(ArtifactAltered, match="-1 bytes and the manifest says 1"):
        unpack(io.BytesIO(content), tmp_path / "out")


def test_a_file_that_is_not_the_one_of_the_manifest(directory: Path, tmp_path: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(ArtifactAltered, match=r"model\.safetensors has sha256 .* manifest says"):
        unpack(io.BytesIO(archive_of(directory)), tmp_path / "out")


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    content = archive_of(make_directory(tmp_path / "made", weights=bytes(3 << 20)))
    with (
        small_disk(2 << 20),
        pytest.raises(StoreUnavailable, match=r"model\.safetensors cannot be written: File too"),
    ):
        unpack(io.BytesIO(content), tmp_path / "out")
