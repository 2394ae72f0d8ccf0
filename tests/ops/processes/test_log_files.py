"""The line of a log that says what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.processes import log_files
from ops.processes.log_files import KEPT, KEPT_BEFORE, MAX_BYTES, MAX_CHARACTERS, keep, last_error


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        ("", ""),
        ("started\nrunning\n", ""),
        ("[main] ERROR Exiting Kafka.\nbye\n", "Exiting Kafka."),
        ("[2026-01-01 10:00:00,1 E 1 2] gcs.cc:7: Failed to bind\n", "Failed to bind"),
        ("Exception: first\nException: second\n", "Exception: second"),
        ("error " + "x" * 1000, ("error " + "x" * 1000)[:MAX_CHARACTERS]),
    ],
)
def test_the_last_line_that_tells_of_an_error(log: str, wanted: str) -> None:
    assert last_error(log) == wanted


def rays(folder: Path) -> Path:
    """The folder in which Ray has its logs, empty."""
    (folder / "serve").mkdir(parents=True, exist_ok=True)
    return folder


def test_what_a_consumer_printed_is_kept_under_its_name(tmp_path: Path) -> None:
    said = b":job_id:02\n:actor_name:ServeReplica:pipeline-words:pipeline\n"
    folder = rays(tmp_path / "ray")
    (folder / "worker-ab-02-77.err").write_bytes(said + b"the broker is gone\n")
    (folder / "worker-ab-02-77.out").write_bytes(said)  # says nothing
    (folder / "serve" / "replica_words.log").write_bytes(b"ready\n")
    (folder / "dashboard.log").write_bytes(b"of no use\n")
    keep(folder, tmp_path)
    kept = {path.name: path.read_bytes() for path in (tmp_path / KEPT).iterdir()}
    assert sorted(kept) == ["pipeline-words-77.err", "replica_words.log"]
    assert kept["pipeline-words-77.err"].endswith(b"the broker is gone\n")
    assert (tmp_path / KEPT).stat().st_mode & 0o077 == 0


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "MAX_FILES", 3)
    folder = rays(tmp_path / "ray")
    for number in range(9):
        path = folder / "serve" / f"{number}.log"
        path.write_bytes(b"x" * MAX_BYTES + b"end")
        os.utime(path, (number, number))
    keep(folder, tmp_path)
    kept = sorted((tmp_path / KEPT).iterdir())
    assert [path.name for path in kept] == ["6.log", "7.log", "8.log"]
    assert {path.stat().st_size for path in kept} == {MAX_BYTES}
    assert kept[0].read_bytes().endswith(b"end")


def test_the_run_before_stays_and_no_other(tmp_path: Path) -> None:
    for run in (b"1", b"2", b"3"):
        folder = rays(tmp_path / "ray")
        (folder / "raylet.out").write_bytes(run)
        keep(folder, tmp_path)
    assert (tmp_path / KEPT / "raylet.out").read_bytes() == b"3"
    assert (tmp_path / KEPT_BEFORE / "raylet.out").read_bytes() == b"2"
    keep(tmp_path / "nothing", tmp_path)
    assert (tmp_path / KEPT / "raylet.out").read_bytes() == b"3"
