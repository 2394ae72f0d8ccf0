"""Limits that grow with the load of the machine."""

from __future__ import annotations

import pytest

from ops.processes import start_limits as module
from ops.processes.start_limits import MAX_FACTOR, Patience, load_per_core


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_quiet_machine_has_the_limit_itself(clock: list[float]) -> None:
    patience = Patience(10.0, lambda: 0.2)
    clock[0] += 10.0
    assert not patience.is_over()
    clock[0] += 0.1
    assert patience.is_over()
    assert str(patience) == "10 s"


def test_the_highest_load_since_the_beginning_counts(clock: list[float]) -> None:
    loads = iter([3.0, 1.0, 0.0])
    patience = Patience(10.0, lambda: next(loads))
    assert not patience.is_over()
    clock[0] += 29.0
    assert not patience.is_over()
    clock[0] += 2.0
    assert patience.is_over()
    assert str(patience) == "31 s on a machine with 3.0 processes a core"


def test_it_is_bounded(clock: list[float]) -> None:
    patience = Patience(10.0, lambda: 1000.0)
    clock[0] += 10.0 * MAX_FACTOR
    assert not patience.is_over()
    clock[0] += 0.1
    assert patience.is_over()


def test_the_machine_has_a_load() -> None:
    assert load_per_core() >= 0
