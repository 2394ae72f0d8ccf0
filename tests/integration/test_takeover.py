"""What a consumer leaves behind when it dies in a commit or loses a partition is settled once."""

from __future__ import annotations

import signal

import pytest

from stream.pipeline import Progress
from stream.worker import Worker
from tests.integration.harness import (
    DYING_PLACES,
    Bench,
    FakeModel,
    leaves_sockets,
)

pytestmark = [pytest.mark.kafka, leaves_sockets]


def progress(worker: Worker) -> Progress:
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
