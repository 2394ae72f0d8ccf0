"""Fixtures that tests of several packages share, and the order in which tests run."""

from __future__ import annotations

import os
import re
import signal
import uuid
from pathlib import Path

import pytest

# Before any test imports ray: nothing leaves the machine.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ops import processes
from tests.broker import broker, own_broker, secure_broker, topic_name

__all__ = ["broker", "own_broker", "secure_broker", "topic_name"]

# In the environment of everything that one run starts.
TEST_RUN = "BERTSTREAM_TEST_RUN"
SLOW_MARKERS = {"slow", "model", "postgres", "kafka", "ray", "gpu"}
MARKS_OF_FILE = re.compile(r"^pytestmark = (\[[^]]*\]|.*)$", re.MULTILINE)


def pytest_sessionstart() -> None:
    """Take a polite kill for Ctrl-C: fixtures then stop their brokers and clusters."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Started in a script's background, Ctrl-C would be ignored here and in all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Mark everything that this run starts."""
    if not hasattr(config, "workerinput"):
        os.environ[TEST_RUN] = uuid.uuid4().hex


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no broker and no cluster behind of a process that was ended before its fixtures."""
    if not hasattr(config, "workerinput"):
        run = os.environ.pop(TEST_RUN)
        left = processes.end(lambda: processes.marked(run, mark=TEST_RUN))
        assert not left, f"these processes cannot be ended: {left}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file out unread when its marks alone leave it out: importing torch takes seconds."""
    if collection_path.suffix != ".py":
        return None
    marks = MARKS_OF_FILE.search(collection_path.read_text())
    excluded = set(re.findall(r"not (\w+)", config.getoption("markexpr")))
    return True if marks and excluded & set(re.findall(r"mark\.(\w+)", marks[0])) else None


@pytest.hookimpl(tryfirst=True)  # the groups must stand before xdist reads them
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what needs no broker and no cluster first: most mistakes show within seconds.

    Of several processes one begins with everything that starts Ray, which takes longest: a
    cluster takes another one for its own, or too many of the cores. The tests of a file that
    needs something slow stay together, as they share it.
    """
    items.sort(key=lambda item: len(_slow_marks(item)))
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: "ray" not in _slow_marks(item))
    for item in items:
        marks = _slow_marks(item)
        if marks:
            group = "ray" if "ray" in marks else str(item.path)
            item.add_marker(pytest.mark.xdist_group(group))


def _slow_marks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()} & SLOW_MARKERS
