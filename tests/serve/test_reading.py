from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.contract import CallOptions, Failure, FailureKind
from serve.json_fields import literal_fields
from serve.reading import Reader, Reading, reads_plain_text
from serve.task import Input, Values

JSON = CallOptions()
TEXT = CallOptions(format="text")
DEEP = b"[" * 300 + b"]" * 300
BOM = b"\xef\xbb\xbf"
ONE = (Input("text"),)
PAIR = (Input("text"), Input("text_pair", optional=True))
TWO = (Input("question"), Input("context"))
LIST = (Input("query"), Input("texts", kind="texts"))
LABELS = (Input("text"), Input("labels", kind="texts", optional=True))
LIST_OF_TEXTS = (Input("text", kind="texts"),)


def read(
    value: bytes, options: CallOptions = JSON, inputs: Sequence[Input] = ONE
) -> Reading | Failure:
    return Reader(options, inputs).read(value)


BAD = [
    (b'{"text": "\xff"}', JSON, FailureKind.NOT_UTF8, "byte 0xff at 10"),
    (b"caf\xe9", TEXT, FailureKind.NOT_UTF8, "byte 0xe9 at 3"),
    (b"{not json", JSON, FailureKind.NOT_JSON, "at character 1"),
    (b"", JSON, FailureKind.EMPTY_TEXT, "empty"),
    (b" \r\n", JSON, FailureKind.EMPTY_TEXT, "white space"),
    (BOM, JSON, FailureKind.EMPTY_TEXT, "empty"),
    (BOM, TEXT, FailureKind.EMPTY_TEXT, "empty"),
    (b'{"text": "a", "x": ' + b"[" * 5000, JSON, FailureKind.NOT_JSON, "nested too deeply"),
    (b'{"text": "a", "x": NaN', JSON, FailureKind.NOT_JSON, "a comma or the end"),
    (b'{"text": "a", "x": NaN,}', JSON, FailureKind.NOT_JSON, "name in double quotes"),
    (b'{"text": "a", "x" NaN}', JSON, FailureKind.NOT_JSON, "a colon"),
    (b'{"x": NaN, "text": "a"} b', JSON, FailureKind.NOT_JSON, "after the value"),
    (b'{"text": "a", "x": "\n"}', JSON, FailureKind.NOT_JSON, "control character"),
    (b'{"text": NaN}', JSON, FailureKind.WRONG_TYPE, "JSON number"),
    (b'{"text": [NaN]}', JSON, FailureKind.WRONG_TYPE, "JSON array"),
    (b"[NaN]", JSON, FailureKind.WRONG_TYPE, "JSON array, not an object"),
    (b'{"x": NaN}', JSON, FailureKind.NO_TEXT, "no field 'text'"),
    (b'{"text": "a", "id": NaN}', JSON, FailureKind.WRONG_TYPE, "'id' has a number"),
    (b'{"text": "a", "id": [1, -Infinity]}', JSON, FailureKind.WRONG_TYPE, "'id' has a number"),
    (b'{"text": "a", "id": "\xff"}', JSON, FailureKind.NOT_UTF8, "byte 0xff at 21"),
    ('{"text": "a"}'.encode("utf-16"), JSON, FailureKind.NOT_UTF8, "byte 0xff at 0"),
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
        (b'{"text": "a", "id": {"b": [1, 2]}}', b'{"b": [1, 2]}'),
        (b'{"text": "a", "id": 12345678901234567890123}', b"12345678901234567890123"),
        (b'{"text": "a", "id": 18446744073709551615}', b"18446744073709551615"),
        (b'{"text": "a", "id": 1.10}', b"1.10"),
        (b'{"text": "a", "id" : 1E400 }', b"1E400"),
        (b'{"text": "a", "id": -0}', b"-0"),
        (b'{"text": "a", "id": ' + b"9" * 5000 + b"}", b"9" * 5000),
        (b'{"text": "a", "id": "caf\\u00e9 \\/"}', b'"caf\\u00e9 \\/"'),
        (b'{"text": "a", "id": "\\ud83d"}', b'"\\ud83d"'),
        (b'{"text": "a", "\\u0069d": 1.10}', b"1.10"),
        (b'{"id": 1.5, "text": "b", "x": {"id": 2.50}, "id": 1.50, "text": "a"}', b"1.50"),
        (b'{"text": "a", "id": ' + DEEP + b"}", DEEP),
        (b'{"text": "a", "id": false}', b"false"),
        (b'{"text": "a", "id": ""}', b'""'),
        (b'{"text": "a", "id": 0}', b"0"),
        (b'{"text": "a", "id": null}', None),
        (b'{"text": "a"}', None),
    ],
)
def test_id_is_carried_over(value: bytes, identity: bytes | None) -> None:
    assert read(value, JSON) == Reading(("a",), identity)


@pytest.mark.parametrize(
    "value",
    [
        b'{"text": "a", "user": "Ann \\ud83d"}',
        b'{"text": "a", "x": NaN, "y": [-Infinity, Infinity]}',
        b'{"text": "a", "x": 1e999, "y": ' + b"7" * 5000 + b"}",
        b'{"text": "a", "user": "caf\xe9"}',
        b'\n{"user\xe9": 1, "text": "a", "x": {"text": "b"}}\t',
        BOM + b'{"text": "a"}',
        b'{"text": "a", "x": ' + DEEP + b"}",
    ],
)
def test_only_what_is_used_decides(value: bytes) -> None:
    assert read(value, JSON) == Reading(("a",), None)


def test_half_an_emoji_in_the_text_is_the_replacement_character() -> None:
    assert read(b'{"text": "a \\ud83d b"}', JSON) == Reading(("a \ufffd b",), None)
    assert read(b'{"text": "\\ud83d\\ude00"}', JSON) == Reading(("\U0001f600",), None)


def test_byte_order_mark_is_no_text() -> None:
    assert read(BOM + b"a", TEXT) == Reading(("a",), None)


def test_text_may_lie_in_any_field() -> None:
    assert read(b'{"body": "a"}', CallOptions(fields={"text": "body"})) == Reading(("a",), None)


def test_nul_characters_are_text() -> None:
    assert read(b"a\0b", TEXT) == Reading(("a\0b",), None)
    assert read(b'{"text": "a\\u0000b"}', JSON) == Reading(("a\0b",), None)


@pytest.mark.parametrize(
    "value",
    [
        b'{"x": NaN, "text": %b}',
        b'{"x": NaN, "text": ["a", %b]}',
        b'{"x": NaN, "text": "a", "id": %b}',
        b'{"x": NaN, "y": %b}',
        b"[NaN, %b]",
    ],
)
def test_any_depth_is_read_or_refused(value: bytes) -> None:
    for levels in range(1100):
        outcome = read(value % (b"[" * levels + b"1" + b"]" * levels), JSON, LIST_OF_TEXTS)
        assert isinstance(outcome, Reading) or outcome.message


@given(st.binary(max_size=200), st.sampled_from([JSON, TEXT]))
def test_any_bytes_are_read_or_refused(value: bytes, options: CallOptions) -> None:
    outcome = read(value, options)

    if isinstance(outcome, Reading):
        (text,) = outcome.values
        assert isinstance(text, str)
        assert text.strip()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(["text", "id", "x"]), JSON_VALUES, min_size=1),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_any_json_is_read_or_refused(
    fields: dict[str, object], ascii_only: bool, indent: int | None
) -> None:
    value = json.dumps(fields, ensure_ascii=ascii_only, indent=indent).encode()
    outcome = read(value, JSON)

    if isinstance(outcome, Reading):
        assert outcome.values == (fields["text"],)
        identity = "null" if outcome.id is None else outcome.id.decode()
        assert identity in value.decode() or "id" not in fields
        assert str(json.loads(identity)) == str(fields.get("id"))


@pytest.mark.parametrize(
    ("value", "inputs", "values"),
    [
        (b'{"text": "a", "text_pair": "b"}', PAIR, ("a", "b")),
        (b'{"text_pair": "b", "text": "a"}', PAIR, ("a", "b")),
        (b'{"text": "a"}', PAIR, ("a", None)),
        (b'{"text": "a", "text_pair": null}', PAIR, ("a", None)),
        (b'{"question": "a", "context": "b"}', TWO, ("a", "b")),
        (b'{"query": "a", "texts": ["b", "c", "b"]}', LIST, ("a", ("b", "c", "b"))),
        (b'{"text": "a", "labels": ["x"]}', LABELS, ("a", ("x",))),
        (b'{"text": "a", "labels": null}', LABELS, ("a", None)),
        (b'{"text": "a"}', LABELS, ("a", None)),
        # Half surrogate pairs, which the fast parser refuses, also within a list.
        (b'{"text": "a", "text_pair": "\\ud83d!"}', PAIR, ("a", "\ufffd!")),
        (b'{"query": "a", "texts": ["b \\ud83d", "c"]}', LIST, ("a", ("b \ufffd", "c"))),
        (b'{"query": "\\ude00", "texts": ["\\ud83d\\ude00"]}', LIST, ("\ufffd", ("\U0001f600",))),
        (b'{"query": "a", "texts": ["b"], "x": NaN}', LIST, ("a", ("b",))),
        (b'{"text": "a", "labels": null, "x": NaN}', LABELS, ("a", None)),
    ],
)
def test_every_input_has_its_field(value: bytes, inputs: Sequence[Input], values: Values) -> None:
    assert read(value, JSON, inputs) == Reading(values, None)


BAD_INPUTS = [
    (b'{"text": "a"}', TWO, FailureKind.NO_TEXT, "no field 'question'"),
    (b'{"question": "a"}', TWO, FailureKind.NO_TEXT, "no field 'context'; send it, or name"),
    (
        b'{"question": "a", "context": null}',
        TWO,
        FailureKind.WRONG_TYPE,
        "'context' is a JSON null",
    ),
    (b'{"question": "a", "context": 7}', TWO, FailureKind.WRONG_TYPE, "'context' is a JSON number"),
    (b'{"question": "a", "context": " "}', TWO, FailureKind.EMPTY_TEXT, "field 'context' is empty"),
    (b'["a", "b"]', TWO, FailureKind.WRONG_TYPE, "with the fields 'question' and 'context'"),
    (b'["a", "b"]', PAIR, FailureKind.WRONG_TYPE, "send an object with the field 'text'"),
    (b'{"text": "a", "text_pair": ""}', PAIR, FailureKind.EMPTY_TEXT, "field 'text_pair' is empty"),
    (
        b'{"text": "a", "text_pair": []}',
        PAIR,
        FailureKind.WRONG_TYPE,
        "'text_pair' is a JSON array",
    ),
    (b'{"text": "a", "text_pair": false}', PAIR, FailureKind.WRONG_TYPE, "is a JSON boolean"),
    (b'{"query": "a"}', LIST, FailureKind.NO_TEXT, "no field 'texts'"),
    (b'{"query": "a", "texts": null}', LIST, FailureKind.WRONG_TYPE, "null, not a list of strings"),
    (
        b'{"query": "a", "texts": "b"}',
        LIST,
        FailureKind.WRONG_TYPE,
        "string, not a list of strings",
    ),
    (b'{"query": "a", "texts": {"b": 1}}', LIST, FailureKind.WRONG_TYPE, "object, not a list"),
    (b'{"query": "a", "texts": []}', LIST, FailureKind.EMPTY_TEXT, "'texts' is an empty list"),
    (b'{"text": "a", "labels": []}', LABELS, FailureKind.EMPTY_TEXT, "'labels' is an empty list"),
    (
        b'{"query": "a", "texts": ["b", " \\t"]}',
        LIST,
        FailureKind.EMPTY_TEXT,
        "element 1 of the field 'texts' is empty or only white space",
    ),
    (
        b'{"query": "a", "texts": ["b", "c", 7]}',
        LIST,
        FailureKind.WRONG_TYPE,
        "element 2 of the field 'texts' is a JSON number, not a string",
    ),
    (b'{"query": "a", "texts": [null]}', LIST, FailureKind.WRONG_TYPE, "element 0 of the field"),
    (b'{"query": "a", "texts": [["b"]]}', LIST, FailureKind.WRONG_TYPE, "is a JSON array, not a"),
    (b'{"query": "a", "texts": ["b", NaN]}', LIST, FailureKind.WRONG_TYPE, "is a JSON number"),
    (b'{"query": "a", "texts": ["\xff"]}', LIST, FailureKind.NOT_UTF8, "byte 0xff at 26"),
]


@pytest.mark.parametrize(("value", "inputs", "kind", "message"), BAD_INPUTS)
def test_bad_input_is_named(
    value: bytes, inputs: Sequence[Input], kind: FailureKind, message: str
) -> None:
    failure = read(value, JSON, inputs)

    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert message in failure.message


@pytest.mark.parametrize(
    ("identity", "text_pair"),
    [
        (b"12345678901234567890123", b'"b"'),
        (b"1.10", b'"\\ud83d"'),
        (b"9" * 5000, b"null"),
        (b"-0", b'"b"'),
    ],
)
def test_id_is_carried_over_beside_several_inputs(identity: bytes, text_pair: bytes) -> None:
    value = b'{"text": "a", "id": %b, "text_pair": %b}' % (identity, text_pair)
    reading = read(value, JSON, PAIR)

    assert isinstance(reading, Reading)
    assert reading.id == identity
    assert reading.values[0] == "a"


def test_each_input_may_lie_in_any_field() -> None:
    options = CallOptions(fields={"question": "q", "context": "question"})

    assert read(b'{"question": "b", "q": "a"}', options, TWO) == Reading(("a", "b"), None)
    failure = read(b'{"question": "b"}', options, TWO)
    assert isinstance(failure, Failure)
    assert "no field 'q'" in failure.message


def test_optional_input_that_is_named_is_required() -> None:
    options = CallOptions(fields={"text_pair": "reply"})

    assert read(b'{"text": "a", "reply": "b"}', options, PAIR) == Reading(("a", "b"), None)
    for value, kind in (
        (b'{"text": "a", "text_pair": "b"}', FailureKind.NO_TEXT),
        (b'{"text": "a", "reply": null}', FailureKind.WRONG_TYPE),
    ):
        failure = read(value, options, PAIR)
        assert isinstance(failure, Failure)
        assert failure.kind is kind
        assert "'reply'" in failure.message


def test_plain_text_is_the_only_required_input() -> None:
    assert read(b"a", TEXT, PAIR) == Reading(("a", None), None)
    assert read(b"a", TEXT, LABELS) == Reading(("a", None), None)


@pytest.mark.parametrize(
    ("inputs", "fields", "needed"),
    [
        (TWO, {}, "'question' and 'context'"),
        (LIST, {}, "'query' and 'texts'"),
        (PAIR, {"text_pair": "reply"}, "'text' and 'reply'"),
        (LABELS, {"labels": "topics"}, "'text' and 'topics'"),
    ],
)
def test_plain_text_for_several_required_inputs_fails_with_advice(
    inputs: Sequence[Input], fields: dict[str, str], needed: str
) -> None:
    failure = read(b"a", CallOptions(format="text", fields=fields), inputs)

    assert not reads_plain_text(inputs, fields)
    assert failure == Failure(
        FailureKind.WRONG_TYPE,
        f"the task needs {needed}, so the value must be a JSON object: set format to json",
    )


@given(
    st.dictionaries(
        st.sampled_from(["query", "texts", "id"]),
        JSON_VALUES | st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1),
        min_size=2,
    ),
    st.booleans(),
)
def test_any_list_is_read_or_refused(fields: dict[str, object], ascii_only: bool) -> None:
    outcome = read(json.dumps(fields, ensure_ascii=ascii_only).encode(), JSON, LIST)

    if isinstance(outcome, Reading):
        query, texts = outcome.values
        assert query == fields["query"]
        assert isinstance(texts, tuple)
        assert list(texts) == fields["texts"]
        assert all(text.strip() for text in texts)


@given(st.dictionaries(st.text(), JSON_VALUES), st.sampled_from([None, 2]))
def test_fields_are_found_as_they_stand(fields: dict[str, object], indent: int | None) -> None:
    text = json.dumps(fields, indent=indent)
    found = literal_fields(text)
    assert found is not None
    assert str({name: json.loads(literal) for name, literal in found.items()}) == str(fields)
