"""Offsets never pass a record that is not done, and results leave in the order of their input."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from stream.offsets import OffsetTracker, Slot
from stream.records import Deleted, Output, Partition
from tests.stream.records import PlainRecord

OUTPUT = Output("out", None, b"v", [])


def add(tracker: OffsetTracker, partition: int, offset: int) -> Slot:
    return tracker.add(PlainRecord(partition=partition, offset=offset, value=b"12345"), "1")


@given(
    partitions=st.lists(st.integers(0, 3), max_size=60),
    data=st.data(),
)
def test_only_the_longest_done_prefix_is_taken(partitions: list[int], data: st.DataObject) -> None:
    tracker = OffsetTracker()
    slots = [add(tracker, partition, offset) for offset, partition in enumerate(partitions)]
    done_order = data.draw(st.permutations(range(len(slots))))
    taken: dict[int, list[int]] = defaultdict(list)
    for index in done_order:
        slots[index].outputs = (OUTPUT,)
        if not data.draw(st.booleans()):
            continue
        prefix = tracker.take()
        for slot in prefix.slots:
            assert slot.outputs
            taken[slot.record.partition].append(slot.record.offset)
        for partition, offset in prefix.offsets.items():
            before = [s for s in slots if s.record.partition == partition.partition]
            assert all(s.outputs for s in before if s.record.offset < offset)
            waiting = [s.record.offset for s in before if not s.outputs]
            done = [s.record.offset for s in before if s.record.offset < min(waiting, default=99)]
            assert offset == done[-1] + 1
    for slot in tracker.take().slots:
        taken[slot.record.partition].append(slot.record.offset)
    for partition in set(partitions):
        expected = [offset for offset, p in enumerate(partitions) if p == partition]
        assert taken[partition] == expected
    assert len(tracker) == tracker.value_bytes == 0


def test_a_gap_holds_back_what_is_behind_it() -> None:
    tracker = OffsetTracker()
    first, second = add(tracker, 0, 7), add(tracker, 0, 9)
    second.outputs = (OUTPUT,)
    assert not tracker.has_prefix()
    assert tracker.take().offsets == {}
    first.outputs = (OUTPUT,)
    assert tracker.take().offsets == {Partition("in", 0): 10}


def test_forgetting_drops_a_partition_and_no_other() -> None:
    tracker = OffsetTracker()
    gone, kept = add(tracker, 0, 3), add(tracker, 1, 5)
    tracker.forget([Partition("in", 0), Partition("in", 2)])
    gone.outputs = kept.outputs = (OUTPUT,)
    assert tracker.value_bytes == 5
    assert tracker.take().slots == [kept]


def test_rewinding_drops_everything() -> None:
    tracker = OffsetTracker()
    add(tracker, 0, 3).outputs = (OUTPUT,)
    add(tracker, 0, 4)
    tracker.take()
    tracker.pass_over(Deleted(Partition("in", 1), 0, 5))
    tracker.rewind()
    assert len(tracker) == tracker.value_bytes == 0
    assert not tracker.has_prefix()
    assert tracker.take() == ([], {}, [])


def test_deleted_records_are_committed_with_what_follows() -> None:
    tracker = OffsetTracker()
    gone = [Deleted(Partition("in", n), 2, 7) for n in range(3)]
    for one in gone:
        tracker.pass_over(one)
    add(tracker, 0, 7).outputs = (OUTPUT,)
    add(tracker, 1, 7)
    tracker.forget([Partition("in", 2)])
    assert tracker.has_prefix()
    _, offsets, deleted = tracker.take()
    assert deleted == gone[:2]
    assert offsets == {Partition("in", 0): 8, Partition("in", 1): 7}
    assert not tracker.has_prefix()


def test_open_slots_are_those_not_done() -> None:
    tracker = OffsetTracker()
    slots = [add(tracker, partition, 0) for partition in range(3)]
    slots[0].outputs = (OUTPUT,)
    assert list(tracker.open_slots()) == slots[1:]
    assert list(tracker.open_slots([Partition("in", 2)])) == slots[2:]
