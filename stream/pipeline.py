"""The loop: read, get answers, commit. Owns the order of these steps and the recovery when the
outcome of a commit is unknown.

Uses neither ray nor the Kafka client: a source, a sink and a caller are passed in.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from serve.contract import OF_THE_VERSION, Failure, FailureKind
from stream.backoff import PASSING, Backoff
from stream.consumer_stats import ConsumerStats, RescueReason
from stream.dispatch import Queues
from stream.errors import ModelUnavailable, OutputRefused, StreamError, SystemFault
from stream.interfaces import Adapters, RecordSource
from stream.isolation import Reply
from stream.kafka.sink import Sink
from stream.offsets import OffsetTracker, Slot
from stream.outputs import OutputMaker
from stream.records import Damaged, Offsets, Output, Partition, Record
from stream.routes import Routes
from stream.settings import PipelineSettings
from stream.shadow import Mirrored, Order
from stream.window import Call, Calls

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long the loop waits for records when nothing is in flight, and for an answer or a route while
# it does not read.
IDLE_POLL_MS = 100
BUSY_WAIT_S = 0.005
# With a full window, the consumer still polls this often to stay in the group.
FULL_POLL_S = 0.1
# How often an idle consumer commits past transaction markers and aborted records.
PASSED_S = 5.0
# Windows' worth of records that may be held before a commit: answers behind a slow call stay in
# memory until it returns.
MAX_HELD_WINDOWS = 4
# How long a rebalance may wait for answers in flight.
DRAIN_S = 3.0
STOP_DRAIN_S = 15.0
# The client may keep failing without ever reporting that it cannot recover.
MAX_FAILURES_IN_A_ROW = 60


class LoopProgress(NamedTuple):
    """Progress of a pipeline; counts are since its process started.

    Attributes:
        turned_s: Seconds since the last iteration of the loop began.
        committed_s: Seconds since the last commit; infinite before the first.
        waiting: Records read and not yet committed.
        in_flight: Micro-batches in flight to the replicas.
        versions: Versions whose answers it still waits for.
        epoch: Epoch of the route that it follows; None while there is none.
        error: The error that the loop is retrying; None if there is none.
        last_error: The last error and its time, in seconds since 1970; None if there was none.
    """

    turned_s: float
    committed_s: float
    waiting: int
    in_flight: int
    versions: set[str]
    epoch: int | None
    answers: int
    dead_letters: int
    commits: int
    failed_commits: int
    error: str | None
    last_error: tuple[str, float] | None


class Pipeline:
    """One consumer of a pipeline. ``run`` is its loop; ``progress`` may be called meanwhile."""

    def __init__(
        self,
        settings: PipelineSettings,
        adapters: Adapters,
        *,
        rank: int,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._adapters = adapters
        self._stopping = stopping
        self._clock = clock
        self._wall_clock = wall_clock
        self._tracker = OffsetTracker()
        self._queues = Queues(
            max_records=settings.max_batch_records, max_bytes=settings.max_batch_bytes
        )
        self._calls = Calls(adapters.caller, window=settings.window, clock=clock)
        self._tally = ConsumerStats(settings, rank=rank, now_s=wall_clock())
        self._routes = Routes(settings.model, adapters.table)
        self._trouble = Backoff(settings.name, stopping)
        self._turned_at = self._committed_at = self._full_poll_at = clock()
        self._has_committed = False
        self._places: dict[Partition, int] = {}
        self._has_read_all = True
        self._broken: StreamError | None = None

    # --- life cycle ---------------------------------------------------------------------

    def run(self) -> None:
        """Read, get answers and commit until a stop is requested; then finish what is in flight.

        Raises:
            Fenced: A successor is running; nothing more was committed. Not retriable.
            SystemFault: The pipeline cannot continue; nothing more was committed. Not retriable.
            BrokerRefused: The broker refused login, TLS or a permission. Not retriable.
        """
        try:
            self._open()
            self._turn_until_stopped()
            self._finish()
        finally:
            self._stopping.set()
            self._close()

    def progress(self) -> LoopProgress:
        """Return the pipeline's progress; may be called from any thread."""
        now = self._clock()
        return LoopProgress(
            turned_s=now - self._turned_at,
            committed_s=now - self._committed_at if self._has_committed else float("inf"),
            waiting=len(self._tracker),
            in_flight=len(self._calls),
            versions=self._queues.versions() | self._calls.versions(),
            epoch=self._routes.epoch(),
            answers=self._tally.answers,
            dead_letters=self._tally.dead_letters,
            commits=self._tally.commits,
            failed_commits=self._tally.failed_commits,
            error=self._trouble.text or self._adapters.caller.trouble,
            last_error=self._trouble.last,
        )

    def _open(self) -> None:
        self._source: RecordSource | None = None
        self._sink: Sink | None = None
        self._wait_for_route()
        self._read_limits()
        self._source = self._persist(lambda: self._adapters.source(self._revoked))
        if self._source is not None:
            self._sink = self._persist(lambda: self._adapters.sink(self._source))  # type: ignore[arg-type]

    def _wait_for_route(self) -> None:
        """Wait for a route: without one, no version can be chosen for a record."""
        while (fault := self._routes.fault()) and not self._stopping.wait(BUSY_WAIT_S):
            self._turned_at = self._clock()
            self._trouble.note(fault)

    def _read_limits(self) -> None:
        """Ask for the topics' size limits; wait while one of the topics is unfit."""
        limits = self._persist(self._adapters.limits)
        if limits is not None:
            self._maker = OutputMaker(self._settings, limits)

    def _persist(self, attempt: Callable[[], T]) -> T | None:
        """Retry until it succeeds, as iterations of the loop; None if a stop is requested."""

        def turn() -> T:
            self._turned_at = self._clock()
            return attempt()

        return self._trouble.persist(turn)

    def _turn_until_stopped(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._turned_at = self._clock()
            try:
                self._turn()
            except PASSING as exc:
                failures += 1
                if failures > MAX_FAILURES_IN_A_ROW:
                    raise SystemFault(f"{failures} failures in a row; the last: {exc}") from exc
                self._trouble.note(exc)
                self._trouble.pause(failures)
                if isinstance(exc, OutputRefused):
                    self._read_limits()
                self._recover()
            except ModelUnavailable:
                if not self._stopping.is_set():
                    raise
            else:
                failures = 0
                self._trouble.note(self._routes.fault())

    def _turn(self) -> None:
        assert self._source is not None
        self._follow_route()
        self._take_answers()
        self._raise_broken()
        if self._commit_is_due():
            self._commit()
        elif passed := self._passed():
            self._commit_places(passed)
        self._dispatch()
        records = self._read()
        for gone in self._source.take_deleted():
            self._tracker.pass_over(gone)
        for record in records:
            self._admit(record)
        self._raise_broken()
        self._dispatch()

    def _finish(self) -> None:
        """Wait for the calls in flight, and commit their answers."""
        deadline = self._clock() + STOP_DRAIN_S
        while len(self._calls) and self._clock() < deadline:
            self._turned_at = self._clock()
            self._calls.wait(BUSY_WAIT_S)
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
        self._calls.close()
        self._adapters.shadow.close()
        for side in (self._sink, self._source):
            if side is not None:
                try:
                    side.close()
                except StreamError as exc:
                    logger.warning("%s", exc)

    # --- reading ------------------------------------------------------------------------

    def _read(self) -> list[Record]:
        """Read up to the free capacity, without delaying anything else that is due."""
        assert self._source is not None
        if self._queues.is_full() or self._is_holding_too_much() or self._routes.fault():
            self._calls.wait(BUSY_WAIT_S)
            if self._clock() - self._full_poll_at < FULL_POLL_S:
                return []
            self._full_poll_at = self._clock()
            return self._source.poll_nothing()
        if not len(self._calls):
            return self._source.poll(IDLE_POLL_MS)
        if self._has_read_all:
            self._calls.wait(self._calls.pause_s)
        records = self._source.poll(0)
        self._has_read_all = len(records) < self._settings.max_batch_records
        return records

    def _is_holding_too_much(self) -> bool:
        windows = MAX_HELD_WINDOWS * self._settings.window
        return (
            len(self._tracker) >= windows * self._settings.max_batch_records
            or self._tracker.value_bytes >= windows * self._settings.max_batch_bytes
        )

    def _admit(self, record: Record) -> None:
        """Choose a record's version, open its slot, and put it in the queue."""
        slot = self._tracker.add(record, self._routes.choose(record))
        failure = None
        if isinstance(record.headers, Damaged):
            failure = Failure(FailureKind.CORRUPT, record.headers.fault)
        elif record.value is None:
            failure = Failure(FailureKind.TOMBSTONE, "the record has no value: nothing to predict")
        if failure is not None:
            now_ms = int(self._wall_clock() * 1000)
            self._maker.finish(slot, failure, attempt=0, info=None, now_ms=now_ms)
        else:
            self._queues.put(slot)

    # --- answering ----------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Fill the window; while half of it or more is in use, partial batches grow instead."""
        while self._calls.has_room:
            slots = self._queues.cut(partial=self._calls.is_half_empty)
            if not slots:
                return
            version = slots[0].version
            mirrored = self._mirror(version, slots)
            self._calls.send(slots, self._routes.digest(version), mirrored)

    def _mirror(self, version: str, slots: list[Slot]) -> Mirrored | None:
        """Send a copy of the live version's micro-batch to the candidate, if there is one."""
        shadow = self._routes.shadow_of(version)
        if shadow is None:
            return None
        order = Order(version, shadow.version, self._routes.digest(shadow.version))
        return self._adapters.shadow.mirror(order, [slot.record for slot in slots], shadow.share)

    def _take_answers(self) -> None:
        """Set the answers that have arrived on their slots.

        Raises:
            SystemFault: Raised by the caller, for a version that has no fallback. Not retriable.
        """
        for call in self._calls.take_done():
            fallback = self._routes.fallback_of(call.version)
            try:
                reply = call.future.result()
            except StreamError as exc:
                if fallback is None:
                    raise
                logger.warning("version %s: %s", call.version, exc)
                self._rescue(call.slots, fallback, "away")
            else:
                self._take_answer(call, reply, fallback)

    def _take_answer(self, call: Call, reply: Reply, fallback: str | None) -> None:
        now_ms = int(self._wall_clock() * 1000)
        failed = []
        for slot, outcome, attempt in zip(call.slots, reply.outcomes, reply.attempts, strict=True):
            if fallback and isinstance(outcome, Failure) and outcome.kind in OF_THE_VERSION:
                failed.append(slot)
                continue
            self._maker.finish(slot, outcome, attempt=attempt, info=reply.info, now_ms=now_ms)
        self._tally.observe_reply(call.version, reply)
        if fallback and failed:
            self._rescue(failed, fallback, "failed")
        if call.mirrored is not None:
            self._adapters.shadow.compare(call.mirrored, reply)

    # --- changes of the route -----------------------------------------------------------

    def _follow_route(self) -> None:
        """Take records back from versions without a route, and from a canary that is late."""
        if self._routes.has_changed():
            slots = self._queues.drop(lambda slot: not self._routes.has(slot.version))
            for call in self._calls.abandon(lambda call: not self._routes.has(call.version)):
                slots += call.slots
            for slot in slots:
                slot.version = self._routes.choose(slot.record)
                self._queues.put(slot)
        for call in self._calls.abandon(self._is_late):
            fallback = self._routes.fallback_of(call.version)
            assert fallback is not None  # checked by _is_late
            self._rescue(call.slots, fallback, "late")

    def _is_late(self, call: Call) -> bool:
        if self._routes.fallback_of(call.version) is None:
            return False
        return self._calls.age_s(call) > self._settings.fallback_after_s

    def _rescue(self, slots: list[Slot], fallback: str, reason: RescueReason) -> None:
        """Send a version's records to the fallback, and charge the version for it."""
        self._tally.observe_rescues(slots[0].version, reason, len(slots))
        for slot in slots:
            slot.version = fallback
            self._queues.put(slot)

    # --- committing ---------------------------------------------------------------------

    def _commit_is_due(self) -> bool:
        if not self._tracker.has_prefix():
            return self._tally.is_due(self._wall_clock())
        if not len(self._calls) and not len(self._queues):
            return True
        if self._is_holding_too_much():
            return True
        return (self._clock() - self._committed_at) * 1000 >= self._settings.commit_interval_ms

    def _commit(self) -> None:
        """Commit the done records, together with telemetry.

        Raises:
            CommitFailed: No part of it is visible, or that is unknown. Retriable.
            Fenced: A successor is running. Not retriable.
        """
        assert self._source is not None
        assert self._sink is not None
        prefix = self._tracker.take()
        outputs = [output for slot in prefix.slots for output in slot.outputs]
        self._tally.observe_deleted(prefix.deleted)
        now_s = self._wall_clock()
        telemetry = self._telemetry(now_s) if self._tally.is_due(now_s) else []
        if outputs or telemetry:
            self._send(outputs + telemetry, prefix.offsets)
            self._places.update(prefix.offsets)
        self._committed_at = self._clock()
        if prefix.slots:
            self._has_committed = True
            self._tally.observe_commit(prefix.slots, self._wall_clock())

    def _passed(self) -> Offsets:
        """Return the positions of an idle consumer past offsets without a readable record."""
        assert self._source is not None
        if len(self._tracker) or self._clock() - self._committed_at < PASSED_S:
            return {}
        places = self._source.places().items()
        return {one: at for one, at in places if at > self._places.get(one, -1)}

    def _commit_places(self, places: Offsets) -> None:
        self._send([], places)
        self._places.update(places)
        self._committed_at = self._clock()

    def _telemetry(self, now_s: float) -> list[Output]:
        start_ms, end_ms = int(self._tally.window_start_s * 1000), int(now_s * 1000)
        return self._tally.take(now_s) + self._adapters.shadow.take(start_ms, end_ms)

    def _send(self, outputs: list[Output], offsets: Offsets) -> None:
        assert self._source is not None
        assert self._sink is not None
        try:
            self._sink.commit(outputs, offsets, self._source.group_metadata())
        except StreamError:
            self._tally.failed_commits += 1
            raise

    def _recover(self) -> None:
        """Settle with a new producer what was committed, and read again from there."""
        self._calls.abandon(lambda _: True)
        self._queues.drop(lambda _: True)
        self._tracker.rewind()
        self._places.clear()
        assert self._source is not None
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        source = self._source
        self._sink = self._persist(lambda: self._adapters.sink(source))
        self._persist(source.seek_to_committed)

    # --- revoked partitions -------------------------------------------------------------

    def _revoked(self, partitions: set[Partition], lost: bool) -> None:
        """Finish and commit what is in flight for partitions that move to another consumer.

        Runs on the client's thread while the loop waits in ``poll``, so that nothing else
        touches the loop's state. Must not raise: the client would only log the error.
        """
        if not lost and self._settings.delivery == "exactly-once" and self._sink is not None:
            try:
                self._drain(partitions)
            except StreamError as exc:
                self._broken = exc
        gone = frozenset(partitions)
        self._queues.drop(lambda slot: (slot.record.topic, slot.record.partition) in gone)
        self._tracker.forget(partitions)
        for partition in partitions:
            self._places.pop(partition, None)

    def _drain(self, partitions: set[Partition]) -> None:
        deadline = self._clock() + DRAIN_S
        waiting = set(map(id, self._calls.slots()))
        while self._clock() < deadline:
            self._take_answers()
            if not any(id(slot) in waiting for slot in self._tracker.open_slots(partitions)):
                break
            self._calls.wait(BUSY_WAIT_S)
        if self._tracker.has_prefix():
            self._commit()

    def _raise_broken(self) -> None:
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken
