"""What a consumer holds in memory does not grow with the backlog."""

from __future__ import annotations

import threading
import time

import psutil
import pytest

from serve.contract import BatchReply
from stream.kafka.source import GroupSource
from stream.pipeline import MAX_HELD_WINDOWS
from stream.records import Record
from tests.integration.harness import Bench, FakeModel, wait_until

pytestmark = pytest.mark.kafka

BACKLOG = 200_000
SAMPLES = 20
SAMPLE_EVERY_S = 0.25
MAX_GROWTH_BYTES = 40e6


def test_a_backlog_is_not_read_into_memory(bench: Bench) -> None:
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    ledger.produce(BACKLOG, text="x" * 180)
    consumer = psutil.Process(bench.process(pipeline, delay_s=0.2).pid)
    ledger.wait_for_count(200)
    start = consumer.memory_info().rss
    most = start
    for _ in range(SAMPLES):
        time.sleep(SAMPLE_EVERY_S)  # the distance of samples, not a wait for anything
        most = max(most, consumer.memory_info().rss)
    assert len(ledger.wait_for_count(300)) < BACKLOG / 2, "there was no backlog any more"
    assert most - start < MAX_GROWTH_BYTES, f"{(most - start) / 1e6:.0f} MB"


def test_no_more_is_read_than_the_next_micro_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, poll_nothing = threading.Event(), GroupSource.poll_nothing

    def noted(source: GroupSource) -> list[Record]:
        paused.set()
        return poll_nothing(source)

    monkeypatch.setattr(GroupSource, "poll_nothing", noted)
    pipeline = bench.pipeline()
    ledger = bench.ledger(pipeline)
    ledger.produce(5_000)
    model = FakeModel()
    model.open.clear()
    worker = bench.worker(pipeline, model)
    assert paused.wait(30), "it reads on and on"
    progress = worker.state().progress
    assert progress is not None
    # A full window, a micro-batch that waits for room in it, and what one poll brings at once.
    assert 0 < progress.waiting <= (pipeline.window + 2) * pipeline.max_batch_records


class OneSlowCall(FakeModel):
    """Its first call takes as long as the test wants; all others answer at once."""

    def __init__(self) -> None:
        super().__init__()
        self.first_may_end = threading.Event()
        self._lock = threading.Lock()
        self._first = True

    def call(self, version: str, values: list[bytes]) -> BatchReply:
        with self._lock:
            first, self._first = self._first, False
        if first:
            assert self.first_may_end.wait(120)
        return super().call(version, values)


@pytest.mark.parametrize(
    ("limits", "window_records"),
    [
        ({"max_batch_records": 20}, 20),
        # Values of 165 bytes and a little more.
        ({"max_batch_records": 20, "max_batch_bytes": 1_000}, 6),
    ],
)
def test_answers_behind_a_slow_call_are_bounded(
    bench: Bench, limits: dict[str, int], window_records: int
) -> None:
    """They cannot be committed before it: without a bound they would pile up until it is back."""
    pipeline = bench.pipeline(partitions=1, **limits)
    ledger = bench.ledger(pipeline)
    ledger.produce(2_000)
    model = OneSlowCall()
    worker = bench.worker(pipeline, model)
    bound = MAX_HELD_WINDOWS * pipeline.window * window_records

    def waiting() -> int:
        progress = worker.state().progress
        return progress.waiting if progress else 0

    wait_until(lambda: waiting() >= bound, "it is full")
    calls = -1
    while calls != len(model.calls):  # until it makes no more calls
        calls = len(model.calls)
        time.sleep(0.5)
    # One poll may go over the bound by what it brings at once.
    assert waiting() <= bound + pipeline.max_batch_records
    model.first_may_end.set()
    ledger.wait_for_count(2_000)
    ledger.assert_exactly_once()
