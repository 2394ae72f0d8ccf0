"""Retries, and the search for the record that a model fails on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.contract import Answer, BatchReply, BatchStats, Failure, FailureKind, ReplicaInfo
from stream import isolation as caller_module
from stream.errors import CallFailed, CallLost, ModelUnavailable, SystemFault
from stream.isolation import Caller, Reply
from stream.settings import PipelineSettings

DIGEST = "d" * 64
BASE = {"name": "p", "model": "m", "input_topics": ("in",), "output_topic": "out"}


@pytest.fixture(autouse=True, scope="module")
def no_backoff() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caller_module, "FIRST_BACKOFF_S", 0.001)
        patch.setattr(caller_module, "MAX_BACKOFF_S", 0.002)
        yield


class Client:
    """Does with a call what ``fault`` says: raises it, or answers where it is None."""

    def __init__(self, fault: Callable[[list[bytes]], Exception | None]) -> None:
        self.fault = fault
        self.calls: list[list[bytes]] = []
        self.info_faults: list[Exception] = []
        self.inside = 0

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        self.calls.append(values)
        fault = self.fault(values)
        if fault is not None:
            raise fault
        answers = [Answer(b'"%b"' % value, None, "E", 1.0, 3, False) for value in values]
        return BatchReply(list(answers), BatchStats(3, 3, 1, 0.0, 0.0), DIGEST)

    def info(self, version: str) -> ReplicaInfo:
        if self.info_faults:
            raise self.info_faults.pop()
        return ReplicaInfo("m", version, DIGEST, "text-classification", "echo", "f32", "cpu")


def make(client: Client, **changes: object) -> Caller:
    return Caller(client, PipelineSettings.model_validate(BASE | changes), threading.Event())


def texts(reply: Reply) -> list[bytes | FailureKind]:
    return [o.result[1:-1] if isinstance(o, Answer) else o.kind for o in reply.outcomes]


def failing_on(bad: set[bytes], error: type[Exception]) -> Client:
    return Client(lambda values: error("no") if bad & set(values) else None)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 20),
    bad=st.sets(st.integers(0, 19), max_size=3),
    error=st.sampled_from([CallFailed, CallLost]),
)
def test_only_the_bad_records_fail_and_order_holds(
    count: int, bad: set[int], error: type[Exception]
) -> None:
    values = [b"%d" % i for i in range(count)]
    client = failing_on({b"%d" % i for i in bad}, error)
    reply = make(client, max_attempts=2).answer("1", values)
    assert texts(reply) == [
        FailureKind.POISON if i in bad else value for i, value in enumerate(values)
    ]
    for value, attempt in zip(values, reply.attempts, strict=True):
        assert attempt == sum(value in call for call in client.calls)


def test_a_lost_call_is_tried_again_before_the_batch_is_divided() -> None:
    faults = [CallLost("died"), CallLost("died")]
    client = Client(lambda _: faults.pop() if faults else None)
    reply = make(client, max_attempts=3).answer("1", [b"a", b"b"])
    assert client.calls == [[b"a", b"b"]] * 3
    assert reply.attempts == [3, 3]
    assert reply.retries > 0


def test_a_call_that_nobody_took_counts_for_nothing() -> None:
    faults = [ModelUnavailable("away")] * 3
    reply = make(Client(lambda _: faults.pop() if faults else None)).answer("1", [b"a"])
    assert reply.attempts == [1]
    assert reply.retries == 0


def test_a_model_that_stays_away_is_a_system_fault() -> None:
    caller = make(Client(lambda _: ModelUnavailable("away")), model_deadline_s=0.05)
    with pytest.raises(SystemFault, match=r"m@1 was unavailable for 0\.05 s"):
        caller.answer("1", [b"a"])


def test_stopping_ends_the_wait_for_a_model() -> None:
    stopping = threading.Event()
    client = Client(lambda _: ModelUnavailable("away"))
    caller = Caller(client, PipelineSettings.model_validate(BASE), stopping)
    stopping.set()
    with pytest.raises(ModelUnavailable, match="stopping"):
        caller.answer("1", [b"a"])


def test_a_run_of_poison_is_a_broken_model() -> None:
    caller = make(Client(lambda _: CallFailed("no")), max_poison_run=3)
    with pytest.raises(SystemFault, match="The model is broken"):
        caller.answer("1", [b"%d" % i for i in range(4)])


def test_an_answer_ends_a_run_of_poison() -> None:
    caller = make(failing_on({b"bad"}, CallFailed), max_poison_run=1)
    for _ in range(5):
        assert texts(caller.answer("1", [b"bad"])) == [FailureKind.POISON]
        caller.answer("1", [b"good"])


def test_other_bytes_than_the_route_names_are_not_taken() -> None:
    caller = make(Client(lambda _: None), model_deadline_s=0.05)
    with pytest.raises(SystemFault, match="serves digest"):
        caller.answer("1", [b"a"], "e" * 64)
    assert texts(caller.answer("1", [b"a"], DIGEST)) == [b"a"]


def test_a_replica_that_died_of_the_first_record_is_waited_for() -> None:
    client = failing_on({b"bad"}, CallLost)
    client.info_faults = [ModelUnavailable("its successor is starting")] * 2
    reply = make(client, max_attempts=1).answer("1", [b"bad"])
    assert isinstance(reply.outcomes[0], Failure)
    assert reply.info.model == "m"


def test_isolation_runs_alone() -> None:
    """A replica's death must not be charged to a batch that merely ran beside it."""
    lock, inside, beside = threading.Lock(), [0], [0]

    def fault(values: list[bytes]) -> Exception | None:
        with lock:
            inside[0] += 1
            alone = inside[0] == 1
        time.sleep(0.005)  # long enough for others to come in
        with lock:
            alone = alone and inside[0] == 1
            inside[0] -= 1
        if len(values) < 8 and not alone:  # only isolation calls with fewer
            beside[0] += 1
        return CallFailed("no") if b"bad" in values else None

    caller = make(Client(fault))
    batches = [[b"%d" % i for i in range(7)] + [b"bad" if n % 3 == 0 else b"x"] for n in range(9)]
    with ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda values: caller.answer("1", values), batches))
    assert beside[0] == 0
    assert sum(FailureKind.POISON in texts(reply) for reply in replies) == 3
