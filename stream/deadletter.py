"""Dead letters: what a record without an answer becomes, and what fits into a record.

Knows no Kafka client: sizes are computed from the format of a record batch, version 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from stream.schema import SOURCE_HEADER, InputHeaders, OutputHeaders, carried_headers

MAX_MESSAGE_CHARS: Final = 1024
_PREFIX: Final = "bertstream.errors."
_OWN: Final = frozenset(
    {SOURCE_HEADER}
    | {
        _PREFIX + suffix
        for suffix in (
            "kind",
            "message",
            "topic",
            "partition",
            "offset",
            "attempt",
            "model",
            "time",
            "value-null",
            "value-omitted",
            "headers-omitted",
            "key-omitted",
        )
    }
)
_BATCH_HEADER_BYTES: Final = 61
# Of a record: its length, attributes, timestamp and offset deltas, each as long as it can get.
_RECORD_OVERHEAD_BYTES: Final = 5 + 1 + 10 + 5


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why and where a record was given up.

    Attributes:
        kind: A ``FailureKind``.
        message: For people; cut to 1,024 characters when sent.
        topic: With ``partition`` and ``offset``: where the input record stands.
        attempt: Calls that had this record in them.
        model: ``name@version``; None where no version was chosen.
        time_ms: When, in ms since 1970.
    """

    kind: str
    message: str
    topic: str
    partition: int
    offset: int
    attempt: int
    model: str | None
    time_ms: int


class DeadLetter(NamedTuple):
    """A record for the dead-letter topic; never without both key and value."""

    key: bytes | None
    value: bytes | None
    headers: OutputHeaders


def dead_letter(
    rejection: Rejection,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: InputHeaders,
    max_bytes: int,
) -> DeadLetter:
    """The dead letter of an input record, cut until the broker takes it.

    Key, value and headers stay as they are while all fits. Else the value is left out, then
    the input's headers, then the key; a header each says how much is missing, and
    ``bertstream-source`` says where the whole record stands.

    Args:
        rejection: Why and where.
        max_bytes: What the dead-letter topic takes as one batch; below about 8,000 even
            the cut record can exceed it.
    """
    notes: OutputHeaders = []
    if key is None and value is None:
        value = b""  # the client sends no record that has neither
        notes.append(_header("value-null", "true"))
    letter = DeadLetter(key, value, dead_letter_headers(headers, rejection) + notes)
    if fits(*letter, max_bytes=max_bytes):
        return letter
    # Empty and not null: in a compacted topic null would delete.
    notes.append(_header("value-omitted", str(len(value or b""))))
    letter = DeadLetter(key, b"", dead_letter_headers(headers, rejection) + notes)
    if fits(*letter, max_bytes=max_bytes):
        return letter
    notes.append(_header("headers-omitted", str(len(headers))))
    letter = DeadLetter(key, b"", dead_letter_headers((), rejection) + notes)
    if key is None or fits(*letter, max_bytes=max_bytes):
        return letter
    notes.append(_header("key-omitted", str(len(key))))
    return DeadLetter(None, b"", dead_letter_headers((), rejection) + notes)


def dead_letter_headers(headers: InputHeaders, rejection: Rejection) -> OutputHeaders:
    """The input's headers in their order, then ``DeadLetterHeaders``.

    Those of an earlier dead letter, sent again to the input, give way.
    """
    place = f"{rejection.topic}/{rejection.partition}/{rejection.offset}"
    fields = {
        "kind": rejection.kind,
        "message": rejection.message[:MAX_MESSAGE_CHARS],
        "topic": rejection.topic,
        "partition": str(rejection.partition),
        "offset": str(rejection.offset),
        "attempt": str(rejection.attempt),
        "model": rejection.model,
        "time": _iso_utc(rejection.time_ms),
    }
    own = [_header(suffix, text) for suffix, text in fields.items() if text is not None]
    source = (SOURCE_HEADER, place.encode())
    return [*carried_headers(headers, without=_OWN), source, *own]


def fits(key: bytes | None, value: bytes | None, headers: OutputHeaders, *, max_bytes: int) -> bool:
    """Whether client and broker take this record: ``record_size`` within their limit.

    Args:
        max_bytes: The smaller of the client's ``max_request_size`` and the topic's
            ``max.message.bytes``.
    """
    return record_size(key, value, headers) <= max_bytes


def record_size(key: bytes | None, value: bytes | None, headers: OutputHeaders) -> int:
    """Upper bound of the bytes of a batch that holds this record alone, uncompressed.

    Source: Apache Kafka, record batch format version 2; at most 17 bytes above what is sent.
    """
    fields = _sized(key) + _sized(value) + _varint_bytes(len(headers))
    for name, content in headers:
        fields += _sized(name.encode()) + _sized(content)
    return _BATCH_HEADER_BYTES + _RECORD_OVERHEAD_BYTES + fields


def _sized(content: bytes | None) -> int:
    return 1 if content is None else _varint_bytes(len(content)) + len(content)


def _varint_bytes(number: int) -> int:
    """Bytes of a zigzag varint: seven bits each, one of them for the sign."""
    return max(1, (number.bit_length() + 7) // 7)


def _header(suffix: str, text: str) -> tuple[str, bytes | None]:
    # A message may quote a lone surrogate, which UTF-8 cannot hold.
    return _PREFIX + suffix, text.encode("utf-8", "backslashreplace")


def _iso_utc(time_ms: int) -> str:
    seconds, millis = divmod(time_ms, 1000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"
