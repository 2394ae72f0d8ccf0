from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.engine.cache import SUMS, cached


class Builder:
    """Writes two files and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self, directory: Path) -> None:
        assert list(directory.iterdir()) == []
        self.built += 1
        threading.Event().wait(0.02)  # what a conversion costs
        (directory / "graph").write_text("graph")
        (directory / "weights").write_bytes(b"weights" * 1000)


@pytest.fixture
def build() -> Builder:
    return Builder()


def test_built_once(tmp_path: Path, build: Builder) -> None:
    home = cached(tmp_path / "new" / "cache", "key", build)
    assert cached(tmp_path / "new" / "cache", "key", build) == home
    assert build.built == 1
    assert {path.name for path in home.iterdir()} == {"graph", "weights", SUMS}


def test_each_key_for_itself(tmp_path: Path, build: Builder) -> None:
    assert cached(tmp_path, "one", build) != cached(tmp_path, "other", build)
    assert build.built == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: (home / "weights").unlink(),
        lambda home: (home / "weights").write_bytes(b"weights"),
        lambda home: (home / "weights").write_bytes(b"weighty" * 1000),
        lambda home: (home / "stranger").touch(),
        lambda home: (home / SUMS).unlink(),
        lambda home: (home / SUMS).write_text("{"),
    ],
    ids=["missing", "cut", "altered", "added", "no sums", "broken sums"],
)
def test_damaged_is_made_again(
    tmp_path: Path,
    build: Builder,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    home = cached(tmp_path, "key", build)
    damage(home)
    assert cached(tmp_path, "key", build) == home
    assert build.built == 2
    assert (home / "weights").read_bytes() == b"weights" * 1000
    assert not (home / "stranger").exists()
    assert f"files in {home} are damaged" in caplog.text


def test_a_build_that_ended_half_way_leaves_no_trace(tmp_path: Path, build: Builder) -> None:
    def killed(directory: Path) -> None:
        (directory / "graph").write_text("gra")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path, "key", killed)
    home = cached(tmp_path, "key", build)
    assert (home / "graph").read_text() == "graph"
    assert {path.name for path in tmp_path.iterdir()} == {"key", "key.lock"}


def test_one_builds_and_the_others_wait(tmp_path: Path, build: Builder) -> None:
    with ThreadPoolExecutor(8) as pool:
        homes = list(pool.map(lambda _: cached(tmp_path, "key", build), range(8)))
    assert len(set(homes)) == 1
    assert build.built == 1


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path, build: Builder) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        cached(tmp_path / "file" / "cache", "key", build)
