"""Lanes: the fixed set of slots in which the batches of all callers run in parallel.

Handles threads, not engines. A lane is whatever an engine needs for one batch at a time (an
infer request, a CUDA stream); lanes are created once and live as long as the engine.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from serve.engine.padding import Arrays, Batch
from serve.errors import EngineError

Lane = TypeVar("Lane")
FAILURES_OF_A_BATCH = (RuntimeError, IndexError, ValueError, MemoryError)


class Lanes(Generic[Lane]):
    """Runs batches in any free lane; callers on several threads share all lanes."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        compute: Callable[[Lane, Batch], Arrays],
        *,
        at_a_time: int,
        vocabulary_size: int,
    ) -> None:
        """Take ownership of the lanes.

        Args:
            lanes: One thread is kept for each, so that a free thread always finds a lane.
            compute: Runs one batch in one lane. Errors of an engine for a batch become an
                EngineError; any other error is a bug and is raised unchanged.
            at_a_time: Number of batches that are really computed in parallel; those in the
                other lanes wait inside the engine.
            vocabulary_size: Upper bound of token ids. An id past the end reads foreign memory
                in one engine and breaks the GPU's context permanently in another, so such ids
                are refused.
        """
        self._idle: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)
        self._lanes = len(lanes)
        self._compute = compute
        self._queue = _CallQueue(at_a_time)
        self._vocabulary_size = vocabulary_size
        self._workers = ThreadPoolExecutor(len(lanes), thread_name_prefix="lane")
        self._closing = threading.Lock()
        self._closed = False

    def run(self, batches: Sequence[Batch]) -> tuple[list[Arrays], float]:
        """Run batches, as many at once as there are lanes.

        Returns:
            The outputs of each batch, in order, and the seconds that they took, summed, without
            waiting for those of other calls.
        Raises:
            EngineError: One of them failed, or the lanes are closed. No batch of this call
                is still running when it is raised. Retriable.
        """
        for position, batch in enumerate(batches):
            self._check(batch, position)
        futures = self._submit(batches)
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((f for f in futures if f in done and f.exception() is not None), None)
        if failed is None:
            computed = [future.result() for future in futures]
            return [one.outputs for one in computed], sum(one.seconds for one in computed)
        for future in futures:
            future.cancel()
        wait(futures)
        raise _as_engine_error(failed.exception(), batches[futures.index(failed)])

    def run_everywhere(self, batch: Batch) -> None:
        """Run one batch as often as there are lanes, at once.

        Raises:
            EngineError: It failed. Retriable.
        """
        self.run([batch] * self._lanes)

    def close(self) -> None:
        """Wait for the batches in progress, then release the lanes."""
        with self._closing:
            self._closed = True
        self._workers.shutdown(wait=True)
        while not self._idle.empty():
            self._idle.get()

    def _submit(self, batches: Sequence[Batch]) -> list[Future[_Computed]]:
        with self._closing:
            if self._closed:
                raise EngineError("the engine is closed; open another one")
            return [self._workers.submit(self._run_one, batch) for batch in batches]

    def _run_one(self, batch: Batch) -> _Computed:
        lane = self._idle.get()
        place = self._queue.enter()
        try:
            outputs = self._compute(lane, batch)
        finally:
            seconds = self._queue.leave(place)
            self._idle.put(lane)
        return _Computed(outputs, seconds)

    def _check(self, batch: Batch, position: int) -> None:
        ids, mask, _ = batch
        if ids.ndim != 2 or ids.size == 0 or ids.shape != mask.shape:
            raise EngineError(
                f"batch {position}: token ids {ids.shape} and mask {mask.shape} must have the "
                "same shape (B, T), neither 0"
            )
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= self._vocabulary_size:
            wrong = lowest if lowest < 0 else highest
            raise EngineError(
                f"batch {position}: token id {wrong} is outside the model's vocabulary of "
                f"{self._vocabulary_size}; the tokenizer belongs to another model"
            )


class _Computed(NamedTuple):
    """A batch's outputs, and the seconds since its computation started."""

    outputs: Arrays
    seconds: float


class _QueuedCall:
    """One batch in the engine; ``began`` is None while it waits for others."""

    def __init__(self) -> None:
        self.began: float | None = None


class _CallQueue:
    """Estimates when each batch starts: up to ``at_a_time`` at once, first come, first served.

    An engine does not report when it starts a batch. Measured from submission, a batch would
    seem to take twice as long only because another call came first.
    """

    def __init__(self, at_a_time: int) -> None:
        self._free = at_a_time
        self._waiting: deque[_QueuedCall] = deque()
        self._lock = threading.Lock()

    def enter(self) -> _QueuedCall:
        place = _QueuedCall()
        with self._lock:
            if self._free:
                self._free -= 1
                place.began = time.perf_counter()
            else:
                self._waiting.append(place)
        return place

    def leave(self, place: _QueuedCall) -> float:
        """Return the seconds since its turn; 0 where the engine ran it before its turn."""
        now = time.perf_counter()
        with self._lock:
            if place.began is None:
                self._waiting.remove(place)
                return 0.0
            if self._waiting:
                self._waiting.popleft().began = now
            else:
                self._free += 1
        return now - place.began


def _as_engine_error(cause: BaseException | None, batch: Batch) -> BaseException:
    if not isinstance(cause, FAILURES_OF_A_BATCH):
        assert cause is not None
        return cause
    error = EngineError(f"inference failed on a batch of shape {batch.input_ids.shape}: {cause}")
    error.__cause__ = cause
    return error
