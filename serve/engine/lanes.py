"""Lanes: the fixed places in which batches of all callers run side by side.

Knows threads and nothing of any engine. A lane is whatever an engine needs for one batch
at a time (an infer request, a CUDA stream); lanes are made once and live as long as the
engine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve.engine.protocol import Batch
from serve.errors import EngineError

Lane = TypeVar("Lane")
FAILURES_OF_A_BATCH = (RuntimeError, IndexError, ValueError, MemoryError)


class Lanes(Generic[Lane]):
    """Runs batches in whichever lane is free; callers on several threads share them all."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        compute: Callable[[Lane, Batch], NDArray[np.float32]],
        *,
        vocabulary_size: int,
    ) -> None:
        """Take possession of the lanes.

        Args:
            lanes: One thread is kept for each, so that a free thread always finds one.
            compute: Runs one batch in one lane. What an engine raises for a batch becomes an
                EngineError; anything else is a fault of the program and passes as it is.
            vocabulary_size: Token ids are below it. An id past the end reads foreign memory
                in one engine and breaks the card's context for good in another, so none gets
                that far.
        """
        self._idle: SimpleQueue[Lane] = SimpleQueue()
        for lane in lanes:
            self._idle.put(lane)
        self._compute = compute
        self._vocabulary_size = vocabulary_size
        self._workers = ThreadPoolExecutor(len(lanes), thread_name_prefix="lane")
        self._closing = threading.Lock()
        self._closed = False

    def run(self, batches: Sequence[Batch]) -> list[NDArray[np.float32]]:
        """Run batches, as many at a time as there are lanes.

        Returns:
            One array per batch, in order.
        Raises:
            EngineError: One of them failed, or the lanes are closed. Nothing of this call
                runs any more when it is raised.
        """
        for position, batch in enumerate(batches):
            self._check(batch, position)
        futures = self._submit(batches)
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((f for f in futures if f in done and f.exception() is not None), None)
        if failed is None:
            return [future.result() for future in futures]
        for future in futures:
            future.cancel()
        wait(futures)
        raise _as_engine_error(failed.exception(), batches[futures.index(failed)])

    def close(self) -> None:
        """Wait for the batches in progress, then let the lanes go."""
        with self._closing:
            self._closed = True
        self._workers.shutdown(wait=True)
        while not self._idle.empty():
            self._idle.get()

    def _submit(self, batches: Sequence[Batch]) -> list[Future[NDArray[np.float32]]]:
        with self._closing:
            if self._closed:
                raise EngineError("the engine is closed; open another one")
            return [self._workers.submit(self._run_one, batch) for batch in batches]

    def _run_one(self, batch: Batch) -> NDArray[np.float32]:
        lane = self._idle.get()
        try:
            return self._compute(lane, batch)
        finally:
            self._idle.put(lane)

    def _check(self, batch: Batch, position: int) -> None:
        ids, mask = batch
        if ids.ndim != 2 or ids.size == 0 or ids.shape != mask.shape:
            raise EngineError(
                f"batch {position}: token ids {ids.shape} and mask {mask.shape} must be two "
                "equal (B, T), neither 0"
            )
        lowest, highest = int(ids.min()), int(ids.max())
        if lowest < 0 or highest >= self._vocabulary_size:
            wrong = lowest if lowest < 0 else highest
            raise EngineError(
                f"batch {position}: token id {wrong} is outside the model's vocabulary of "
                f"{self._vocabulary_size}; the tokenizer belongs to another model"
            )


def _as_engine_error(cause: BaseException | None, batch: Batch) -> BaseException:
    if not isinstance(cause, FAILURES_OF_A_BATCH):
        assert cause is not None
        return cause
    error = EngineError(f"inference failed on a batch of shape {batch.input_ids.shape}: {cause}")
    error.__cause__ = cause
    return error
