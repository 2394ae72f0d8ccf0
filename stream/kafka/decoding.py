"""Owns reading what the client cannot decode: header names that are no UTF-8, damaged batches.

The client gives up on the whole partition there. Its reader of batches is replaced by one that
goes on: what can be read of a damaged batch is read, marked as ``Damaged``, and every offset of
it that cannot be read becomes a record without a value. The layout of a batch is Kafka's version
2; what stands in front of its checksum, its length above all, is taken as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords

from stream.records import Damaged

logger = logging.getLogger(__name__)

FIRST_MAGIC_OF_BATCHES = 2
_ABORT = ControlRecord.KEY_STRUCT.pack(0, 0)


def consumer(**options: Any) -> KafkaConsumer:
    """A consumer that stops at no record; see ``Damaged`` for what it brings instead.

    Args:
        options: The client's.
    """
    made = KafkaConsumer(**options)
    made._fetcher.PartitionRecords = _PartitionRecords
    return made


class HeaderName(str):
    """A header name that is no UTF-8, by surrogateescape: it is sent as the bytes it came as."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """The bytes that it came as."""
        return super().encode(encoding, errors)


class _NamesAsTheyAre(bytearray):
    """The bytes of a batch, of which a part decodes to a ``HeaderName`` where it must."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _NamesAsTheyAre(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return HeaderName(super().decode(encoding, "surrogateescape"))


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one fetch has brought of a partition."""

    def take(self, n: int | None = None) -> list[Any]:
        """Up to ``n`` records; after an error they are fetched again.

        Otherwise the client keeps an iterator that has ended and asks it for ever.
        """
        try:
            return super().take(n)  # type: ignore[no-any-return]
        except Exception:
            self.drain()
            raise

    def _unpack_records(self, tp: Any, records: MemoryRecords, *deserializers: Any) -> Any:
        batches = _Batches(records._buffer, self.fetch_offset)
        return super()._unpack_records(tp, batches, *deserializers)


class _Batches(MemoryRecords):  # type: ignore[misc]
    __slots__ = ("_fetch_offset",)

    def __init__(self, content: Any, fetch_offset: int) -> None:
        super().__init__(content)
        self._fetch_offset = fetch_offset

    def next_batch(self) -> Any:
        piece = self._next_slice
        if (
            piece is None
            or len(piece) < DefaultRecordBatch.HEADER_STRUCT.size
            or piece[self.MAGIC_OFFSET] < FIRST_MAGIC_OF_BATCHES
        ):
            return super().next_batch()
        self._cache_next()
        following = self._next_slice
        end = None if following is None else int.from_bytes(following[: self.LENGTH_OFFSET])
        return _Batch(piece, self._fetch_offset, end)


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch that is read as far as it can be.

    Attributes:
        fault: What is wrong with it; None while nothing is.
    """

    __slots__ = ("_end", "_fetch_offset", "_piece", "fault")

    def __init__(self, piece: memoryview, fetch_offset: int, end: int | None) -> None:
        """Begin with the header.

        Args:
            piece: Its bytes.
            fetch_offset: Offset that was asked for.
            end: First offset of the batch behind it, None where that is not known.
        """
        super().__init__(piece)
        self.fault: str | None = None
        self._piece = piece
        self._fetch_offset = fetch_offset
        self._end = end

    def validate_crc(self) -> bool:
        if self.magic != FIRST_MAGIC_OF_BATCHES:
            self.fault = f"the format of its batch is {self.magic}, which there is not"
        elif not super().validate_crc():
            self.fault = "its batch has changed since it was written (wrong checksum)"
        return True

    @property
    def magic(self) -> int:
        # Of a higher one, the client would pass over whether its transaction was aborted.
        magic: int = self._header_data[3]
        return FIRST_MAGIC_OF_BATCHES if self.fault else magic

    @property
    def last_offset_delta(self) -> int:
        """As the header says; of a damaged batch no more than it can be, and never behind what
        was asked for, or it would be asked for again without end."""
        delta: int = self._header_data[6]
        if self.fault is None:
            return delta
        base: int = self._header_data[0]
        others: int = self._header_data[12] if self._end is None else self._end - base
        return max(0, self._fetch_offset - base, min(delta, others - 1))

    @property
    def is_control_batch(self) -> bool:
        # One of several records only looks like it.
        is_one = self.fault is None or self._num_records == 1
        return is_one and bool(self.attributes & self.CONTROL_MASK)

    def __iter__(self) -> Iterator[DefaultRecord]:
        try:
            super().__iter__()
        except UnsupportedCodecError:
            if self.fault is None:
                raise  # somebody will install it
            return self._lost(self.base_offset)
        except Exception as exc:  # noqa: BLE001  whatever the library of a codec raises
            self.fault = self.fault or f"its batch cannot be decompressed: {exc!r}"
            return self._lost(self.base_offset)
        return self._records()

    def __next__(self) -> DefaultRecord:
        """The end of a transaction, for which alone the client asks this way.

        A damaged one is taken for that of an aborted one: of one that was committed, no record is
        left out for it, and later ones of the producer are never.
        """
        if self.fault is not None:
            return ControlRecord(0, self.base_offset, -1, 0, _ABORT, None, [])
        return super().__next__()

    def _records(self) -> Iterator[DefaultRecord]:
        read = super().__next__
        due: int = self.base_offset
        while True:
            try:
                record = read()
            except StopIteration:
                break
            except CorruptRecordError as exc:
                if isinstance(exc.__context__, UnicodeDecodeError):
                    self._buffer = _NamesAsTheyAre(self._buffer)  # type: ignore[misc,has-type]
                    continue
                self.fault = self.fault or str(exc)
                break
            if self.fault is not None:
                if not due <= record.offset <= self.last_offset:
                    break
                record._headers = Damaged(record.headers, self.fault)
            due = record._offset + 1
            yield record
        if self.fault is not None:
            yield from self._lost(due)

    def _lost(self, due: int) -> Iterator[DefaultRecord]:
        """What is left of the batch: nothing but places, and its bytes in the first."""
        first = max(due, self._fetch_offset)
        for offset in range(first, self.last_offset + 1):
            value, rest = None, "nothing of it can be read"
            if offset == first:
                logger.error(
                    "offsets %s to %s cannot be read: %s", first, self.last_offset, self.fault
                )
                value, rest = bytes(self._piece), "the value is the bytes of the batch"
            headers = Damaged([], f"{self.fault}; {rest}")
            yield DefaultRecord(0, offset, -1, self.timestamp_type, None, value, headers)
