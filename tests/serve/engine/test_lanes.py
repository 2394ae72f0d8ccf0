from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serve.engine.lanes import Lanes
from serve.engine.padding import Arrays, Batch
from serve.errors import EngineError

DEADLINE_S = 20


def batch_of(value: int, shape: tuple[int, int] = (2, 3)) -> Batch:
    return Batch(np.full(shape, value), np.ones(shape, dtype=np.int64))


def echo(lane: int, batch: Batch) -> Arrays:
    return (batch.input_ids.astype(np.float32),)


def values(done: tuple[list[Arrays], float]) -> list[int]:
    return [int(array[0, 0]) for (array,) in done[0]]


def test_answers_come_in_the_order_of_the_batches() -> None:
    lanes = Lanes(range(3), echo, at_a_time=3, vocabulary_size=100)
    assert values(lanes.run([batch_of(value) for value in range(100)])) == list(range(100))
    lanes.close()


def test_every_lane_works_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=DEADLINE_S)
    seen: list[int] = []

    def compute(lane: int, batch: Batch) -> Arrays:
        together.wait()
        seen.append(lane)
        return echo(lane, batch)

    lanes = Lanes(range(3), compute, at_a_time=3, vocabulary_size=10)
    lanes.run([batch_of(1)] * 3)
    assert sorted(seen) == [0, 1, 2]
    lanes.close()


def test_one_batch_runs_in_every_lane_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=DEADLINE_S)
    seen: list[int] = []

    def compute(lane: int, batch: Batch) -> Arrays:
        together.wait()
        seen.append(lane)
        return echo(lane, batch)

    lanes = Lanes(range(3), compute, at_a_time=1, vocabulary_size=10)
    lanes.run_everywhere(batch_of(1))
    assert sorted(seen) == [0, 1, 2]
    lanes.close()


def test_one_lane_runs_one_batch_at_a_time() -> None:
    busy = [threading.Lock(), threading.Lock()]

    def compute(lane: int, batch: Batch) -> Arrays:
        assert busy[lane].acquire(blocking=False)
        try:
            return echo(lane, batch)
        finally:
            busy[lane].release()

    lanes = Lanes(range(2), compute, at_a_time=2, vocabulary_size=10)
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lanes.run, [[batch_of(1)] * 50] * 4))
    lanes.close()


def test_a_failing_batch_fails_its_call_and_no_other() -> None:
    started: list[int] = []

    def compute(lane: int, batch: Batch) -> Arrays:
        started.append(int(batch.input_ids[0, 0]))
        if batch.input_ids[0, 0] == 7:
            raise RuntimeError("out of memory")
        threading.Event().wait(0.01)  # what a batch costs
        return echo(lane, batch)

    lanes = Lanes([0], compute, at_a_time=1, vocabulary_size=100)
    with pytest.raises(EngineError, match=r"shape \(2, 3\): out of memory") as raised:
        lanes.run([batch_of(value) for value in (1, 7, *range(20, 100))])
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert len(started) < 82  # the rest of the call was dropped
    assert values(lanes.run([batch_of(5)])) == [5]
    lanes.close()


def test_a_fault_of_the_program_passes_as_it_is() -> None:
    def compute(lane: int, batch: Batch) -> Arrays:
        raise AttributeError("no such thing")

    lanes = Lanes([0], compute, at_a_time=1, vocabulary_size=10)
    with pytest.raises(AttributeError, match="no such thing"):
        lanes.run([batch_of(1)])
    lanes.close()


def test_close_waits_for_the_calls_in_progress() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def compute(lane: int, batch: Batch) -> Arrays:
        entered.set()
        assert go_on.wait(DEADLINE_S)
        return echo(lane, batch)

    lanes = Lanes([0], compute, at_a_time=1, vocabulary_size=10)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(lanes.run, [batch_of(1), batch_of(2)])
        assert entered.wait(DEADLINE_S)
        closing = pool.submit(lanes.close)
        assert not closing.done()
        go_on.set()
        assert values(call.result(DEADLINE_S)) == [1, 2]
        closing.result(DEADLINE_S)
    with pytest.raises(EngineError, match="the engine is closed"):
        lanes.run([batch_of(1)])


def test_closing_twice_is_closing() -> None:
    lanes = Lanes([0], echo, at_a_time=1, vocabulary_size=10)
    lanes.close()
    lanes.close()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_batches_are_refused(shape: tuple[int, int]) -> None:
    lanes = Lanes([0], echo, at_a_time=1, vocabulary_size=10)
    with pytest.raises(EngineError, match="batch 1"):
        lanes.run([batch_of(1), batch_of(1, shape)])
    lanes.close()


def test_mask_of_another_shape_is_refused() -> None:
    lanes = Lanes([0], echo, at_a_time=1, vocabulary_size=10)
    with pytest.raises(EngineError, match=r"\(2, 3\) and mask \(2, 4\)"):
        lanes.run([Batch(batch_of(1).input_ids, batch_of(1, (2, 4)).attention_mask)])
    lanes.close()


def test_what_a_batch_waits_for_those_of_other_calls_is_not_what_it_takes() -> None:
    """Two lanes of an engine that computes one batch at a time."""
    first_is_in, first_is_done = threading.Event(), threading.Event()

    def compute(lane: int, batch: Batch) -> Arrays:
        if batch.input_ids[0, 0] == 1:
            first_is_in.set()
            threading.Event().wait(0.3)  # what it computes
            first_is_done.set()
        else:
            assert first_is_done.wait(DEADLINE_S)
        return echo(lane, batch)

    lanes = Lanes(range(2), compute, at_a_time=1, vocabulary_size=10)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(lanes.run, [batch_of(1)])
        assert first_is_in.wait(DEADLINE_S)
        second = callers.submit(lanes.run, [batch_of(2)])
        assert first.result(DEADLINE_S)[1] >= 0.3
        assert second.result(DEADLINE_S)[1] < 0.2
    lanes.close()


def test_what_the_batches_of_a_call_take_adds_up() -> None:
    def compute(lane: int, batch: Batch) -> Arrays:
        threading.Event().wait(0.05)
        return echo(lane, batch)

    lanes = Lanes(range(2), compute, at_a_time=2, vocabulary_size=10)
    assert lanes.run([batch_of(1)] * 4)[1] >= 0.2
    assert lanes.run([]) == ([], 0)
    lanes.close()
