from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.telemetry import observations
from ops.telemetry.observations import LATE_MS, MAX_WINDOWS, Observations, ReadPosition
from stream.telemetry import merge
from tests.ops.telemetry.reports import (
    BAD,
    BEGAN,
    GOOD,
    comparison,
    heartbeat,
    told,
    window,
)

DEADLINE_S = 30.0


def test_windows_that_began_before_are_left_out() -> None:
    before = window(start=BEGAN - 1, end=BEGAN + 4999)
    first, second = window(start=BEGAN), window(start=BEGAN + 5000)
    seen = told(before, first, second)
    assert seen.windows("sentiment", since_ms=BEGAN) == [first, second]
    assert seen.windows("sentiment", since_ms=BEGAN + 1) == [second]
    assert seen.windows("sentiment", since_ms=BEGAN + 5001) == []


def test_comparisons_that_began_before_are_left_out() -> None:
    before, after = comparison(start=BEGAN - 1), comparison(start=BEGAN)
    seen = told(before, after)
    assert seen.comparisons("sentiment", since_ms=BEGAN) == [after]
    assert seen.windows("sentiment", since_ms=BEGAN) == []


def test_models_are_kept_apart_and_a_window_of_none_is_nobodys() -> None:
    mine, other = window(), window(model="topics")
    nobodys = merge([mine, other])
    seen = told(mine, other, nobodys)
    assert seen.windows("sentiment", since_ms=0) == [mine]
    assert seen.windows("topics", since_ms=0) == [other]
    assert seen.windows("unknown", since_ms=0) == []
    assert seen.comparisons("unknown", since_ms=0) == []


def test_window_that_is_told_late_hides_none_that_was_told_before() -> None:
    slow = [window(start=start, consumer=1) for start in (BEGAN - LATE_MS, BEGAN - 6000)]
    found = [window(start=BEGAN + n * 5000) for n in range(3)]
    seen = told(window(start=BEGAN - 5000), found[0], slow[0], found[1], slow[1], found[2])
    assert seen.windows("sentiment", since_ms=BEGAN) == found


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30), st.integers(0, 90))
def test_windows_of_overlapping_consumers_are_all_found(
    spans: list[tuple[int, int]], since_s: int
) -> None:
    """Told in the order in which they ended."""
    spans = sorted(spans, key=lambda span: span[0] + span[1])
    windows = [
        window(start=1000 * start, end=1000 * (start + lasts), consumer=number)
        for number, (start, lasts) in enumerate(spans)
    ]
    found = told(*windows).windows("sentiment", since_ms=1000 * since_s)
    assert found == [window for window in windows if window.start_ms >= 1000 * since_s]


def test_memory_is_bounded_for_each_model() -> None:
    oldest, usual, other = window(start=1), window(), window(model="topics")
    compared = comparison()
    seen = told(oldest, other, comparison(start=1), *[usual, compared] * (MAX_WINDOWS - 1))
    assert seen.windows("sentiment", since_ms=0)[0] is oldest
    seen.add([usual, compared])
    found = seen.windows("sentiment", since_ms=0)
    assert (len(found), found[0]) == (MAX_WINDOWS, usual)
    assert len(seen.comparisons("sentiment", since_ms=0)) == MAX_WINDOWS
    assert seen.comparisons("sentiment", since_ms=0)[0] is compared
    assert seen.windows("topics", since_ms=0) == [other]


def test_consumers_are_known_by_what_they_told_last() -> None:
    seen = told(heartbeat(1), heartbeat(3, consumer=1), heartbeat(5, pipeline="tickets"))
    seen.add([heartbeat(4)])
    assert seen.consumers(since_ms=4) == [heartbeat(4), heartbeat(5, pipeline="tickets")]
    assert len(seen.consumers(since_ms=0)) == 3


def test_reading_beside_a_writer_sees_whole_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MAX_WINDOWS", 100)
    seen, usual, done = Observations(), window(), threading.Event()

    def write() -> None:
        for _ in range(20_000):
            seen.add([usual])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert len(seen.windows("sentiment", since_ms=0)) <= 100
    finally:
        writer.join(DEADLINE_S)
    assert not writer.is_alive()


def test_news_go_on_from_where_somebody_looked() -> None:
    told, seen = Observations(), ReadPosition()
    for start in range(3):
        told.add([window(start=BEGAN + start), comparison([GOOD], [GOOD], start=BEGAN + start)])
        windows, comparisons, seen = told.news("sentiment", seen)
        assert [record.start_ms for record in windows] == [BEGAN + start]
        assert [record.start_ms for record in comparisons] == [BEGAN + start]
        assert told.news("sentiment", seen) == ([], [], seen)
    windows, comparisons, everything = told.news("sentiment", ReadPosition())
    assert (len(windows), len(comparisons), everything) == (3, 3, seen)
    assert told.news("unknown", ReadPosition()) == ([], [], ReadPosition())


def test_answers_are_counted_from_a_moment_on() -> None:
    told = Observations(counted_from_ms=BEGAN)
    told.add([window(start=BEGAN - 6000, end=BEGAN - 1, answers=[GOOD])])
    told.add([window(start=BEGAN - 6000, end=BEGAN, answers=[GOOD, BAD])])
    assert (told.answers("sentiment", "3"), told.answers("sentiment", "2")) == (2, 0)
