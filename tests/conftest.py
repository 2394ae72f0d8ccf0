"""Fixtures that tests of several packages share, and the order in which tests run."""

from __future__ import annotations

import os
import signal

import pytest

# Before any test imports ray: nothing leaves the machine.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from tests.broker import broker, own_broker, secure_broker, topic_name

__all__ = ["broker", "own_broker", "secure_broker", "topic_name"]

SLOW_MARKERS = ("slow", "model", "postgres", "kafka", "ray", "gpu")


def pytest_sessionstart() -> None:
    """Take a polite kill for Ctrl-C: fixtures then stop their brokers and clusters."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Started in a script's background, Ctrl-C would be ignored here and in all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs no broker and no cluster first: most mistakes show within seconds."""
    items.sort(key=lambda item: sum(item.get_closest_marker(m) is not None for m in SLOW_MARKERS))
