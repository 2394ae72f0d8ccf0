"""Dead letters for records without an answer, and the size of records.

Does not use a Kafka client: sizes follow from the format of a record batch, version 2.
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
# Maximum sizes of a record's length, attributes, timestamp delta and offset delta.
_RECORD_OVERHEAD_BYTES: Final = 5 + 1 + 10 + 5


@dataclass(frozen=True, slots=True)
class Rejection:
    """Reason for which a record was given up, and its place.

    Attributes:
        kind: A ``FailureKind``.
        message: Explanation for people; truncated to 1,024 characters when sent.
        topic: With ``partition`` and ``offset``, the place of the input record.
        attempt: Number of calls that contained this record.
        model: ``name@version``; None if no version was chosen.
        time_ms: When it was given up, in ms since 1970.
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
    """A record for the dead-letter topic; key and value are never both None."""

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
    """Return the dead letter of an input record, reduced until the broker accepts it.

    Key, value and headers are unchanged if all fit. Otherwise the value is omitted, then the
    input's headers, then the key; for each, a header has the omitted size, and
    ``bertstream-source`` has the place of the whole record.

    Args:
        rejection: Reason and place of the rejection.
        max_bytes: Maximum batch size of the dead-letter topic; below about 8,000 even the
            reduced record can exceed it.
    """
    notes: OutputHeaders = []
    if key is None and value is None:
        value = b""  # the client refuses a record without both
        notes.append(_header("value-null", "true"))
    letter = DeadLetter(key, value, dead_letter_headers(headers, rejection) + notes)
    if fits(*letter, max_bytes=max_bytes):
        return letter
    # Empty instead of null: in a compacted topic, null would delete records.
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
    """Return the input's headers in order, then ``DeadLetterHeaders``.

    Headers of an earlier dead letter that was sent to the input again are replaced.
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
    """Return whether client and broker accept this record: ``record_size`` within their limit.

    Args:
        max_bytes: The smaller of the client's ``max_request_size`` and the topic's
            ``max.message.bytes``.
    """
    return record_size(key, value, headers) <= max_bytes


def record_size(key: bytes | None, value: bytes | None, headers: OutputHeaders) -> int:
    """Return an upper bound of the bytes of an uncompressed batch with this record alone.

    Source: Apache Kafka, record batch format version 2; at most 17 bytes above the actual size.
    """
    fields = _sized(key) + _sized(value) + _varint_bytes(len(headers))
    for name, content in headers:
        fields += _sized(name.encode()) + _sized(content)
    return _BATCH_HEADER_BYTES + _RECORD_OVERHEAD_BYTES + fields


def _sized(content: bytes | None) -> int:
    return 1 if content is None else _varint_bytes(len(content)) + len(content)


def _varint_bytes(number: int) -> int:
    """Return the bytes of a zigzag varint: seven bits per byte, one bit for the sign."""
    return max(1, (number.bit_length() + 7) // 7)


def _header(suffix: str, text: str) -> tuple[str, bytes | None]:
    # A message may quote a lone surrogate, which UTF-8 cannot encode.
    return _PREFIX + suffix, text.encode("utf-8", "backslashreplace")


def _iso_utc(time_ms: int) -> str:
    seconds, millis = divmod(time_ms, 1000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z"
