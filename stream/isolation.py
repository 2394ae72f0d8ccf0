"""Gets answers for micro-batches: retries, and isolates the record that a model fails on.

Uses replicas only through a ``ReplicaClient``; imports neither ray nor Kafka.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

from serve.contract import (
    Answer,
    BatchReply,
    BatchStats,
    Failure,
    FailureKind,
    Outcome,
    ReplicaInfo,
)
from stream.errors import CallFailed, CallLost, ModelUnavailable, SystemFault
from stream.settings import PipelineSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 3.0
ABANDONED_POLL_S = 0.2
# A record that kills a replica on its own is tried this many times before it counts as poison.
LONE_ATTEMPTS = 2


class ReplicaClient(Protocol):
    """Calls the replicas of one model; thread-safe."""

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        """Send a micro-batch to one replica and return its answers.

        Raises:
            ModelUnavailable: No replica accepted the call. Retriable.
            CallLost: A replica accepted it and died or timed out. Retriable.
            CallFailed: A replica failed on the batch. Not retriable.
        """
        ...

    def info(self, version: str) -> ReplicaInfo:
        """Return what the replicas of a version run; raises the same errors as ``call``."""
        ...


class Reply(NamedTuple):
    """Result of a micro-batch.

    Attributes:
        outcomes: One per value, in order.
        attempts: Number of calls that contained the value, one per value.
        stats: Statistics of every call that returned.
        info: The replica that answered.
        retries: Number of repeated calls.
    """

    outcomes: list[Outcome]
    attempts: list[int]
    stats: list[BatchStats]
    info: ReplicaInfo
    retries: int


class _Order(NamedTuple):
    """Target of a call; ``abandoned`` is set when the answer is no longer needed."""

    version: str
    digest: str | None
    abandoned: threading.Event


class Caller:
    """Gets answers for micro-batches from a client, in the threads of the pipeline's window.

    A lost call is repeated with no other call of its version in parallel, so that a replica's
    death is charged to the batch that caused it; then the batch is halved until one record
    remains.
    """

    def __init__(
        self, client: ReplicaClient, settings: PipelineSettings, stopping: threading.Event
    ) -> None:
        self._client = client
        self._settings = settings
        self._stopping = stopping
        self._gates: dict[str, _Gate] = {}
        self._infos: dict[str, ReplicaInfo] = {}
        self._lock = threading.Lock()
        self._poison_runs: Counter[str] = Counter()
        self._away: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """Return which model is waited for, and why; None if all answer. From any thread."""
        return next(iter(self._away.copy().values()), None)

    def answer(
        self,
        version: str,
        values: list[bytes],
        digest: str | None = None,
        abandoned: threading.Event | None = None,
    ) -> Reply:
        """Return an outcome for every value, with retries and isolation as needed.

        Args:
            version: Version of the model.
            values: Shape (N,), N >= 1.
            digest: Digest of the model directory that must answer; None accepts any.
            abandoned: Set by the caller when it no longer needs the answer.
        Raises:
            SystemFault: The model was unavailable past its deadline, or fails on every record.
            ModelUnavailable: The pipeline is stopping, or the call was abandoned.
        """
        order = _Order(version, digest, abandoned or threading.Event())
        gate = self._gate(version)
        try:
            with gate.shared(order.abandoned):
                return self._call(order, values, attempt=1)
        except (CallLost, CallFailed) as exc:
            logger.warning("a call with %d records failed, isolating: %s", len(values), exc)
            with gate.exclusive(order.abandoned):
                return self._isolate(order, values, 2, self._settings.max_attempts - 1)

    def _gate(self, version: str) -> _Gate:
        with self._lock:
            return self._gates.setdefault(version, _Gate(self._stopping))

    def _isolate(self, order: _Order, values: list[bytes], attempt: int, tries: int) -> Reply:
        """Try a batch up to ``tries`` more times, then halve it."""
        fault: Exception | None = None
        for turn in range(tries):
            try:
                return self._call(order, values, attempt=attempt + turn)
            except CallLost as exc:
                fault = exc
                self._pause(turn, order.abandoned)
            except CallFailed as exc:
                fault, tries = exc, turn + 1
                break
        attempt += tries
        if len(values) == 1:
            return self._poison(order, attempt - 1, fault)
        middle = len(values) // 2
        halves = [values[:middle], values[middle:]]
        replies = [
            self._isolate(order, half, attempt, LONE_ATTEMPTS if len(half) == 1 else 1)
            for half in halves
        ]
        return _joined(replies, retries=tries)

    def _call(self, order: _Order, values: list[bytes], *, attempt: int) -> Reply:
        """Make one call, waiting for the model up to its deadline."""
        version, digest = order.version, order.digest

        def call() -> tuple[BatchReply, ReplicaInfo]:
            reply = self._client.call(version, values)
            if digest is not None and reply.digest != digest:
                raise ModelUnavailable(
                    f"version {version} serves digest {reply.digest[:12]} instead of "
                    f"{digest[:12]}, which the control topic names"
                )
            return reply, self._info(version, reply.digest)

        reply, info = self._patiently(order, call)
        if any(isinstance(outcome, Answer) for outcome in reply.outcomes):
            with self._lock:
                self._poison_runs[version] = 0
        return Reply(reply.outcomes, [attempt] * len(values), [reply.stats], info, attempt > 1)

    def _patiently(self, order: _Order, ask: Callable[[], T]) -> T:
        """Retry until the model is available, up to its deadline."""
        version = order.version
        deadline = time.monotonic() + self._settings.model_deadline_s
        turn = 0
        while True:
            try:
                answer = ask()
            except ModelUnavailable as exc:
                self._away[version] = f"waiting for {self._settings.model}@{version}: {exc}"
                if time.monotonic() > deadline:
                    raise SystemFault(
                        f"the model {self._settings.model}@{version} was unavailable for "
                        f"{self._settings.model_deadline_s:g} s: {exc}. The pipeline keeps its "
                        "offsets; see `bertstream status`."
                    ) from exc
                self._pause(turn, order.abandoned)
                turn += 1
            else:
                self._away.pop(version, None)
                return answer

    def _poison(self, order: _Order, attempts: int, fault: Exception | None) -> Reply:
        version = order.version
        with self._lock:
            self._poison_runs[version] += 1
            run = self._poison_runs[version]
        if run > self._settings.max_poison_run:
            raise SystemFault(
                f"{run} records in a row failed on {self._settings.model}@{version} without an "
                f"answer in between: {fault}. The model is broken, not the records."
            )
        failure = Failure(FailureKind.POISON, f"the model fails on this record alone: {fault}")
        # The record may have killed the replica, and its replacement may still be starting.
        info = self._patiently(
            order, lambda: self._infos.get(version) or self._client.info(version)
        )
        return Reply([failure], [attempts], [], info, attempts - 1)

    def _info(self, version: str, digest: str) -> ReplicaInfo:
        info = self._infos.get(version)
        if info is None or info.digest != digest:
            info = self._infos[version] = self._client.info(version)
        return info

    def _pause(self, turn: int, abandoned: threading.Event) -> None:
        ends = time.monotonic() + min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2**turn)
        _raise_if_unwanted(self._stopping, abandoned)
        while (left_s := ends - time.monotonic()) > 0:
            self._stopping.wait(min(left_s, ABANDONED_POLL_S))
            _raise_if_unwanted(self._stopping, abandoned)


def _joined(replies: list[Reply], *, retries: int) -> Reply:
    return Reply(
        [outcome for reply in replies for outcome in reply.outcomes],
        [attempt for reply in replies for attempt in reply.attempts],
        [stats for reply in replies for stats in reply.stats],
        replies[-1].info,
        retries + sum(reply.retries for reply in replies),
    )


class _Gate:
    """Allows many calls in parallel, or one alone."""

    def __init__(self, stopping: threading.Event) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._stopping = stopping

    @contextmanager
    def shared(self, abandoned: threading.Event) -> Iterator[None]:
        with self._changed:
            self._wait(lambda: not self._alone, abandoned)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self, abandoned: threading.Event) -> Iterator[None]:
        with self._changed:
            self._wait(lambda: not self._alone, abandoned)
            self._alone = True
        try:
            with self._changed:
                self._wait(lambda: not self._inside, abandoned)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool], abandoned: threading.Event) -> None:
        while not self._changed.wait_for(free, timeout=ABANDONED_POLL_S):
            _raise_if_unwanted(self._stopping, abandoned)


def _raise_if_unwanted(stopping: threading.Event, abandoned: threading.Event) -> None:
    if stopping.is_set():
        raise ModelUnavailable("the pipeline is stopping")
    if abandoned.is_set():
        raise ModelUnavailable("the answer is no longer needed")
