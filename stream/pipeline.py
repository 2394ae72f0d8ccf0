"""The loop: read, have answered, commit. Owns the order of things and what happens on doubt.

Knows neither ray nor the Kafka client: a source, a sink and a caller come from outside.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

from serve.contract import Answer, Failure, FailureKind, ReplicaInfo
from serve.routing import route
from stream.caller import Caller, Reply
from stream.control import RoutingTable
from stream.dispatch import Queues
from stream.errors import (
    BrokerUnreachable,
    CommitFailed,
    ModelUnavailable,
    StreamError,
    SystemFault,
)
from stream.offsets import OffsetTracker, Prefix, Slot
from stream.outputs import OutputMaker, TopicLimits
from stream.records import Offsets, Output, Partition, Record
from stream.settings import PipelineSettings
from stream.sink import Sink
from stream.telemetry import TELEMETRY_TOPIC, Window

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long the loop waits for records when nothing is in flight, and for an answer when
# something is: the second bounds how late a new record is noticed beside a slow call.
IDLE_POLL_MS = 100
BUSY_WAIT_S = 0.005
# A full window still takes part in the group this often.
FULL_POLL_S = 0.1
# Windows' worth of records that may be held before a commit: answers behind a call that takes
# long stay in memory until it is back.
MAX_HELD_WINDOWS = 4
# How long a rebalance may wait for answers that are under way.
DRAIN_S = 3.0
STOP_DRAIN_S = 15.0
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
# The client may fail on and on without ever saying that it cannot recover.
MAX_FAILURES_IN_A_ROW = 60


class Source(Protocol):
    """What the loop needs of the consumer; ``stream.source.Source`` says what each does."""

    def poll(self, timeout_ms: int) -> list[Record]: ...  # noqa: D102
    def poll_nothing(self) -> list[Record]: ...  # noqa: D102
    def group_metadata(self) -> Any: ...  # noqa: D102
    def seek_to_committed(  # noqa: D102
        self, start_of: Callable[[Partition], int | None]
    ) -> None: ...
    def commit(self, offsets: Offsets) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Doors(NamedTuple):
    """How a pipeline reaches the world.

    Attributes:
        source: Joins the group; is told whom to call when partitions go.
        sink: Opens a producer, and ends what a predecessor left open.
        caller: Answers micro-batches.
        table: The routing table as it stands.
        limits: What the output topics take.
    """

    source: Callable[[Callable[[set[Partition], bool], None]], Source]
    sink: Callable[[Source], Sink]
    caller: Caller
    table: Callable[[], RoutingTable]
    limits: TopicLimits


class Progress(NamedTuple):
    """How a pipeline stands; counts are since its process started.

    Attributes:
        turned_s: Seconds since the loop last turned.
        committed_s: Seconds since the last commit; infinite before the first.
        waiting: Records read and not yet committed.
        in_flight: Micro-batches with the replicas.
        error: What the loop is trying to get over; None while all is well.
    """

    turned_s: float
    committed_s: float
    waiting: int
    in_flight: int
    answers: int
    dead_letters: int
    commits: int
    failed_commits: int
    error: str | None


class _Call(NamedTuple):
    slots: list[Slot]
    future: Future[Reply]


class Pipeline:
    """One consumer of a pipeline. ``run`` is its life; all else may be called meanwhile."""

    def __init__(
        self,
        settings: PipelineSettings,
        doors: Doors,
        *,
        rank: int,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._doors = doors
        self._stopping = stopping
        self._clock = clock
        self._wall_clock = wall_clock
        self._rank = rank
        self._tracker = OffsetTracker()
        self._queues = Queues(
            max_records=settings.max_batch_records, max_bytes=settings.max_batch_bytes
        )
        self._maker = OutputMaker(settings, doors.limits)
        self._calls: list[_Call] = []
        self._answered = threading.Event()
        self._windows: dict[str, Window] = {}
        self._infos: dict[str, ReplicaInfo] = {}
        self._window_start = wall_clock()
        self._turned_at = self._committed_at = self._full_poll_at = clock()
        self._has_committed = False
        self._broken: StreamError | None = None
        self._error: str | None = None
        self._last_routes: Mapping[str, float] = {}
        self._answers = self._dead_letters = self._commits = self._failed_commits = 0

    # --- life ---------------------------------------------------------------------------

    def run(self) -> None:
        """Read, answer and commit until told to stop; then finish what is in flight.

        Raises:
            Fenced: A successor is at work; nothing more was committed.
            SystemFault: Going on makes no sense; nothing more was committed.
            BrokerRefused: Login, TLS or permission.
        """
        with ThreadPoolExecutor(self._settings.window, thread_name_prefix="call") as threads:
            self._threads = threads
            try:
                self._open()
                self._turn_until_stopped()
                self._finish()
            finally:
                self._stopping.set()
                self._close()

    def progress(self) -> Progress:
        """How it stands; from any thread."""
        now = self._clock()
        return Progress(
            turned_s=now - self._turned_at,
            committed_s=now - self._committed_at if self._has_committed else float("inf"),
            waiting=len(self._tracker),
            in_flight=len(self._calls),
            answers=self._answers,
            dead_letters=self._dead_letters,
            commits=self._commits,
            failed_commits=self._failed_commits,
            error=self._error,
        )

    def _open(self) -> None:
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._wait_for_route()
        self._source = self._persist(lambda: self._doors.source(self._revoked))
        if self._source is not None:
            self._sink = self._persist(lambda: self._doors.sink(self._source))  # type: ignore[arg-type]

    def _wait_for_route(self) -> None:
        """A record cannot be given its version before there is one."""
        while self._routes() is None and not self._stopping.wait(BUSY_WAIT_S):
            self._turned_at = self._clock()
            self._note(self._unrouted())

    def _persist(self, attempt: Callable[[], T]) -> T | None:
        """Try until it works; None when told to stop meanwhile."""
        turn = 0
        while not self._stopping.is_set():
            self._turned_at = self._clock()
            try:
                result = attempt()
            except (BrokerUnreachable, CommitFailed) as exc:
                self._note(exc)
                self._back_off(turn)
                turn += 1
            else:
                self._note(None)
                return result
        return None

    def _turn_until_stopped(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._turned_at = self._clock()
            try:
                self._turn()
            except (BrokerUnreachable, CommitFailed) as exc:
                failures += 1
                if failures > MAX_FAILURES_IN_A_ROW:
                    raise SystemFault(f"{failures} failures in a row; the last: {exc}") from exc
                self._note(exc)
                self._back_off(failures)
                self._recover()
            except ModelUnavailable:
                if not self._stopping.is_set():
                    raise
            else:
                failures = 0
                self._note(self._unrouted())

    def _turn(self) -> None:
        assert self._source is not None
        self._take_answers()
        self._raise_broken()
        if self._commit_is_due():
            self._commit()
        self._dispatch()
        for record in self._read():
            self._admit(record)
        self._raise_broken()
        self._dispatch()

    def _finish(self) -> None:
        """Wait for what is with the replicas, and commit it."""
        deadline = self._clock() + STOP_DRAIN_S
        while self._calls and self._clock() < deadline:
            self._turned_at = self._clock()
            self._answered.wait(BUSY_WAIT_S)
            try:
                self._take_answers()
            except StreamError as exc:
                logger.warning("stopping without the last answers: %s", exc)
                break
        if self._sink is not None and self._tracker.has_prefix():
            try:
                self._commit()
            except StreamError as exc:
                logger.warning("the last results are left to the successor: %s", exc)

    def _close(self) -> None:
        for door in (self._sink, self._source):
            if door is not None:
                try:
                    door.close()
                except StreamError as exc:
                    logger.warning("%s", exc)

    # --- reading ------------------------------------------------------------------------

    def _read(self) -> list[Record]:
        """Read as much as there is room for, waiting no longer than anything else can."""
        assert self._source is not None
        if self._queues.is_full() or self._is_holding_too_much() or self._routes() is None:
            self._answered.wait(BUSY_WAIT_S)
            if self._clock() - self._full_poll_at < FULL_POLL_S:
                return []
            self._full_poll_at = self._clock()
            return self._source.poll_nothing()
        if not self._calls:
            return self._source.poll(IDLE_POLL_MS)
        records = self._source.poll(0)
        if not records:
            self._answered.wait(BUSY_WAIT_S)
        return records

    def _routes(self) -> Mapping[str, float] | None:
        """Weights by version; None while the control topic names none for the model."""
        record = self._doors.table().get(self._settings.model)
        if record is None:
            return None
        self._last_routes = {v: routed.weight for v, routed in record.versions.items()}
        return self._last_routes

    def _unrouted(self) -> ModelUnavailable | None:
        """Why nothing can be read, where that is for want of a route."""
        if self._settings.model in self._doors.table():
            return None
        return ModelUnavailable(f"the control topic has no route for model {self._settings.model}")

    def _is_holding_too_much(self) -> bool:
        windows = MAX_HELD_WINDOWS * self._settings.window
        return (
            len(self._tracker) >= windows * self._settings.max_batch_records
            or self._tracker.value_bytes >= windows * self._settings.max_batch_bytes
        )

    def _digest(self, version: str) -> str | None:
        record = self._doors.table().get(self._settings.model)
        routed = record.versions.get(version) if record else None
        return routed.digest if routed else None

    def _admit(self, record: Record) -> None:
        """Give a record its slot, its version and its place in the queue."""
        place = b"%s/%d/%d" % (record.topic.encode(), record.partition, record.offset)
        # A route may be taken away between two polls; what is read then goes the old way.
        weights = tuple((self._routes() or self._last_routes).items())
        slot = self._tracker.add(record, route(record.key, place, weights))
        if record.value is None:
            failure = Failure(FailureKind.TOMBSTONE, "the record has no value: nothing to predict")
            now_ms = int(self._wall_clock() * 1000)
            self._maker.finish(slot, failure, attempt=0, info=None, now_ms=now_ms)
        else:
            self._queues.put(slot)

    # --- answering ----------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Fill the window. A batch that is not full goes while half of the window is free:
        beside busy replicas it grows instead."""
        while len(self._calls) < self._settings.window:
            few = len(self._calls) < max(1, self._settings.window // 2)
            slots = self._queues.cut(partial=few)
            if not slots:
                return
            values = [slot.record.value or b"" for slot in slots]
            version = slots[0].version
            future = self._threads.submit(
                self._doors.caller.answer, version, values, self._digest(version)
            )
            self._calls.append(_Call(slots, future))
            future.add_done_callback(lambda _: self._answered.set())

    def _take_answers(self) -> None:
        """Put the answers that have come onto their slots.

        Raises:
            SystemFault: As the caller found.
        """
        self._answered.clear()
        for call in [call for call in self._calls if call.future.done()]:
            self._calls.remove(call)
            self._take_answer(call.slots, call.future.result())

    def _take_answer(self, slots: list[Slot], reply: Reply) -> None:
        now_ms = int(self._wall_clock() * 1000)
        for slot, outcome, attempt in zip(slots, reply.outcomes, reply.attempts, strict=True):
            self._maker.finish(slot, outcome, attempt=attempt, info=reply.info, now_ms=now_ms)
        self._infos[slots[0].version] = reply.info
        window = self._window(slots[0].version)
        for stats in reply.stats:
            window.observe_call(stats)
        for _ in range(reply.retries):
            window.observe_retry()

    # --- committing ---------------------------------------------------------------------

    def _commit_is_due(self) -> bool:
        if not self._tracker.has_prefix():
            return self._telemetry_is_due()
        if not self._calls and not len(self._queues):
            return True
        if self._is_holding_too_much():
            return True
        return (self._clock() - self._committed_at) * 1000 >= self._settings.commit_interval_ms

    def _commit(self) -> None:
        """Commit what is done, telemetry with it.

        Raises:
            CommitFailed: Nothing of it is visible, or that is not known.
            Fenced: A successor is at work.
        """
        assert self._source is not None
        assert self._sink is not None
        prefix = self._tracker.take()
        outputs = [slot.output for slot in prefix.slots if slot.output is not None]
        telemetry = self._telemetry() if self._telemetry_is_due() else []
        if outputs or telemetry:
            self._send(outputs + telemetry, prefix.offsets)
        self._committed_at = self._clock()
        if prefix.slots:
            self._has_committed = True
            self._commits += 1
            self._observe(prefix)

    def _send(self, outputs: list[Output], offsets: Offsets) -> None:
        assert self._source is not None
        assert self._sink is not None
        try:
            self._sink.commit(outputs, offsets, self._source.group_metadata())
        except StreamError:
            self._failed_commits += 1
            raise

    def _recover(self) -> None:
        """After a doubt: a new producer settles what happened, then read again from there."""
        # Calls in flight go on, and their answers land on slots that nobody looks at.
        self._queues.drop(lambda _: True)
        self._tracker.rewind()
        assert self._source is not None
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        source = self._source
        self._sink = self._persist(lambda: self._doors.sink(source))
        self._persist(lambda: source.seek_to_committed(self._tracker.start))

    # --- partitions that go -------------------------------------------------------------

    def _revoked(self, partitions: set[Partition], lost: bool) -> None:
        """Finish and commit what is under way for partitions that move to another consumer.

        Runs on the client's thread while the loop waits in ``poll``, so that nothing else
        touches the loop's state. Must not raise: the client would swallow it.
        """
        if not lost and self._settings.delivery == "exactly-once" and self._sink is not None:
            try:
                self._drain(partitions)
            except StreamError as exc:
                self._broken = exc
        gone = frozenset(partitions)
        self._queues.drop(lambda slot: (slot.record.topic, slot.record.partition) in gone)
        self._tracker.forget(partitions)

    def _drain(self, partitions: set[Partition]) -> None:
        deadline = self._clock() + DRAIN_S
        waiting = {id(slot) for call in self._calls for slot in call.slots}
        while self._clock() < deadline:
            self._take_answers()
            if not any(id(slot) in waiting for slot in self._tracker.open_slots(partitions)):
                break
            self._answered.wait(BUSY_WAIT_S)
        if self._tracker.has_prefix():
            self._commit()

    def _raise_broken(self) -> None:
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken

    # --- telling ------------------------------------------------------------------------

    def _window(self, version: str) -> Window:
        if version not in self._windows:
            self._windows[version] = Window(
                pipeline=self._settings.name,
                consumer=self._rank,
                model=self._settings.model,
                version=version,
            )
        return self._windows[version]

    def _observe(self, prefix: Prefix) -> None:
        """Count what is committed now: by version, answers and dead letters."""
        now_ms = self._wall_clock() * 1000
        by_version: dict[str, list[Slot]] = {}
        for slot in prefix.slots:
            by_version.setdefault(slot.version, []).append(slot)
        for version, slots in by_version.items():
            window = self._window(version)
            answers = [s.outcome for s in slots if isinstance(s.outcome, Answer)]
            ages = [now_ms - s.record.timestamp for s in slots if isinstance(s.outcome, Answer)]
            kinds = [s.outcome.kind for s in slots if isinstance(s.outcome, Failure)]
            window.observe_answers(answers, ages)
            window.observe_failures(kinds)
            self._answers += len(answers)
            self._dead_letters += len(kinds)

    def _telemetry_is_due(self) -> bool:
        if self._wall_clock() - self._window_start < self._settings.telemetry_interval_s:
            return False
        return any(not window.is_empty for window in self._windows.values())

    def _telemetry(self) -> list[Output]:
        start_ms, end_ms = int(self._window_start * 1000), int(self._wall_clock() * 1000)
        self._window_start = self._wall_clock()
        outputs = []
        for version, window in self._windows.items():
            if not window.is_empty:
                record = window.to_record(start_ms, end_ms, replica=self._infos.get(version))
                window.reset()
                key = f"{self._settings.name}/{self._rank}".encode()
                outputs.append(Output(TELEMETRY_TOPIC, key, record.to_bytes(), []))
        return outputs

    def _note(self, error: StreamError | None) -> None:
        """Remember the trouble, and log it when it changes: not at every attempt."""
        text = str(error) if error is not None else None
        if text != self._error:
            if text is not None:
                logger.warning("%s: trying on: %s", self._settings.name, text)
            elif self._error is not None:
                logger.info("%s: going on", self._settings.name)
        self._error = text

    def _back_off(self, turn: int) -> None:
        self._stopping.wait(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(turn, 10)))
