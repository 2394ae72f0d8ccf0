"""Fixtures that tests of several packages share, and the order in which tests run."""

from __future__ import annotations

import gc
import os
import re
import signal
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Before any test imports ray: nothing leaves the machine.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ops.processes import children as processes
from tests.broker import broker, own_broker, secure_broker, topic_name
from tests.ray_head import shared_head

__all__ = ["broker", "own_broker", "secure_broker", "shared_head", "topic_name"]

# In the environment of everything that one run starts.
TEST_RUN = "BERTSTREAM_TEST_RUN"
# The same examples in every run, and however slow the machine: red or green is for the code to
# decide. `--hypothesis-profile=explore` looks for new ones; `make check` tries a few.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("fast", settings.get_profile("same"), max_examples=10)
settings.register_profile("explore", deadline=None, max_examples=3_000)
settings.load_profile("same")

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


@pytest.fixture(autouse=True, scope="module")
def _sockets_of_the_client(request: pytest.FixtureRequest) -> Iterator[None]:
    """The Kafka client forgets sockets of refused connections: the collector closes them, here
    and not in another file's tests, which would be blamed."""
    yield
    if re.search(r"pytest\.mark\.(kafka|ray|slow)", request.path.read_text()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
            gc.collect()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a file out unread when its marks alone leave it out: importing torch takes seconds."""
    if collection_path.suffix != ".py":
        return None
    marks = MARKS_OF_FILE.search(collection_path.read_text())
    excluded = set(re.findall(r"not (\w+)", config.getoption("markexpr")))
    return True if marks and excluded & set(re.findall(r"mark\.(\w+)", marks[0])) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what needs no broker and no cluster first: most mistakes show within seconds.

    Where several processes share the tests, one begins with those of Ray: they take longest. The
    cluster that some of them share starts after the others have gone.
    """
    items.sort(key=lambda item: len(_slow_marks(item)))
    items.sort(key=lambda item: "shared_head" in getattr(item, "fixturenames", ()))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not _starts_ray(item.path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Share the tests out by their files."""
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):
    """Tests of one file stay together, as they share what is slow to start.

    So do all that start Ray: one cluster takes another for its own, and all of the cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if _starts_ray(self.config.rootpath / file) else file


def _slow_marks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()} & SLOW_MARKERS


@cache
def _starts_ray(file: Path) -> bool:
    return "pytest.mark.ray" in file.read_text()
