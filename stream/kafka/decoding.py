"""Reads what the client cannot decode: header names that are not UTF-8, and damaged batches.

The client stops reading the whole partition there. Its batch reader is replaced by one that
continues: the readable records of a damaged batch are returned, marked as ``Damaged``, and every
unreadable offset becomes a record without a value. The layout is Kafka's batch version 2; the
fields before its checksum, in particular its length, are trusted.
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
    """Return a consumer that no record stops; see ``Damaged`` for damaged records.

    Args:
        options: Options of the client.
    """
    made = KafkaConsumer(**options)
    made._fetcher.PartitionRecords = _PartitionRecords
    return made


class HeaderName(str):
    """A header name that is not UTF-8, by surrogateescape; it is sent as its original bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        """Return the original bytes."""
        return super().encode(encoding, errors)


class _NamesAsTheyAre(bytearray):
    """The bytes of a batch; a part that is not UTF-8 decodes to a ``HeaderName``."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _NamesAsTheyAre(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return HeaderName(super().decode(encoding, "surrogateescape"))


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """Records of a partition from one fetch."""

    def take(self, n: int | None = None) -> list[Any]:
        """Return up to ``n`` records; after an error they are fetched again.

        Otherwise the client keeps an exhausted iterator and retries it without end.
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
    """A batch that is read as far as possible.

    Attributes:
        fault: Description of the damage; None while none is found.
    """

    __slots__ = ("_end", "_fetch_offset", "_piece", "fault")

    def __init__(self, piece: memoryview, fetch_offset: int, end: int | None) -> None:
        """Read the header.

        Args:
            piece: Bytes of the batch.
            fetch_offset: Offset that was requested.
            end: First offset of the next batch; None if it is unknown.
        """
        super().__init__(piece)
        self.fault: str | None = None
        self._piece = piece
        self._fetch_offset = fetch_offset
        self._end = end

    def validate_crc(self) -> bool:
        if self.magic != FIRST_MAGIC_OF_BATCHES:
            self.fault = f"the format of its batch is {self.magic}, which does not exist"
        elif not super().validate_crc():
            self.fault = "its batch has changed since it was written (wrong checksum)"
        return True

    @property
    def magic(self) -> int:
        # With a higher one, the client would not check whether the transaction was aborted.
        magic: int = self._header_data[3]
        return FIRST_MAGIC_OF_BATCHES if self.fault else magic

    @property
    def last_offset_delta(self) -> int:
        # In a damaged batch this is limited to what is possible, but never below the requested
        # offset, which the client would otherwise request without end.
        delta: int = self._header_data[6]
        if self.fault is None:
            return delta
        base: int = self._header_data[0]
        others: int = self._header_data[12] if self._end is None else self._end - base
        return max(0, self._fetch_offset - base, min(delta, others - 1))

    @property
    def is_control_batch(self) -> bool:
        # A damaged batch of several records only looks like a control batch.
        is_one = self.fault is None or self._num_records == 1
        return is_one and bool(self.attributes & self.CONTROL_MASK)

    def __iter__(self) -> Iterator[DefaultRecord]:
        try:
            super().__iter__()
        except UnsupportedCodecError:
            if self.fault is None:
                raise  # an operator can install the codec
            return self._lost(self.base_offset)
        except Exception as exc:  # noqa: BLE001  any error of a codec library
            self.fault = self.fault or f"its batch cannot be decompressed: {exc!r}"
            return self._lost(self.base_offset)
        return self._records()

    def __next__(self) -> DefaultRecord:
        """Return the end of a transaction; the client uses this method only for that.

        A damaged one counts as an abort: this omits no record of a committed transaction, and no
        later record of the producer.
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
        """Yield a damaged record per unreadable offset; the first has the bytes of the batch."""
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
