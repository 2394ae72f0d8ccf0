"""The window of calls: how long reading pauses beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stream.isolation import Reply
from stream.offsets import OffsetTracker
from stream.window import MAX_PAUSE_S, MIN_PAUSE_S, Calls
from tests.stream.records import PlainRecord


class AtOnce:
    """Answers without any replica."""

    def answer(self, *_: object) -> Reply:
        return Reply([], [], [], None, 0)  # type: ignore[arg-type]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> Iterator[Calls]:
    made = Calls(AtOnce(), window=2, clock=clock)  # type: ignore[arg-type]
    yield made
    made.close()


@pytest.mark.parametrize(
    ("took_s", "pause_s"),
    [(0.008, MIN_PAUSE_S), (0.2, 0.025), (60.0, MAX_PAUSE_S)],
)
def test_reading_pauses_for_a_share_of_what_the_last_call_took(
    calls: Calls, clock: Clock, took_s: float, pause_s: float
) -> None:
    assert calls.pause_s == MIN_PAUSE_S
    calls.send([OffsetTracker().add(PlainRecord(), "1")], None)
    calls.wait(10)
    clock.now_s = took_s
    assert len(calls.take_done()) == 1
    assert calls.pause_s == pytest.approx(pause_s)
    assert calls.take_done() == []
    assert calls.pause_s == pytest.approx(pause_s)
