"""Files that are replaced whole, in a real folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.processes.state_file import replace_file


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_file(file, "old, and longer than the new one")
    replace_file(file, b"new")
    assert file.read_text() == "new"
    assert [*tmp_path.iterdir()] == [file]


def test_what_another_left_half_written_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.with_suffix(".tmp").write_text("hal")
    replace_file(file, "whole")
    assert file.read_text() == "whole"


def test_a_private_file_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("readable for all")
    file.chmod(0o644)
    replace_file(file, "secret", private=True)
    assert file.stat().st_mode & 0o777 == 0o600


def test_where_it_cannot_be_written_the_old_content_stays(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    replace_file(file, "old")
    file.with_suffix(".tmp").mkdir()
    with pytest.raises(OSError, match="tmp"):
        replace_file(file, "new")
    assert file.read_text() == "old"
