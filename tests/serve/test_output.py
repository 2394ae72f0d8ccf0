from __future__ import annotations

import errno
from pathlib import Path

import pytest

from serve.errors import ArtifactAltered, ArtifactError
from serve.output import new_directory
from tests.serve.tiny import MakeSource


def write(out: Path, text: str = "new") -> None:
    with new_directory(out) as work:
        (work / "model").mkdir()
        (work / "model" / "file").write_text(text)
        (work / "rest").touch()


def test_directory_is_there_once_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b" / "model")

    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["model"]
    assert (tmp_path / "a" / "b" / "model" / "file").read_text() == "new"


def test_empty_directory_and_link_to_one_are_free(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")

    write(tmp_path / "link")
    assert (tmp_path / "empty" / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


def test_what_is_there_stays_untouched(tmp_path: Path) -> None:
    write(tmp_path / "model", "old")
    (tmp_path / "plain").write_text("x")

    for taken in ("model", "plain"):
        with pytest.raises(ArtifactError, match=f"{taken} already exists.*choose another"):
            write(tmp_path / taken)
    assert (tmp_path / "model" / "file").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("odd")])
def test_interrupted_work_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "not" / "yet" / "there"
    with pytest.raises(type(error)), new_directory(out):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_directory_that_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(ArtifactAltered, match=f"^{out}/x is odd$"), new_directory(out) as work:
        raise ArtifactAltered(f"{work / 'model' / 'x'} is odd")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_full_and_closed_disks_are_told_in_a_sentence(tmp_path: Path, code: int) -> None:
    out = tmp_path / "model"
    message = f"{out}: cannot be written: the cause; .*choose another"
    with pytest.raises(ArtifactError, match=message), new_directory(out):
        raise OSError(code, "the cause", "a file")
    assert list(tmp_path.iterdir()) == []


def test_path_below_a_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        write(tmp_path / "file" / "model")


@pytest.mark.model
def test_output_inside_the_source_is_refused(make_source: MakeSource) -> None:
    from serve.importing import import_model  # loads torch

    source = make_source()
    before = sorted(source.iterdir())
    with pytest.raises(ArtifactError, match="is inside the source"):
        import_model(str(source), source / "deep" / "out", task="text-classification")
    assert sorted(source.iterdir()) == before
