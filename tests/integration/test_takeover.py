"""What a consumer leaves behind when it dies in a commit or loses a partition is settled once."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from stream.kafka.admin import Admin
from stream.kafka.source import GroupSource
from stream.pipeline import FULL_POLL_S, LoopProgress
from stream.worker import Worker
from tests.integration.harness import (
    DYING_PLACES,
    Bench,
    FakeModel,
    answers,
    leaves_sockets,
    wait_until,
)

pytestmark = [pytest.mark.kafka, leaves_sockets]


def progress(worker: Worker) -> LoopProgress:
    found = worker.state().progress
    assert found is not None
    return found


def waiting(worker: Worker) -> int:
    return progress(worker).waiting if worker.state().progress else 0


@pytest.mark.parametrize("place", DYING_PLACES)
def test_kill_9_inside_the_commit(bench: Bench, place: str) -> None:
    # Only the successor can end what the dead left open: the broker waits longer than the test.
    pipeline = bench.pipeline(commit_interval_ms=20, transaction_timeout_ms=300_000)
    ledger = bench.ledger(pipeline)
    ledger.produce(2_000)
    for turn in (2, 4):
        died = bench.process(pipeline, delay_s=0.02, dies=(place, turn))
        assert died.wait() == -signal.SIGKILL
    successor = bench.worker(pipeline, FakeModel())
    ledger.wait_for_count(2_000)
    assert successor.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()
    # What the dead had sent is on the broker: it is the transaction that hides it.
    abandoned = len(ledger.read_all(committed=False)) - 2_000
    assert (abandoned > 0) == (place != "committed and nobody told")


def test_answers_that_come_after_their_partition_has_gone_are_dropped(bench: Bench) -> None:
    """The broker would take them: it knows the old owner as a member, not of which partition."""
    pipeline = bench.pipeline(partitions=2)
    ledger = bench.ledger(pipeline)
    for partition in (0, 1):
        ledger.produce(50, partition=partition)
    model = FakeModel()
    model.open.clear()
    old = bench.worker(pipeline, model)
    wait_until(lambda: waiting(old) == 100 and progress(old).in_flight > 0, "all is read")
    new = bench.worker(pipeline, rank=1)
    wait_until(lambda: answers(new) == 50, "the new owner has answered its partition")
    assert waiting(old) == 50
    model.open.set()
    wait_until(lambda: answers(old) >= 50 and progress(old).in_flight == 0, "the old is done")
    for worker in (old, new):
        assert worker.stop(timeout_s=20, leave=True)
    assert (answers(old), answers(new)) == (50, 50)
    ledger.assert_exactly_once()


def test_what_was_read_before_the_session_expired_is_read_again_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="stream.kafka.source")
    pipeline = bench.pipeline(
        partitions=1, max_batch_records=20, window=8, commit_interval_ms=60_000
    )
    ledger = bench.ledger(pipeline)
    ledger.produce(20)
    ledger.produce(20, text="slow")
    model = FakeModel()
    model.open.clear()
    model.slow.clear()
    worker = bench.worker(pipeline, model)
    wait_until(lambda: waiting(worker) == 40 and progress(worker).in_flight == 2, "both are called")
    model.open.set()
    wait_until(lambda: progress(worker).in_flight == 1, "one is answered, and not committed yet")
    with Admin(bench.kafka) as admin:
        assert admin.remove_static_member(pipeline.name, f"{pipeline.name}-0")
    wait_until(lambda: sum(map(len, model.calls)) == 80, "it has joined and read all again")
    assert f"lost: {pipeline.input_topics[0]}/0" in caplog.messages
    model.slow.set()
    ledger.wait_for_count(40)
    assert worker.stop(timeout_s=20, leave=True)
    ledger.assert_exactly_once()
    assert progress(worker).waiting == 0
    # A partition that is lost is another's already: no attempt to commit it.
    assert progress(worker).failed_commits == 0


def test_a_rebalance_beside_a_full_window_needs_no_extra_rounds(bench: Bench) -> None:
    """The client throws away a join that completes between two polls, and begins anew."""
    pipeline = bench.pipeline(partitions=2)
    old = GroupSource(bench.kafka, pipeline, rank=0, revoked=lambda gone, lost: None)
    wait_until(lambda: not old.poll(100) and len(old.assignment()) == 2, "the first owns all")
    generation = old.group_metadata().generation_id
    owns = threading.Event()

    def join() -> None:
        new = GroupSource(bench.kafka, pipeline, rank=1, revoked=lambda gone, lost: None)
        wait_until(lambda: not new.poll(100) and bool(new.assignment()), "the second owns one")
        owns.set()
        new.close()

    joining = threading.Thread(target=join)
    joining.start()
    ends = time.monotonic() + 30
    while not owns.wait(FULL_POLL_S):  # between polls, as the loop does
        assert time.monotonic() < ends, "the second owns nothing"
        old.poll_nothing()
    joining.join(30)
    # One round takes the partition from the first, one gives it to the second; one to spare.
    assert old.group_metadata().generation_id - generation <= 3
    old.close()
