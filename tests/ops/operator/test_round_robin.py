from __future__ import annotations

from ops.operator.round_robin import RoundRobin


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def round_of(turns: RoundRobin, clock: Clock, names: str, *, each_s: float) -> str:
    taken = ""
    for name in turns.run_in_turn([*names]):
        taken += name
        clock.now_s += each_s
    return taken


def test_all_have_their_turn_where_there_is_time() -> None:
    clock = Clock()
    turns = RoundRobin(1.0, clock)
    assert round_of(turns, clock, "abc", each_s=0.3) == "abc"
    assert not turns.has_left_some
    assert round_of(turns, clock, "", each_s=0.3) == ""


def test_those_that_were_left_out_come_first_in_the_next_round() -> None:
    clock = Clock()
    turns = RoundRobin(1.0, clock)
    assert round_of(turns, clock, "abcde", each_s=0.6) == "ab"
    assert turns.has_left_some
    assert round_of(turns, clock, "abcde", each_s=0.6) == "cd"
    # What has ended meanwhile is nobody's turn; what has begun comes last.
    assert round_of(turns, clock, "abef", each_s=0.3) == "eabf"
    assert not turns.has_left_some


def test_one_at_least_has_its_turn() -> None:
    clock = Clock()
    turns = RoundRobin(0.0, clock)
    assert [round_of(turns, clock, "abc", each_s=9.0) for _ in range(4)] == ["a", "b", "c", "a"]


def test_a_turn_that_failed_is_not_taken_for_had() -> None:
    clock = Clock()
    turns = RoundRobin(1.0, clock)
    for _ in turns.run_in_turn(["a", "b"]):
        break
    assert turns.has_left_some
    assert round_of(turns, clock, "ab", each_s=0.1) == "ab"
