"""What `status` says of a pipeline that does not go on."""

from __future__ import annotations

from typing import Any

from ops.platform.status import _trouble
from stream.schema import ConsumerRecord

NOW_MS = 10_000_000


def told(rank: int, ago_s: float, **changes: Any) -> ConsumerRecord:
    given = {
        "pipeline": "p",
        "consumer": rank,
        "model": "m",
        "pid": 1,
        "at_ms": NOW_MS - int(ago_s * 1000),
        "epoch": 1,
        "versions": (),
        "waiting": 0,
        "committed_ago_s": None,
        "trouble": None,
        "ended": False,
    }
    return ConsumerRecord.model_validate(given | changes)


def test_a_consumer_tells_of_itself() -> None:
    stuck = [told(0, 2), told(1, 2, trouble="no route")]
    assert _trouble(stuck, stands=False, now_ms=NOW_MS) == "no route"


def test_the_last_words_of_a_dead_consumer_count_where_nothing_comes_out() -> None:
    dead = [told(0, 900, trouble="Fenced: a successor", ended=True)]
    assert _trouble(dead, stands=True, now_ms=NOW_MS) == "Fenced: a successor"
    assert _trouble(dead, stands=False, now_ms=NOW_MS) is None


def test_an_error_that_is_past_counts_where_nothing_comes_out() -> None:
    past = [
        told(0, 2, last_error="old", last_error_ms=NOW_MS - 5_000),
        told(1, 2, last_error="new", last_error_ms=NOW_MS - 4_000),
    ]
    assert _trouble(past, stands=True, now_ms=NOW_MS) == "new"
    assert _trouble(past, stands=False, now_ms=NOW_MS) is None
    assert _trouble([*past, told(2, 2, trouble="now")], stands=True, now_ms=NOW_MS) == "now"
