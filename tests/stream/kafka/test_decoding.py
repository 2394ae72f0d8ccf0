"""What is read of batches that are not as they were written."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from stream.kafka import decoding
from stream.kafka.decoding import HeaderName
from stream.records import Damaged

GZIP = DefaultRecordBatch.CODEC_GZIP
CRC_AT = DefaultRecordBatch.CRC_OFFSET
COUNT_AT = DefaultRecordBatch.HEADER_STRUCT.size - 4
ATTRIBUTES_AT = DefaultRecordBatch.ATTRIBUTES_OFFSET
NAME = HeaderName(b"\xff\xfe".decode("utf-8", "surrogateescape"))

Damage = Callable[[bytearray], None]


def batch(base: int, count: int, *, codec: int = 0, headers: list[Any] | None = None) -> bytearray:
    """Records ``v<offset>`` with the key ``k``, as a producer and then the broker write them."""
    # What does not become smaller is left as it is.
    filler = [("filler", b"x" * 500)] if codec else []
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 1 << 20)
    for number in range(count):
        value = b"v%d" % (base + number)
        assert builder.append(number, 1_000 + number, b"k", value, [*(headers or []), *filler])
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    return made


def read(*batches: bytearray, start: int = 0) -> list[Any]:
    content = b"".join(map(bytes, batches))
    records = decoding._PartitionRecords(
        start,
        TopicPartition("t", 0),
        MemoryRecords(content),
        isolation_level=IsolationLevel.READ_COMMITTED,
    )
    found = []
    while records:
        found += records.take(3)
    assert records.next_fetch_offset == found[-1].offset + 1
    return found


def flip(at: int) -> Damage:
    def damage(content: bytearray) -> None:
        content[at] ^= 0x55

    return damage


def put(shape: str, at: int, number: int) -> Damage:
    return lambda content: struct.pack_into(shape, content, at, number)


def test_a_sound_batch_is_read_as_the_client_does() -> None:
    found = read(batch(0, 5), batch(5, 2, codec=GZIP))
    assert [record.value for record in found] == [b"v%d" % n for n in range(7)]
    assert not any(isinstance(record.headers, Damaged) for record in found)


@pytest.mark.parametrize("codec", [0, GZIP])
def test_a_header_name_that_is_no_utf8_goes_on_as_it_came(codec: int) -> None:
    headers = [("good", b"1"), (NAME, b"2"), ("null", None)]
    found = read(batch(0, 2, codec=codec, headers=headers), batch(2, 1))
    assert [name.encode() for name, _ in found[1].headers[:3]] == [
        b"good",
        b"\xff\xfe",
        b"null",
    ]
    assert [value for _, value in found[1].headers[:3]] == [b"1", b"2", None]
    assert read(batch(0, 1, headers=found[1].headers))[0].headers == found[1].headers
    assert [record.value for record in found] == [b"v0", b"v1", b"v2"]
    assert not isinstance(found[1].headers, Damaged)


def test_records_of_a_changed_batch_are_read_and_marked() -> None:
    """The records can be told apart: only what one holds may have changed."""
    changed = batch(2, 3)
    flip(changed.index(b"v3") + 1)(changed)
    found = read(batch(0, 2), changed, batch(5, 1))
    assert [record.offset for record in found] == list(range(6))
    assert [isinstance(r.headers, Damaged) for r in found] == [False] * 2 + [True] * 3 + [False]
    assert (found[2].key, found[2].value) == (b"k", b"v2")
    assert "checksum" in found[3].headers.fault


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip(COUNT_AT + 4), id="length of the first record"),
        pytest.param(put(">i", COUNT_AT, 1), id="fewer records"),
        pytest.param(put(">i", COUNT_AT, 1 << 30), id="more records"),
        pytest.param(put(">i", ATTRIBUTES_AT + 2, 1 << 30), id="a last offset far away"),
        pytest.param(put(">i", ATTRIBUTES_AT + 2, -7), id="a last offset in front"),
        pytest.param(put(">h", ATTRIBUTES_AT, GZIP), id="compressed by its header"),
        pytest.param(put(">h", ATTRIBUTES_AT, 7), id="a codec that there is not"),
        pytest.param(put(">h", ATTRIBUTES_AT, 0x20), id="markers of transactions"),
        pytest.param(put(">b", CRC_AT - 1, 9), id="a format that there is not"),
        pytest.param(lambda content: content.__setitem__(slice(60, None), b"\xff" * 60), id="end"),
    ],
)
def test_every_offset_of_a_damaged_batch_has_a_record(damage: Damage) -> None:
    changed = batch(2, 3)
    length = len(changed)
    damage(changed)
    del changed[length:]
    found = read(batch(0, 2), changed, batch(5, 2))
    assert {record.offset for record in found} >= {0, 1, 2, 5, 6}
    assert [record.offset for record in found] == sorted({record.offset for record in found})
    damaged = [record for record in found if isinstance(record.headers, Damaged)]
    assert {record.offset for record in damaged} <= {2, 3, 4}
    assert all(record.value in (b"v%d" % record.offset, bytes(changed), None) for record in damaged)
    assert [r.value for r in found if r not in damaged] == [b"v0", b"v1", b"v5", b"v6"]


def test_the_first_record_that_is_lost_has_the_bytes_of_the_batch() -> None:
    changed = batch(0, 3, codec=GZIP)
    flip(len(changed) - 12)(changed)
    first, second, third = read(changed)
    assert (first.value, second.value, third.value) == (bytes(changed), None, None)
    assert "decompressed" in first.headers.fault or "checksum" in first.headers.fault
    assert (first.timestamp, first.key) == (-1, None)


def test_reading_goes_on_inside_of_a_damaged_batch() -> None:
    changed = batch(0, 5)
    flip(COUNT_AT + 4)(changed)
    assert [record.offset for record in read(changed, start=3)] == [3, 4]
    struct.pack_into(">i", changed, ATTRIBUTES_AT + 2, 1)
    assert [record.offset for record in read(changed, start=3)] == [3]


def test_a_damaged_end_of_a_transaction_is_passed_over() -> None:
    builder = DefaultRecordBatchBuilder(2, 0, True, 7, 0, 0, 1 << 20)
    builder.append(0, 1_000, b"\0\0\0\1", b"\0\0\0\0\0\0", [])
    marker = bytearray(builder.build())
    struct.pack_into(">q", marker, 0, 1)
    struct.pack_into(">h", marker, ATTRIBUTES_AT, 0x30)
    assert [record.offset for record in read(batch(0, 1), marker, batch(2, 1))] == [0, 2]


def test_after_an_error_the_records_are_fetched_again() -> None:
    old = batch(0, 1)
    old[16] = 0  # a format from before there were batches, of which this is no message
    records = decoding._PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(bytes(old)))
    with pytest.raises(Exception, match=r"crc|Corrupt|Invalid|size"):
        records.take(5)
    assert not records
