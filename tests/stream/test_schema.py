from __future__ import annotations

import string

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.contract import Answer, CallOptions
from serve.reading import Reader, Reading
from serve.registry import task_type
from serve.task_names import TASKS
from stream.schema import (
    SCHEMAS,
    ControlRecord,
    Envelope,
    OutputRecord,
    ResultHeaders,
    carried_headers,
    id_header,
    input_record,
    schemas,
)

TOPICS = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=249)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False).filter(lambda number: abs(number) != float("inf"))
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=5,
)
WORDS = st.text("abc é", max_size=3).filter(lambda text: not text or text.strip())
# Whatever an input may be, often what it should be.
INPUTS = (
    WORDS
    | st.lists(WORDS, max_size=3)
    | st.lists(WORDS | st.none())
    | JSON.filter(lambda value: not isinstance(value, str | list))
)
PLACE = {"topic": "reviews", "partition": 3, "offset": 41, "timestamp_ms": 1_760_000_000_000}
ENVELOPE = Envelope("text-classification", "sentiment", "4-rc.1")


def answer(*, id: bytes | None = None, result: bytes = b"[]", truncated: bool = False) -> Answer:
    return Answer(result, id, "positive", 0.9, 12, truncated)


def wrapped_id(*, field: bytes | None, record_id: bytes | None) -> object:
    value = ENVELOPE.wrap(answer(id=field), record_id=record_id, **PLACE)
    return orjson.loads(value)["id"]


def test_schema_files_are_those_of_the_models() -> None:
    files = {
        path.relative_to(SCHEMAS).as_posix(): path.read_bytes()
        for path in SCHEMAS.rglob("*")
        if path.is_file()
    }
    assert files == schemas(), "run: python -m stream.schema"


@pytest.mark.parametrize("task", TASKS)
def test_schema_of_the_inputs_allows_what_is_read_and_no_more(task: str) -> None:
    model, inputs = input_record(task), task_type(task).inputs
    reader = Reader(CallOptions(), inputs)

    @settings(deadline=None)
    @given(st.fixed_dictionaries({}, optional={one.name: INPUTS for one in inputs} | {"id": JSON}))
    def check(fields: dict[str, object]) -> None:
        is_read = isinstance(reader.read(orjson.dumps(fields)), Reading)
        try:
            model.model_validate(fields, strict=True)
        except ValidationError:
            assert not is_read
        else:
            assert is_read

    check()


def test_schema_of_the_inputs_names_what_is_required() -> None:
    files = schemas()
    schema = orjson.loads(files["inputs/zero-shot-classification.json"])
    assert schema["required"] == ["text"]
    assert schema["properties"]["text"]["minLength"] == 1
    labels, null = schema["properties"]["candidate_labels"]["anyOf"]
    assert labels == {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
    assert null == {"type": "null"}
    assert schema["additionalProperties"] is True


def test_schema_of_the_results_allows_no_other_fields() -> None:
    schema = orjson.loads(schemas()["results/text-ranking.json"])
    assert schema["items"] == {"$ref": "#/$defs/RankedText"}
    text = schema["$defs"]["RankedText"]
    assert text["required"] == ["index", "score"]
    assert text["properties"].keys() == {"index", "score", "text"}
    assert text["additionalProperties"] is False


@settings(deadline=None)
@given(
    identity=JSON,
    result=JSON,
    truncated=st.booleans(),
    topic=TOPICS,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.integers(-(2**53), 2**53),
)
def test_spliced_bytes_are_an_output_record(
    identity: object,
    result: object,
    truncated: bool,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
) -> None:
    value = ENVELOPE.wrap(
        answer(id=orjson.dumps(identity), result=orjson.dumps(result), truncated=truncated),
        record_id=None,
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
    )
    OutputRecord.model_validate_json(value)
    assert orjson.loads(value) == {
        "id": f"{topic}/{partition}/{offset}" if identity is None else identity,
        "task": "text-classification",
        "model": "sentiment",
        "version": "4-rc.1",
        "result": result,
        "truncated": truncated,
        "source": {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": timestamp_ms,
        },
    }


def test_the_result_goes_out_byte_for_byte() -> None:
    result = b'[ {"label":"a", "score":0.10} ]'
    assert result in ENVELOPE.wrap(answer(result=result), record_id=None, **PLACE)


def test_id_is_the_header_then_the_field_then_the_place() -> None:
    assert wrapped_id(field=b'"field"', record_id=b"header") == "header"
    assert wrapped_id(field=b"17", record_id=None) == 17
    assert wrapped_id(field=b"17", record_id=b"") == 17
    assert wrapped_id(field=None, record_id=None) == "reviews/3/41"
    assert wrapped_id(field=b"null", record_id=None) == "reviews/3/41"


@settings(deadline=None)
@given(st.binary(min_size=1))
def test_any_id_header_makes_valid_json(record_id: bytes) -> None:
    assert wrapped_id(field=None, record_id=record_id) == record_id.decode(
        "utf-8", "backslashreplace"
    )


def test_the_last_id_header_counts() -> None:
    assert id_header([("ce_id", b"1"), ("x", b"y"), ("ce_id", b"2")]) == b"2"
    assert id_header([("ce_type", b"1")]) is None


def test_result_headers_follow_those_of_the_input() -> None:
    given_headers = [
        ("traceparent", b"00-4bf9-01"),
        ("a", b"1"),
        ("bertstream-model", b"other@1"),
        ("a", b"2"),
        ("bertstream-source", b"elsewhere/0/0"),
        ("null", None),
    ]
    headers = ENVELOPE.result_headers(
        given_headers, topic="reviews", partition=3, offset=41, digest="sha256:ab", attempt=2
    )
    assert headers[:4] == [
        ("traceparent", b"00-4bf9-01"),
        ("a", b"1"),
        ("a", b"2"),
        ("null", None),
    ]
    ours = {key: (value or b"").decode() for key, value in headers[4:]}
    assert len(ours) == len(headers[4:])
    assert ResultHeaders.model_validate(ours) == ResultHeaders.model_validate(
        {
            "bertstream-source": "reviews/3/41",
            "bertstream-model": "sentiment@4-rc.1",
            "bertstream-digest": "sha256:ab",
            "bertstream-attempt": "2",
        }
    )


def test_the_input_headers_are_not_touched() -> None:
    mine = [("a", b"1")]
    ENVELOPE.result_headers(mine, topic="t", partition=0, offset=0, digest="d", attempt=1)
    assert mine == [("a", b"1")]
    assert carried_headers(mine, without=frozenset({"a"})) == []


@pytest.mark.parametrize(
    ("versions", "shadow"),
    [
        ({}, None),
        ({"1": {"weight": 0.5}}, None),
        ({"1": {"weight": 0.7}, "2": {"weight": 0.7}}, None),
        ({"1": {"weight": -0.5}, "2": {"weight": 1.5}}, None),
        ({"1": {"weight": "NaN"}}, None),
        ({"1": {"weight": 1}}, "2"),
        ({"1": {"weight": 1}}, "1"),
        ({"bad version": {"weight": 1}}, None),
        ({"1": {"weight": 1, "wieght": 1}}, None),
    ],
)
def test_a_routing_that_makes_no_sense_is_refused(versions: object, shadow: str | None) -> None:
    with pytest.raises(ValidationError):
        ControlRecord.model_validate(
            {"model": "sentiment", "epoch": 1, "versions": versions, "shadow": shadow}
        )


def test_a_routing_may_shadow_a_version_without_weight() -> None:
    versions = {"1": {"weight": 0.1}, "2": {"weight": 0.9}, "3": {"weight": 0, "digest": "d"}}
    record = ControlRecord.model_validate(
        {"model": "sentiment", "epoch": 1, "versions": versions, "shadow": "3"}
    )
    assert record.versions["3"].digest == "d"
