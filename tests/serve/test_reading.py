from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.contract import CallOptions, Failure, FailureKind
from serve.reading import Reading, read

JSON = CallOptions()
TEXT = CallOptions(format="text")
DEEP = b"[" * 300 + b"]" * 300

BAD = [
    (b'{"text": "\xff"}', JSON, FailureKind.NOT_UTF8, "byte 0xff at 10"),
    (b"caf\xe9", TEXT, FailureKind.NOT_UTF8, "byte 0xe9 at 3"),
    (b"{not json", JSON, FailureKind.NOT_JSON, "at character 1"),
    (b"", JSON, FailureKind.NOT_JSON, "empty"),
    (b'{"text": "\\ud800"}', JSON, FailureKind.NOT_JSON, "surrogate"),
    (b'{"text": "a", "x": ' + b"[" * 5000, JSON, FailureKind.NOT_JSON, "depth"),
    (b'["text"]', JSON, FailureKind.WRONG_TYPE, "JSON array, not an object"),
    (b'"text"', JSON, FailureKind.WRONG_TYPE, "JSON string, not an object"),
    (b"null", JSON, FailureKind.WRONG_TYPE, "JSON null, not an object"),
    (b'{"body": "a"}', JSON, FailureKind.NO_TEXT, "no field 'text'"),
    (b'{"text": null}', JSON, FailureKind.WRONG_TYPE, "JSON null"),
    (b'{"text": 7}', JSON, FailureKind.WRONG_TYPE, "JSON number"),
    (b'{"text": true}', JSON, FailureKind.WRONG_TYPE, "JSON boolean"),
    (b'{"text": ["a"]}', JSON, FailureKind.WRONG_TYPE, "JSON array"),
    (b'{"text": {"a": 1}}', JSON, FailureKind.WRONG_TYPE, "JSON object"),
    (b'{"text": ""}', JSON, FailureKind.EMPTY_TEXT, "empty"),
    (b'{"text": " \\t\\n\\u00a0"}', JSON, FailureKind.EMPTY_TEXT, "white space"),
    (b"", TEXT, FailureKind.EMPTY_TEXT, "empty"),
    (b" \n", TEXT, FailureKind.EMPTY_TEXT, "white space"),
    (b'{"text": "a", "id": ' + DEEP + b"}", JSON, FailureKind.WRONG_TYPE, "'id' cannot be"),
]


@pytest.mark.parametrize(("value", "options", "kind", "message"), BAD)
def test_bad_value_says_what_is_wrong(
    value: bytes, options: CallOptions, kind: FailureKind, message: str
) -> None:
    failure = read(value, options)

    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert message in failure.message


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        (b'{"text": "a", "id": "x-1"}', b'"x-1"'),
        (b'{"text": "a", "id": 7}', b"7"),
        (b'{"text": "a", "id": {"b": [1, 2]}}', b'{"b":[1,2]}'),
        (b'{"text": "a", "id": ""}', b'""'),
        (b'{"text": "a", "id": 0}', b"0"),
        (b'{"text": "a", "id": null}', None),
        (b'{"text": "a"}', None),
    ],
)
def test_id_is_carried_over(value: bytes, identity: bytes | None) -> None:
    assert read(value, JSON) == Reading("a", identity)


def test_text_may_lie_in_any_field() -> None:
    assert read(b'{"body": "a"}', CallOptions(text_field="body")) == Reading("a", None)


def test_nul_characters_are_text() -> None:
    assert read(b"a\0b", TEXT) == Reading("a\0b", None)
    assert read(b'{"text": "a\\u0000b"}', JSON) == Reading("a\0b", None)


@given(st.binary(max_size=200), st.sampled_from([JSON, TEXT]))
def test_any_bytes_are_read_or_refused(value: bytes, options: CallOptions) -> None:
    outcome = read(value, options)

    assert isinstance(outcome, Failure) or outcome.text.strip()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["text", "id", "x"]), JSON_VALUES), st.booleans())
def test_any_json_is_read_or_refused(fields: dict[str, object], ascii_only: bool) -> None:
    value = json.dumps(fields, ensure_ascii=ascii_only).encode()
    outcome = read(value, JSON)

    if isinstance(outcome, Reading):
        assert outcome.text == fields["text"]
        assert outcome.id is None or orjson.loads(outcome.id) == orjson.loads(value)["id"]
