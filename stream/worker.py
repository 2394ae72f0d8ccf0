"""One consumer: opens the adapters, runs the loop in a thread, and ends it or its process.

Does not import ray: the client that calls the replicas is passed in.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from stream.control import ControlFollower
from stream.errors import BrokerUnreachable, StreamError, TopicMissing
from stream.heartbeat import Heartbeat
from stream.interfaces import Adapters, RecordSource
from stream.isolation import Caller, ReplicaClient
from stream.kafka.admin import Admin
from stream.kafka.readers import ControlReader
from stream.kafka.sink import PlainProducer, PlainSink, Sink, TransactionalSink
from stream.kafka.source import GroupSource
from stream.outputs import TopicLimits
from stream.pipeline import LoopProgress, Pipeline
from stream.schema import ConsumerRecord
from stream.settings import KafkaSettings, PipelineSettings
from stream.shadow import ShadowCalls
from stream.topics import pipeline_topics, platform_topics

logger = logging.getLogger(__name__)

HUNG_EXIT_CODE = 70
RETRY_S = 1.0
CONTROL_START_S = 15.0
MAX_TROUBLE = 2048


class WorkerState(NamedTuple):
    """State of a consumer.

    Attributes:
        pid: Process id of the consumer.
        rank: Its number among the pipeline's consumers, from 0.
        progress: Progress of its loop; None while the adapters are not open.
        trouble: Why it cannot continue at the moment, in words; None if it can.
        ended: Whether the loop has ended; it does not restart by itself.
    """

    pid: int
    rank: int
    progress: LoopProgress | None
    trouble: str | None
    ended: bool


class Worker:
    """Runs one consumer of a pipeline in its own thread."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: PipelineSettings,
        *,
        rank: int,
        client: ReplicaClient,
        on_hang: Callable[[str], None] | None = None,
    ) -> None:
        """Start at once; wait for a broker that is unavailable.

        Args:
            rank: From 0, unique among the pipeline's consumers.
            client: Calls the replicas of the model.
            on_hang: Called when the loop has been stuck for ``stall_timeout_s``; None ends the
                process, as a client call that hangs cannot be ended otherwise.
        """
        self._kafka = kafka
        self._settings = settings
        self._client = client
        self._on_hang = on_hang or _end_process
        self.rank = rank
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._pipeline: Pipeline | None = None
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._live, name="pipeline", daemon=True)
        self._thread.start()
        self._heartbeat = Heartbeat(
            self._record, lambda: PlainProducer(kafka), interval_s=settings.telemetry_interval_s
        )
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def state(self) -> WorkerState:
        """Return the consumer's state; may be called from any thread."""
        progress = self._pipeline.progress() if self._pipeline else None
        trouble = self._trouble or (progress.error if progress else None)
        return WorkerState(os.getpid(), self.rank, progress, trouble, self._ended.is_set())

    def _record(self) -> ConsumerRecord:
        state, settings = self.state(), self._settings
        progress = state.progress
        last_error, at_s = (progress and progress.last_error) or (None, None)
        has_committed = progress is not None and math.isfinite(progress.committed_s)
        return ConsumerRecord(
            pipeline=settings.name,
            consumer=self.rank,
            model=settings.model,
            pid=state.pid,
            at_ms=int(time.time() * 1000),
            epoch=progress.epoch if progress else None,
            versions=tuple(sorted(progress.versions)) if progress else (),
            waiting=progress.waiting if progress else 0,
            committed_ago_s=progress.committed_s if progress and has_committed else None,
            trouble=state.trouble[:MAX_TROUBLE] if state.trouble else None,
            last_error=last_error[:MAX_TROUBLE] if last_error else None,
            last_error_ms=int(at_s * 1000) if at_s else None,
            ended=state.ended,
        )

    def stop(self, *, timeout_s: float, leave: bool) -> bool:
        """Finish what is in flight, commit it and end.

        Args:
            timeout_s: Timeout for all of this.
            leave: Remove the static member from the group: no consumer of this rank follows,
                and its partitions must not wait for the session to time out.
        Returns:
            False if it did not end in time.
        """
        self._stopping.set()
        self._thread.join(timeout_s)
        self._heartbeat.stop()
        if leave:
            try:
                with Admin(self._kafka, deadline_s=2.0) as admin:
                    admin.remove_static_member(
                        self._settings.name, f"{self._settings.name}-{self.rank}"
                    )
            except StreamError as exc:
                logger.warning("the member's partitions stay idle until its session ends: %s", exc)
        return not self._thread.is_alive()

    def _live(self) -> None:
        follower: ControlFollower | None = None
        try:
            if not self._prepare():
                return
            follower = ControlFollower(lambda: ControlReader(self._kafka))
            self._follow(follower)
            self._pipeline = Pipeline(
                self._settings,
                self._adapters(follower),
                rank=self.rank,
                stopping=self._stopping,
            )
            self._pipeline.run()
        except StreamError as exc:
            self._trouble = f"{type(exc).__name__}: {exc}"
            logger.error("pipeline %s stops: %s", self._settings.name, self._trouble)
        except Exception as exc:
            self._trouble = f"{type(exc).__name__}: {exc}"
            logger.exception("pipeline %s stops", self._settings.name)
            raise
        finally:
            self._ended.set()
            if follower is not None:
                follower.stop()

    def _prepare(self) -> bool:
        """Wait for the broker and the topics; return False if a stop was requested meanwhile."""
        while not self._stopping.is_set():
            try:
                with Admin(self._kafka, deadline_s=5.0) as admin:
                    if self._settings.create_topics:
                        admin.ensure_topics(platform_topics() | pipeline_topics(self._settings))
                    wanted = [*self._settings.input_topics, self._settings.output_topic]
                    admin.require_topics([*wanted, self._settings.dead_letters])
            except (BrokerUnreachable, TopicMissing) as exc:
                self._trouble = str(exc)
                self._stopping.wait(RETRY_S)
            else:
                self._trouble = None
                return True
        return False

    def _read_limits(self) -> TopicLimits:
        with Admin(self._kafka, deadline_s=5.0) as admin:
            self._limits = admin.limits(self._settings)
        return self._limits

    def _follow(self, follower: ControlFollower) -> None:
        try:
            follower.start(CONTROL_START_S)
        except BrokerUnreachable as exc:
            # Its thread has ended; the process is replaced and starts again.
            raise BrokerUnreachable(f"the routing table cannot be read: {exc}") from exc

    def _adapters(self, follower: ControlFollower) -> Adapters:
        def sink(source: RecordSource) -> Sink:
            kafka, settings, batch_bytes = self._kafka, self._settings, min(self._limits)
            if settings.delivery == "exactly-once":
                return TransactionalSink(kafka, settings, rank=self.rank, batch_bytes=batch_bytes)
            return PlainSink(kafka, settings, committer=source, batch_bytes=batch_bytes)

        return Adapters(
            source=lambda revoked: GroupSource(
                self._kafka, self._settings, rank=self.rank, revoked=revoked
            ),
            sink=sink,
            caller=Caller(self._client, self._settings, self._stopping),
            shadow=ShadowCalls(self._client, self._settings, self._stopping, rank=self.rank),
            table=follower.table,
            limits=self._read_limits,
        )

    def _watch(self) -> None:
        """Watch the loop: several calls of the Kafka client can block without a limit."""
        limit_s = self._settings.stall_timeout_s
        while not self._ended.wait(min(1.0, limit_s / 4)):
            progress = self._pipeline.progress() if self._pipeline else None
            if progress is not None and progress.turned_s > limit_s:
                self._on_hang(
                    f"the loop of {self._settings.name}-{self.rank} has been stuck for "
                    f"{progress.turned_s:.0f} s"
                )
                return


def _end_process(reason: str) -> None:
    logger.critical("%s: ending the process", reason)
    faulthandler.dump_traceback(sys.stderr)
    time.sleep(0.1)  # until the log is written
    os._exit(HUNG_EXIT_CODE)
