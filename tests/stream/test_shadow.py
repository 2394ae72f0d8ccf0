from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from serve.contract import Answer, BatchReply, BatchStats, ReplicaInfo
from stream import shadow as shadow_module
from stream.errors import ModelUnavailable
from stream.isolation import Reply
from stream.schema import ComparisonRecord
from stream.settings import PipelineSettings
from stream.shadow import MAX_PENDING, Order, ShadowCalls
from stream.telemetry import quantile
from tests.stream.records import PlainRecord

DEADLINE_S = 20.0
DIGEST = "d" * 64
SETTINGS = PipelineSettings(name="p", model="m", input_topics=("in",), output_topic="out")
ORDER = Order("1", "2", DIGEST)
RECORDS = [PlainRecord(offset=0), PlainRecord(offset=1)]
INFO = ReplicaInfo("m", "1", DIGEST, "text-classification", "echo", "f32", "cpu")


def answer(label: str) -> Answer:
    return Answer(b"[]", None, label, 1.0, 3, False)


def reply(label: str, *, compute_s: float, seconds: float = 9.0, calls: int = 1) -> Reply:
    stats = [BatchStats(3, 3, 1, seconds, compute_s)] * calls
    return Reply([answer(label)] * 2, [1, 1], stats, INFO, retries=0)


class Candidate:
    """Answers B when it is let, and computes for 40 ms as it says."""

    def __init__(self) -> None:
        self.asked, self.goes_on = threading.Semaphore(0), threading.Event()
        self.fault: Exception | None = None

    def call(self, _version: str, values: list[bytes]) -> BatchReply:
        self.asked.release()
        assert self.goes_on.wait(DEADLINE_S)
        if self.fault is not None:
            raise self.fault
        stats = BatchStats(3, 3, 1, 5.0, 0.040)
        return BatchReply([answer("B") for _ in values], stats, DIGEST)

    def info(self, version: str) -> ReplicaInfo:
        return INFO._replace(version=version)


@pytest.fixture(autouse=True)
def old_and_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "YOUNG_ANSWERS", 0)
    monkeypatch.setattr(shadow_module, "MAX_LATE_S", DEADLINE_S)


@pytest.fixture
def candidate() -> Candidate:
    return Candidate()


@pytest.fixture
def shadow(candidate: Candidate) -> Iterator[ShadowCalls]:
    made = ShadowCalls(candidate, SETTINGS, threading.Event(), rank=0, chance=random.Random(1))
    yield made
    candidate.goes_on.set()
    made.close()


def told(shadow: ShadowCalls, wanted: Callable[[ComparisonRecord], bool]) -> ComparisonRecord:
    """The first window that is as wanted; those before it must be empty."""
    ends = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends:
        for output in shadow.take(0, 1):
            found = ComparisonRecord.model_validate_json(output.value or b"")
            if wanted(found):
                return found
            assert not found.compared, found
        time.sleep(0.005)
    raise AssertionError("it was not compared in time")


def compared(found: ComparisonRecord) -> bool:
    return found.compared == 2


def test_candidate_is_asked_before_the_live_version_has_answered(
    shadow: ShadowCalls, candidate: Candidate
) -> None:
    mirrored = shadow.mirror(ORDER, RECORDS, 1.0)
    assert mirrored is not None
    assert candidate.asked.acquire(timeout=DEADLINE_S)
    shadow.compare(mirrored, reply("A", compute_s=0.020))
    assert shadow.take(0, 1) == []
    candidate.goes_on.set()
    found = told(shadow, compared)
    assert found.matrix == {"A": {"B": 2}}
    assert (found.live, found.candidate) == ("1", "2")


def test_what_is_timed_is_the_computing(shadow: ShadowCalls, candidate: Candidate) -> None:
    candidate.goes_on.set()
    mirrored = shadow.mirror(ORDER, RECORDS, 1.0)
    assert mirrored is not None
    shadow.compare(mirrored, reply("A", compute_s=0.020))
    found = told(shadow, compared)
    live, ours = (quantile(calls, 0.5) for calls in (found.live_calls, found.candidate_calls))
    assert (live, ours) == (pytest.approx(20, rel=0.1), pytest.approx(40, rel=0.1))


def test_candidate_that_was_asked_later_than_the_live_version_is_not_timed(
    shadow: ShadowCalls, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "MAX_LATE_S", -1.0)
    candidate.goes_on.set()
    mirrored = shadow.mirror(ORDER, RECORDS, 1.0)
    assert mirrored is not None
    shadow.compare(mirrored, reply("A", compute_s=0.020))
    found = told(shadow, compared)
    assert found.live_calls == found.candidate_calls == {}


def test_micro_batch_of_several_calls_is_not_timed(
    shadow: ShadowCalls, candidate: Candidate
) -> None:
    candidate.goes_on.set()
    mirrored = shadow.mirror(ORDER, RECORDS, 1.0)
    assert mirrored is not None
    shadow.compare(mirrored, reply("A", compute_s=0.020, calls=2))
    assert told(shadow, compared).live_calls == {}


def test_first_answers_of_a_replica_are_not_timed(
    shadow: ShadowCalls, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "YOUNG_ANSWERS", 2)
    candidate.goes_on.set()
    timed = []
    # While it bakes the two change places, and neither is young any more.
    for order in (ORDER, ORDER, ORDER, Order("2", "1", None)):
        mirrored = shadow.mirror(order, RECORDS, 1.0)
        assert mirrored is not None
        shadow.compare(mirrored, reply("A", compute_s=0.020))
        timed.append(sum(told(shadow, compared).live_calls.values()))
    assert timed == [0, 0, 1, 1]


def test_what_does_not_fit_into_the_queue_is_skipped(shadow: ShadowCalls) -> None:
    taken = [shadow.mirror(ORDER, RECORDS, 1.0) for _ in range(MAX_PENDING + 1)]
    assert [one is None for one in taken] == [False] * MAX_PENDING + [True]
    (output,) = shadow.take(0, 1)
    assert ComparisonRecord.model_validate_json(output.value or b"").skipped == 2


def test_candidate_that_is_away_has_failed_on_every_record(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "CANDIDATE_DEADLINE_S", 0.01)
    candidate.fault = ModelUnavailable("no replica")
    candidate.goes_on.set()
    shadow = ShadowCalls(candidate, SETTINGS, threading.Event(), rank=0)
    mirrored = shadow.mirror(ORDER, RECORDS, 1.0)
    assert mirrored is not None
    shadow.compare(mirrored, reply("A", compute_s=0.020))
    found = told(shadow, compared)
    assert (found.failed, found.agreed, found.live_calls) == (2, 0, {})
    shadow.close()


def test_share_of_none_asks_nobody(shadow: ShadowCalls) -> None:
    assert shadow.mirror(ORDER, RECORDS, 0.0) is None
    assert shadow.take(0, 1) == []
