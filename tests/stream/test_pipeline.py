"""The loop against a log in memory: whatever fails, and in whatever order answers come.

The same with the real Kafka is in ``tests/integration``.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stream.errors import Fenced
from stream.interfaces import Adapters, RecordSource
from stream.isolation import Caller
from stream.outputs import TopicLimits
from stream.pipeline import Pipeline
from stream.schema import SOURCE_HEADER, ControlRecord, VersionRoute
from stream.settings import PipelineSettings
from stream.shadow import ShadowCalls
from tests.stream.fake_kafka import (
    CommitFate,
    FakeLog,
    FakeReplicas,
    FakeSource,
    PlainFake,
    TransactionalFake,
)

DEADLINE_S = 20.0
# Not shrunk: a loop that never ends would be waited for at every step.
LOOP = settings(
    max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
MAX_CONSUMERS = 40
ROUTES = {"m": ControlRecord(model="m", epoch=1, versions={"1": VersionRoute(weight=1.0)})}
KEYS = ("a", "b", "c", "d", "poison", "killer")

fates = st.lists(st.sampled_from(CommitFate), max_size=6)
keys = st.lists(st.sampled_from(KEYS), min_size=1, max_size=24)
revocations = st.lists(st.none() | st.tuples(st.integers(0, 2), st.booleans()), max_size=12)
delays = st.lists(st.sampled_from([0, 0, 1, 3]), max_size=12)
deaths = st.lists(st.booleans(), max_size=6)


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Iterator[None]:
    """No pauses between tries: nothing here gets better by waiting."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("stream.backoff.FIRST_PAUSE_S", 0.0)
        patched.setattr("stream.isolation.FIRST_BACKOFF_S", 0.001)
        yield


def consume(log: FakeLog, replicas: FakeReplicas, delivery: str, moves: Iterator[object]) -> int:
    """Let consumers take their turns, each after the one before was fenced, until all is done.

    Returns:
        How many it took.
    """
    ends = time.monotonic() + DEADLINE_S
    pipeline = PipelineSettings.model_validate(
        {
            "name": "p",
            "model": "m",
            "input_topics": ["input"],
            "output_topic": "output",
            "delivery": delivery,
            "max_batch_records": 3,
            "window": 3,
            "commit_interval_ms": 0,
            "max_attempts": 2,
            "max_poison_run": 1000,
        }
    )
    for count in range(1, MAX_CONSUMERS):
        stopping = threading.Event()

        def source(revoked: object, stopping: threading.Event = stopping) -> FakeSource:
            return FakeSource(log, revoked, revocations=moves, stopping=stopping, ends=ends)  # type: ignore[arg-type]

        def sink(source: RecordSource) -> TransactionalFake | PlainFake:
            if delivery == "exactly-once":
                return TransactionalFake(log)
            assert isinstance(source, FakeSource)
            return PlainFake(log, source)

        adapters = Adapters(
            source=source,  # type: ignore[arg-type]
            sink=sink,
            caller=Caller(replicas, pipeline, stopping),
            shadow=ShadowCalls(replicas, pipeline, stopping, rank=0),
            table=lambda: ROUTES,
            limits=lambda: TopicLimits(1_000_000, 4_000_000),
        )
        try:
            Pipeline(pipeline, adapters, rank=0, stopping=stopping).run()
        except Fenced:
            continue
        return count
    raise AssertionError("no consumer finished")


def places(log: FakeLog, topic: str | None = None) -> list[tuple[int, int]]:
    """Partition and offset of the input of each result and dead letter, in the order of the log."""
    found = []
    for output in log.results:
        headers = dict(output.headers)
        if SOURCE_HEADER in headers and (topic is None or output.topic == topic):
            _, partition, offset = (headers[SOURCE_HEADER] or b"").decode().split("/")
            found.append((int(partition), int(offset)))
    return found


def out_of_order(found: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    by_partition: dict[int, list[int]] = defaultdict(list)
    for partition, offset in found:
        by_partition[partition].append(offset)
    return {p: offsets for p, offsets in by_partition.items() if offsets != sorted(offsets)}


def expected(log: FakeLog) -> Counter[tuple[int, int]]:
    return Counter(
        (record.partition, record.offset) for records in log.input.values() for record in records
    )


@settings(LOOP)
@given(keys=keys, fates=fates, moves=revocations, delays=delays, deaths=deaths)
def test_every_record_once_and_in_order(
    keys: list[str],
    fates: list[CommitFate],
    moves: list[tuple[int, bool] | None],
    delays: list[int],
    deaths: list[bool],
) -> None:
    log = FakeLog(3, keys, fates=iter(fates))
    consume(log, FakeReplicas(iter(delays), iter(deaths)), "exactly-once", iter(moves))
    assert Counter(places(log)) == expected(log)
    for topic in ("output", "output.dead-letters"):
        assert out_of_order(places(log, topic)) == {}


@settings(LOOP)
@given(keys=keys, fates=fates, moves=revocations, delays=delays, deaths=deaths)
def test_every_record_at_least_once_and_first_in_order(
    keys: list[str],
    fates: list[CommitFate],
    moves: list[tuple[int, bool] | None],
    delays: list[int],
    deaths: list[bool],
) -> None:
    log = FakeLog(3, keys, fates=iter(fates))
    consume(log, FakeReplicas(iter(delays), iter(deaths)), "at-least-once", iter(moves))
    assert set(places(log)) == set(expected(log))
    for topic in ("output", "output.dead-letters"):
        assert out_of_order(list(dict.fromkeys(places(log, topic)))) == {}


def test_the_record_that_kills_replicas_is_the_dead_letter_and_no_other() -> None:
    keys = [*"abcabc", "killer", *"abcabc", "poison", *"abc"]
    random.Random(0).shuffle(keys)
    log = FakeLog(3, keys, fates=iter(()))
    assert consume(log, FakeReplicas(iter(()), iter(())), "exactly-once", iter(())) == 1
    dead = [output.key for output in log.results if output.topic == "output.dead-letters"]
    assert Counter(dead) == {b"killer": 1, b"poison": 1}


def test_a_fenced_consumer_commits_nothing_more() -> None:
    log = FakeLog(3, list("abcabc"), fates=iter([CommitFate.FENCED, CommitFate.FENCED]))
    assert consume(log, FakeReplicas(iter(()), iter(())), "exactly-once", iter(())) == 3
    assert Counter(places(log)) == expected(log)
