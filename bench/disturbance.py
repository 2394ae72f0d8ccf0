"""How much of the machine others took while something was measured.

A rate beside a busy neighbour says little, and a ratio of two rates says nothing when only one
of them had the neighbour. Each row therefore carries the cores that others took meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import psutil

# In cores; below it a row counts as undisturbed.
QUIET_CORES = 0.2
SAMPLE_S = 1.0


class Sample(NamedTuple):
    """One measurement and the cores that others took during it."""

    value: float
    others_cores: float

    @property
    def is_quiet(self) -> bool:
        """Whether others left the machine alone."""
        return self.others_cores <= QUIET_CORES


class Watch:
    """Measures what others compute while the block runs; a context manager.

    Ours is this process and all that descends from it. What a process of ours computed counts
    as others' when the process ends within the block, so a disturbance is never overlooked.
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
    """Wait until others leave the machine alone; False where they did not."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        with Watch() as watch:
            time.sleep(SAMPLE_S)
        if watch.others_cores <= QUIET_CORES:
            return True
    return False


def quietest(samples: Sequence[Sample], count: int) -> Sample:
    """Median of the ``count`` samples with the least disturbance, whatever their values.

    Returns:
        The median value and the worst disturbance among those samples.
    """
    chosen = sorted(samples, key=lambda sample: sample.others_cores)[:count]
    return Sample(
        statistics.median(sample.value for sample in chosen),
        max(sample.others_cores for sample in chosen),
    )


def seconds_in_turns(runs: Sequence[Callable[[], object]], *, repeats: int) -> list[Sample]:
    """Seconds of each run, in turns after one to warm up, of its quietest repeats.

    Goes on for up to twice the repeats until each run has that many undisturbed ones.
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
    # What a hypervisor gave to others is as good as computed by others. Linux alone tells.
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
