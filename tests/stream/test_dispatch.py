"""Micro-batches: no record lost, order kept, limits held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.dispatch import Queues
from stream.offsets import Slot
from tests.stream.records import PlainRecord

MAX_RECORDS, MAX_BYTES = 5, 100


def slot(offset: int, size: int = 1, version: str = "1") -> Slot:
    return Slot(PlainRecord(offset=offset, value=b"x" * size), version)


def queues(*slots: Slot) -> Queues:
    made = Queues(max_records=MAX_RECORDS, max_bytes=MAX_BYTES)
    for one in slots:
        made.put(one)
    return made


def size(batch: list[Slot]) -> int:
    return sum(len(one.record.value or b"") for one in batch)


@given(st.lists(st.tuples(st.integers(0, 150), st.sampled_from(["1", "2"])), max_size=60))
def test_every_record_leaves_once_in_order_and_within_the_limits(
    wanted: list[tuple[int, str]],
) -> None:
    slots = [slot(i, length, version) for i, (length, version) in enumerate(wanted)]
    waiting = queues(*slots)
    seen: dict[str, list[Slot]] = {"1": [], "2": []}
    while batch := waiting.cut(partial=True):
        assert len({one.version for one in batch}) == 1
        assert len(batch) <= MAX_RECORDS
        assert size(batch) <= MAX_BYTES or len(batch) == 1
        seen[batch[0].version] += batch
    for version, found in seen.items():
        assert found == [one for one in slots if one.version == version]
    assert len(waiting) == 0
    assert not waiting.is_full()


def test_a_batch_that_is_not_full_waits_unless_told() -> None:
    waiting = queues(slot(0), slot(1))
    assert waiting.cut(partial=False) == []
    assert len(waiting.cut(partial=True)) == 2


def test_versions_take_turns() -> None:
    """The few records of a canary are not kept behind ever new ones of the live version."""
    waiting = queues(*(slot(i) for i in range(20)), slot(20, version="2"))
    first, second = waiting.cut(partial=True), waiting.cut(partial=True)
    assert [one.version for one in first + second] == ["1"] * MAX_RECORDS + ["2"]
    assert waiting.versions() == {"1"}


def test_full_by_records_or_by_bytes() -> None:
    assert queues(*map(slot, range(MAX_RECORDS))).is_full()
    assert queues(slot(0, MAX_BYTES)).is_full()
    assert not queues(*map(slot, range(MAX_RECORDS - 1))).is_full()


def test_dropping_gives_room_back() -> None:
    waiting = queues(slot(0, MAX_BYTES), slot(1))
    waiting.drop(lambda one: one.record.offset == 0)
    assert not waiting.is_full()
    assert [one.record.offset for one in waiting.cut(partial=True)] == [1]
