"""Archives: the same bytes again, and nothing outside of the directory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ops.archive import tar_of, unpack
from ops.errors import ArtifactStoreError

FILES = {"a.txt": b"", "folder/b.bin": bytes(range(256)) * 17, "c.txt": b"x" * 512}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "made"


def test_files_are_the_same_again(directory: Path, tmp_path: Path) -> None:
    content = b"".join(tar_of(directory))
    unpack(io.BytesIO(content), tmp_path / "out")
    for name, expected in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == expected
    (directory / "c.txt").touch()  # later
    assert b"".join(tar_of(directory)) == content


@pytest.mark.parametrize("kept", [0, 100, 1100, 3000, 6000])
def test_what_is_cut_within_a_file_is_told(directory: Path, tmp_path: Path, kept: int) -> None:
    content = b"".join(tar_of(directory))[:kept]
    with pytest.raises(ArtifactStoreError, match="cannot be unpacked"):
        unpack(io.BytesIO(content), tmp_path / "out")


@pytest.mark.parametrize("name", ["../outside", "a/../../outside"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(ArtifactStoreError, match="cannot be unpacked"):
        unpack(io.BytesIO(content.getvalue()), tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("outside"))


def test_links_are_not_followed(tmp_path: Path) -> None:
    content = io.BytesIO()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../elsewhere"
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(link)
    with pytest.raises(ArtifactStoreError, match="cannot be unpacked"):
        unpack(io.BytesIO(content.getvalue()), tmp_path / "out")
