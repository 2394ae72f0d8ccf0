from __future__ import annotations

from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder

from serve.contract import FailureKind
from stream.deadletter import (
    MAX_MESSAGE_CHARS,
    Rejection,
    dead_letter,
    dead_letter_headers,
    fits,
    record_size,
)
from stream.schema import DeadLetterHeaders, OutputHeaders

REJECTION = Rejection(
    kind=FailureKind.NOT_JSON,
    message="unexpected end of data",
    topic="reviews",
    partition=3,
    offset=41,
    attempt=1,
    model="sentiment@4",
    time_ms=1_760_000_000_007,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
HEADERS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=5)
LONGEST = Rejection(
    kind="k" * 40,
    message="\ud800" * 5_000,
    topic="t" * 249,
    partition=2**31 - 1,
    offset=2**63 - 1,
    attempt=10**6,
    model="m" * 127,
    time_ms=1_760_000_000_007,
)


def ours(headers: OutputHeaders, *, after: int = 0) -> DeadLetterHeaders:
    fields = {name: (content or b"").decode() for name, content in headers[after:]}
    assert len(fields) == len(headers) - after, "a header stands there twice"
    return DeadLetterHeaders.model_validate(fields)


def sent_bytes(key: bytes | None, value: bytes | None, headers: OutputHeaders) -> int:
    batch = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=True,
        producer_id=1,
        producer_epoch=1,
        base_sequence=0,
        batch_size=1,
    )
    batch.append(0, 1_760_000_000_000, key, value, headers)
    return len(batch.build())


def test_input_headers_stay_and_the_reason_follows() -> None:
    given_headers = [("a", b"1"), ("bertstream-model", b"first@1"), ("a", b"2"), ("n", None)]
    headers = dead_letter_headers(given_headers, REJECTION)
    assert headers[:4] == [("a", b"1"), ("bertstream-model", b"first@1"), ("a", b"2"), ("n", None)]
    reason = ours(headers, after=4)
    assert reason.source == "reviews/3/41"
    assert (reason.topic, reason.partition, reason.offset) == ("reviews", "3", "41")
    assert (reason.kind, reason.attempt, reason.model) == ("not-json", "1", "sentiment@4")
    assert reason.message == "unexpected end of data"
    assert reason.time == "2025-10-09T08:53:20.007Z"
    assert datetime.fromisoformat(reason.time).timestamp() == 1_760_000_000.007


def test_a_dead_letter_sent_again_has_only_its_last_reason() -> None:
    once = dead_letter_headers([("a", b"1")], REJECTION)
    assert dead_letter_headers(once, REJECTION) == once


def test_no_model_no_header() -> None:
    headers = dead_letter_headers([], Rejection("poison", "m", "t", 0, 0, 0, None, 0))
    assert ours(headers).model is None
    assert ours(headers).time == "1970-01-01T00:00:00.000Z"


@settings(deadline=None)
@given(st.text(max_size=MAX_MESSAGE_CHARS + 50))
def test_the_message_is_bounded_and_valid_utf8(message: str) -> None:
    rejection = Rejection("poison", message, "t", 0, 0, 1, None, 0)
    sent = dict(dead_letter_headers([], rejection))["bertstream.errors.message"]
    expected = message[:MAX_MESSAGE_CHARS].encode("utf-8", "backslashreplace")
    assert sent == expected
    sent.decode("utf-8")


@settings(deadline=None)
@given(
    key=st.none() | st.binary(max_size=200),
    value=st.none() | st.binary(max_size=20_000),
    headers=HEADERS,
)
def test_record_size_is_a_close_upper_bound(
    key: bytes | None, value: bytes | None, headers: OutputHeaders
) -> None:
    size = record_size(key, value, headers)
    assert 0 <= size - sent_bytes(key, value, headers) <= 17
    assert size == DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers)


def test_record_size_at_the_steps_of_a_varint() -> None:
    for length in (0, 1, 63, 64, 8_191, 8_192, 1_048_575, 1_048_576):
        size = record_size(None, bytes(length), [])
        assert size == DefaultRecordBatchBuilder.estimate_size_in_bytes(None, bytes(length), [])


def test_fits_up_to_the_limit() -> None:
    size = record_size(b"k", b"value", [])
    assert fits(b"k", b"value", [], max_bytes=size)
    assert not fits(b"k", b"value", [], max_bytes=size - 1)


def test_what_fits_goes_out_unchanged() -> None:
    letter = dead_letter(
        REJECTION, key=b"k", value=b"\xff{", headers=[("a", b"1")], max_bytes=10_000
    )
    assert (letter.key, letter.value, letter.headers[0]) == (b"k", b"\xff{", ("a", b"1"))
    assert ours(letter.headers, after=1).value_omitted is None


def test_a_tombstone_stays_null_when_it_has_a_key() -> None:
    letter = dead_letter(REJECTION, key=b"k", value=None, headers=[], max_bytes=10_000)
    assert letter.value is None
    assert ours(letter.headers).value_null is None


def test_a_tombstone_without_key_can_be_sent() -> None:
    letter = dead_letter(REJECTION, key=None, value=None, headers=[], max_bytes=10_000)
    assert (letter.key, letter.value) == (None, b"")
    assert ours(letter.headers).value_null == "true"


def test_a_value_that_does_not_fit_is_left_out() -> None:
    letter = dead_letter(
        REJECTION, key=b"k", value=bytes(20_000), headers=[("a", b"1")], max_bytes=10_000
    )
    assert (letter.key, letter.value, letter.headers[0]) == (b"k", b"", ("a", b"1"))
    assert ours(letter.headers, after=1).value_omitted == "20000"


def test_headers_that_do_not_fit_are_left_out() -> None:
    headers = [("a", bytes(9_000)), ("b", bytes(9_000))]
    letter = dead_letter(REJECTION, key=b"k", value=b"v", headers=headers, max_bytes=10_000)
    assert (letter.key, letter.value) == (b"k", b"")
    assert (ours(letter.headers).value_omitted, ours(letter.headers).headers_omitted) == ("1", "2")


def test_a_key_that_does_not_fit_is_left_out() -> None:
    letter = dead_letter(REJECTION, key=bytes(9_900), value=b"v", headers=[], max_bytes=10_000)
    assert (letter.key, letter.value) == (None, b"")
    assert ours(letter.headers).key_omitted == "9900"


@settings(deadline=None)
@given(
    key=st.none() | st.binary(max_size=100) | st.just(bytes(20_000)),
    value=st.none() | st.binary(max_size=100) | st.just(bytes(20_000)),
    headers=HEADERS | st.just([("h", bytes(20_000))]),
)
def test_a_dead_letter_always_fits(
    key: bytes | None, value: bytes | None, headers: OutputHeaders
) -> None:
    letter = dead_letter(LONGEST, key=key, value=value, headers=headers, max_bytes=8_000)
    assert fits(*letter, max_bytes=8_000)
    assert letter.key is not None or letter.value is not None
