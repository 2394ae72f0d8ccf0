"""Measure how much CPU other processes use during a measurement.

A rate measured alongside a busy process means little, and a ratio means nothing if only one of
its rates was disturbed. Each row therefore carries the cores that other processes used.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import psutil

# A row counts as undisturbed up to this number of cores.
QUIET_CORES = 0.2
SAMPLE_S = 1.0


class Sample(NamedTuple):
    """One measurement and the cores that other processes used during it."""

    value: float
    others_cores: float

    @property
    def is_quiet(self) -> bool:
        """Whether the measurement was undisturbed."""
        return self.others_cores <= QUIET_CORES


class Watch:
    """Context manager that measures the CPU use of other processes while its block runs.

    This process and its descendants count as ours. The CPU time of a descendant that ends within
    the block counts as other processes', so a disturbance is never overlooked.
    """

    def __enter__(self) -> Self:
        self._start, self._busy, self._ours = time.perf_counter(), _busy_s(), _ours_s()
        self.others_cores = 0.0
        return self

    def __exit__(self, *exc_info: object) -> None:
        ours = sum(spent - self._ours.get(pid, 0.0) for pid, spent in _ours_s().items())
        elapsed = time.perf_counter() - self._start
        self.others_cores = max(0.0, (_busy_s() - self._busy - ours) / elapsed)


def wait_for_quiet(deadline_s: float) -> bool:
    """Wait until the machine is quiet; return False if the deadline passes first."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        with Watch() as watch:
            time.sleep(SAMPLE_S)
        if watch.others_cores <= QUIET_CORES:
            return True
    return False


def quietest(samples: Sequence[Sample], count: int) -> Sample:
    """Return the median of the ``count`` least disturbed samples, whatever their values.

    Returns:
        The median value and the worst disturbance among those samples.
    """
    chosen = sorted(samples, key=lambda sample: sample.others_cores)[:count]
    return Sample(
        statistics.median(sample.value for sample in chosen),
        max(sample.others_cores for sample in chosen),
    )


def seconds_in_turns(runs: Sequence[Callable[[], object]], *, repeats: int) -> list[Sample]:
    """Return the median seconds of each run over its quietest repeats, round-robin.

    Warms up once; repeats up to twice as often until each run has ``repeats`` undisturbed samples.
    """
    samples: list[list[Sample]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(2 * repeats):
        for run, taken in zip(runs, samples, strict=True):
            with Watch() as watch:
                start = time.perf_counter()
                run()
                seconds = time.perf_counter() - start
            taken.append(Sample(seconds, watch.others_cores))
        if all(sum(sample.is_quiet for sample in taken) >= repeats for taken in samples):
            break
    return [quietest(taken, repeats) for taken in samples]


def _busy_s() -> float:
    times = psutil.cpu_times()
    # Time that the hypervisor gave to other guests counts as other processes'; Linux only.
    return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))


def _ours_s() -> dict[int, float]:
    spent: dict[int, float] = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent[process.pid] = times.user + times.system
    return spent
