"""What the integration tests share: a stand-in for replicas, and an independent count.

The count is made with librdkafka, so that a mistake of the client under test cannot hide itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import psutil
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from serve.contract import Answer, BatchReply, BatchStats, Outcome, Predictor, ReplicaInfo
from stream.control import publish
from stream.errors import CallFailed, CallLost, ModelUnavailable
from stream.isolation import ReplicaClient
from stream.kafka.admin import Admin
from stream.kafka.sink import PlainProducer
from stream.schema import SOURCE_HEADER, ControlRecord, VersionRoute
from stream.settings import KafkaSettings, PipelineSettings
from stream.topics import pipeline_topics, platform_topics
from stream.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "d" * 64
KEYS = 100
# Only what never happens takes so long, on whatever machine.
DEADLINE_S = 90.0
# Where in a commit a consumer's process may end itself: at a method of the client's producer,
# and whether after it. Only the methods that a commit calls, each of them once.
DYING_PLACES = {
    "every record acknowledged": ("flush", True),
    "offsets in the transaction": ("commit_transaction", False),
    "committed and nobody told": ("commit_transaction", True),
}
leaves_sockets = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


class FakeModel:
    """Answers like replicas of one version, and fails on texts that say so.

    ``poison`` in a value fails the call, ``killer`` loses it, and ``huge`` has a result of
    ``huge_bytes``. All calls wait while ``open`` is not set, and those with ``slow`` in a value
    while ``slow`` is not.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        broken: bool = False,
        huge_bytes: int = 2_000_000,
        label: str = "E",
    ) -> None:
        self.label = label
        self.delay_s = delay_s
        self.broken = broken
        self.huge_bytes = huge_bytes
        self.away = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.slow = threading.Event()
        self.slow.set()
        self.calls: list[list[bytes]] = []

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        self.calls.append(values)
        if self.away.is_set():
            raise ModelUnavailable("no replica")
        assert self.open.wait(120), "nobody let the calls go on"
        if any(b"slow" in value for value in values):
            assert self.slow.wait(120), "nobody let the slow calls go on"
        if self.delay_s:
            time.sleep(self.delay_s)  # the time that a model computes
        if self.broken or any(b"poison" in value for value in values):
            raise CallFailed("the engine failed")
        if any(b"killer" in value for value in values):
            raise CallLost("the replica died")
        return BatchReply(
            [self._answer(value) for value in values],
            BatchStats(3, 3, 1, self.delay_s, self.delay_s),
            DIGEST,
        )

    def info(self, version: str) -> ReplicaInfo:
        return ReplicaInfo("m", version, DIGEST, "text-classification", "echo", "f32", "cpu")

    def _answer(self, value: bytes) -> Answer:
        label = "x" * self.huge_bytes if b"huge" in value else self.label
        result = orjson.dumps([{"label": label, "score": 1.0}])
        return Answer(result, orjson.dumps(json.loads(value)["id"]), label, 1.0, 3, False)


class FakeModels:
    """Replicas of several versions."""

    def __init__(self, **versions: FakeModel) -> None:
        self.versions = {name.removeprefix("v"): model for name, model in versions.items()}

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        return self.versions[version].call(version, values)

    def info(self, version: str) -> ReplicaInfo:
        return self.versions[version].info(version)


class LocalModel:
    """Answers with a replica in this process, with the options of a pipeline.

    Attributes:
        outcomes: Outcome of each value, the last one where it was sent several times.
    """

    def __init__(self, replica: Predictor, pipeline: PipelineSettings) -> None:
        self._replica = replica
        self._options = pipeline.call_options()
        self.outcomes: dict[bytes, Outcome] = {}

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        reply = self._replica.predict(values, self._options)
        self.outcomes.update(zip(values, reply.outcomes, strict=True))
        return reply

    def info(self, version: str) -> ReplicaInfo:
        return self._replica.info()


class Received(NamedTuple):
    """A record of an output topic, as the independent consumer saw it."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes | None]]
    timestamp_s: float

    @property
    def number(self) -> int:
        return int(orjson.loads(self.value)["id"])

    def header(self, name: str) -> str:
        return (dict(self.headers)[name] or b"").decode()


class Ledger:
    """Produces numbered records and counts what becomes of them."""

    def __init__(self, bootstrap: str, pipeline: PipelineSettings, **options: Any) -> None:
        """Connect.

        Args:
            options: Of librdkafka, for login and TLS.
        """
        self._options = {"bootstrap.servers": bootstrap, "log_level": 0} | options
        self._pipeline = pipeline
        # Idempotent: without, a batch that a busy broker refuses is sent again behind later ones.
        own = {"linger.ms": 2, "message.max.bytes": 10_000_000, "enable.idempotence": True}
        self._producer = Producer(self._options | own)
        self._follower: Consumer | None = None
        self.received: list[Received] = []
        self.sent = 0

    def produce(self, count: int, *, text: str = "x" * 150, **where: Any) -> None:
        """Send ``count`` records with numbers that go on from the last call."""
        for number in range(self.sent, self.sent + count):
            self.send(orjson.dumps({"id": number, "text": text}), _key(number), **where)
        self.sent += count
        self.flush()

    def send(self, value: bytes | None, key: bytes | None = None, **rest: Any) -> None:
        """Send one record as it is."""
        topic = rest.pop("topic", self._pipeline.input_topics[0])
        while True:
            try:
                self._producer.produce(topic, value, key=key, **rest)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0, "the test's own records did not reach the broker"

    def wait_for(
        self, done: Callable[[list[Received]], bool], *, deadline_s: float = DEADLINE_S
    ) -> list[Received]:
        """Read results, committed ones only, until ``done`` says so of all that came."""
        ends = time.monotonic() + deadline_s
        while not done(self.received):
            left_s = ends - time.monotonic()
            assert left_s > 0, f"{len(self.received)} of {self.sent} results in {deadline_s} s"
            self._read(min(0.1, left_s))
        return self.received

    def _read(self, timeout_s: float) -> None:
        if self._follower is None:
            self._follower = self._consumer(self._pipeline.output_topic)
        messages = self._follower.consume(500, timeout_s)
        self.received += [_received(m) for m in messages if m.error() is None]

    def flow_until(self, true: Callable[[], bool], what: str, *, behind: int = 1_000) -> None:
        """Produce so that consumers do not run out of records, until something is true.

        Args:
            behind: Records that have no result yet, about.
        """

        def flowing() -> bool:
            self._read(0.05)
            self.produce(max(0, len(self.received) + behind - self.sent))
            return true()

        wait_until(flowing, what)

    def wait_for_count(self, count: int, *, deadline_s: float = DEADLINE_S) -> list[Received]:
        return self.wait_for(lambda received: len(received) >= count, deadline_s=deadline_s)

    def wait_for_newer(self, moment_s: float, *, deadline_s: float = DEADLINE_S) -> float:
        """Wait for a result that was made after a moment; returns how long after it was read."""
        self.wait_for(
            lambda received: any(r.timestamp_s > moment_s for r in received[-2000:]),
            deadline_s=deadline_s,
        )
        return time.time() - moment_s

    def read_all(
        self, topic: str | None = None, *, committed: bool = True, deadline_s: float = DEADLINE_S
    ) -> list[Received]:
        """Read a topic from its beginning to the end of what is committed, or written, now."""
        consumer = self._consumer(topic or self._pipeline.output_topic, committed=committed)
        open_partitions = {p.partition for p in consumer.assignment()}
        found: list[Received] = []
        ends = time.monotonic() + deadline_s
        while open_partitions:
            assert time.monotonic() < ends, f"partitions {open_partitions} have no end"
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    found.append(_received(message))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    open_partitions.discard(message.partition())
        consumer.close()
        return found

    def dead_letters(self, count: int) -> list[Received]:
        """Wait for ``count`` dead letters, and read that there are no more."""
        found: list[Received] = []

        def have() -> bool:
            found[:] = self.read_all(self._pipeline.dead_letters)
            return len(found) >= count

        wait_until(have, f"{count} dead letters")
        assert len(found) == count
        return found

    def assert_exactly_once(self) -> None:
        """Every record has one result, and those of a key stand in the order of their input."""
        numbers = Counter(r.number for r in self.read_all())
        lost = [n for n in range(self.sent) if n not in numbers]
        doubled = [n for n, times in numbers.items() if times > 1]
        assert not lost, f"{len(lost)} lost, {lost[:5]}"
        assert not doubled, f"{len(doubled)} doubled, {doubled[:5]}"
        assert not (wrong := out_of_order(self.read_all())), f"out of order: {wrong}"

    def grow(self, count: int) -> None:
        """Give the input topic so many partitions, and wait until they can be written to."""
        topic = self._pipeline.input_topics[0]
        admin = AdminClient(self._options)
        admin.create_partitions([NewPartitions(topic, count)])[topic].result(10)

        def known() -> bool:
            found = self._producer.list_topics(topic, timeout=10).topics[topic]
            return len(found.partitions) == count

        wait_until(known, f"{count} partitions")

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()

    def _consumer(self, topic: str, *, committed: bool = True) -> Consumer:
        consumer = Consumer(
            self._options
            | {
                "group.id": f"count-{uuid.uuid4().hex}",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.error.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
            }
        )
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        return consumer


def out_of_order(results: Iterable[Received]) -> dict[bytes | None, list[str]]:
    """Keys of which a later record's result stands before an earlier one's, and where first.

    Returns:
        Number and input record of both, by key.
    """
    newest: dict[bytes | None, Received] = {}
    wrong: dict[bytes | None, list[str]] = {}
    for result in results:
        before = newest.setdefault(result.key, result)
        if result.number < before.number and result.key not in wrong:
            wrong[result.key] = [
                f"{r.number} of {r.header(SOURCE_HEADER)}" for r in (before, result)
            ]
        newest[result.key] = max(before, result, key=lambda r: r.number)
    return wrong


class ConsumerProcess:
    """A worker in a process of its own, to be killed and stopped from outside."""

    def __init__(
        self,
        kafka: KafkaSettings,
        pipeline: PipelineSettings,
        *,
        rank: int = 0,
        delay_s: float = 0,
        dies: tuple[str, int] | None = None,
    ) -> None:
        """Start it.

        Args:
            dies: Where in a commit it ends itself as a crash would, and in which one.
        """
        wanted = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "pipeline": pipeline.model_dump(mode="json"),
            "rank": rank,
            "delay_s": delay_s,
            "dies": dies,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.consumer_process", json.dumps(wanted)],
            cwd=ROOT,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> float:
        """End it as a crash would; returns the moment, in seconds since 1970."""
        self.process.kill()
        self.process.wait(10)
        return time.time()

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for it to end by itself; returns the exit code."""
        return self.process.wait(deadline_s)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, deadline_s: float = DEADLINE_S) -> int:
        """End it in order; returns the exit code."""
        self.process.terminate()
        return self.process.wait(deadline_s)


class Bench:
    """Makes pipelines, workers and ledgers on one broker, and ends them all."""

    def __init__(self, kafka: KafkaSettings, **options: Any) -> None:
        self.kafka = kafka
        self._options = options
        self._workers: list[Worker] = []
        self._processes: list[ConsumerProcess] = []
        self._models: list[FakeModel] = []
        self._ledgers: list[Ledger] = []

    def pipeline(self, *, routed: bool = True, **changes: Any) -> PipelineSettings:
        """A pipeline with topics of its own, and a route unless that is not wanted."""
        tag = uuid.uuid4().hex[:10]
        settings = {
            "name": f"p-{tag}",
            "model": f"m-{tag}",
            "input_topics": (f"in-{tag}",),
            "output_topic": f"out-{tag}",
            "max_batch_records": 50,
            "session_timeout_ms": 6_000,
        }
        pipeline = PipelineSettings.model_validate(settings | changes)
        with Admin(self.kafka) as admin:
            admin.ensure_topics(platform_topics())
            if pipeline.create_topics:
                admin.ensure_topics(pipeline_topics(pipeline))
        if routed:
            self.route(pipeline)
        return pipeline

    def route(
        self,
        pipeline: PipelineSettings,
        weights: Mapping[str, float] = MappingProxyType({"1": 1.0}),
        *,
        epoch: int = 1,
        **roles: Any,
    ) -> None:
        producer = PlainProducer(self.kafka)
        record = ControlRecord(
            model=pipeline.model,
            epoch=epoch,
            versions={version: VersionRoute(weight=share) for version, share in weights.items()},
            **roles,
        )
        publish(producer, record)
        producer.close()

    def ledger(self, pipeline: PipelineSettings, **options: Any) -> Ledger:
        ledger = Ledger(self.kafka.bootstrap_servers, pipeline, **self._options | options)
        self._ledgers.append(ledger)
        return ledger

    def worker(
        self,
        pipeline: PipelineSettings,
        model: ReplicaClient | None = None,
        *,
        rank: int = 0,
        on_hang: Callable[[str], None] | None = None,
    ) -> Worker:
        model = model or FakeModel()
        own = model.versions.values() if isinstance(model, FakeModels) else [model]
        self._models += [one for one in own if isinstance(one, FakeModel)]
        worker = Worker(self.kafka, pipeline, rank=rank, client=model, on_hang=on_hang)
        self._workers.append(worker)
        return worker

    def process(self, pipeline: PipelineSettings, **options: Any) -> ConsumerProcess:
        """Start a consumer in a process of its own; ``options`` are those of the class."""
        process = ConsumerProcess(self.kafka, pipeline, **options)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for model in self._models:
            model.open.set()
            model.slow.set()
        for process in self._processes:
            process.send(signal.SIGCONT)
            process.kill()
        still = [w for w in self._workers if not w.stop(timeout_s=30, leave=False)]
        for ledger in self._ledgers:
            ledger.close()
        for made in (self._workers, self._processes, self._models, self._ledgers):
            made.clear()
        assert not still, "a worker did not stop in 30 s"


def wait_until(true: Callable[[], bool], what: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait for something that has no event to wait on."""
    ends = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < ends, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has: on a busy machine its threads run on for a while."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, f"{pid} stands still")


def answers(worker: Worker) -> int:
    """Answers that the worker has committed."""
    progress = worker.state().progress
    return progress.answers if progress else 0


def _key(number: int) -> bytes:
    return b"%d" % (number % KEYS)


def _received(message: Message) -> Received:
    _, timestamp_ms = message.timestamp()
    headers = list(message.headers() or [])
    return Received(message.key(), message.value(), headers, timestamp_ms / 1000)
