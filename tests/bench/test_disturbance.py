from __future__ import annotations

import time

import pytest

from bench import disturbance
from bench.disturbance import Watch


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_own_work_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # The rest of the machine is whatever it is: here it computes exactly as much as we do.
    monkeypatch.setattr(disturbance, "_busy_s", time.process_time)
    with Watch() as watch:
        burn(0.3)
    assert watch.others_cores < 0.2


def test_work_that_is_not_ours_is_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disturbance, "_busy_s", lambda: 2 * time.perf_counter())
    monkeypatch.setattr(disturbance, "_ours_s", dict)
    with Watch() as watch:
        burn(0.1)
    assert watch.others_cores == pytest.approx(2.0, rel=0.1)
