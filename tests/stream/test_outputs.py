"""From outcomes to records: results, and dead letters where there is none."""

from __future__ import annotations

import orjson
import pytest

from serve.contract import Answer, Failure, FailureKind, Part, ReplicaInfo
from stream.deadletter import fits
from stream.offsets import Slot
from stream.outputs import OutputMaker, TopicLimits
from stream.records import Output
from stream.schema import OutputRecord
from stream.settings import PipelineSettings
from tests.stream.records import PlainRecord

INFO = ReplicaInfo("m", "3", "d" * 64, "text-classification", "echo", "f32", "cpu")
SETTINGS = PipelineSettings(name="p", model="m", input_topics=("in",), output_topic="out")


def answer(size: int = 1) -> Answer:
    return Answer(orjson.dumps([{"label": "x" * size, "score": 1.0}]), b"5", "x", 1.0, 3, False)


def finish(outcome: Answer | Failure, *, output: int = 10_000, **record: object) -> Slot:
    slot = Slot(PlainRecord(**record), "3")  # type: ignore[arg-type]
    info = INFO if isinstance(outcome, Answer) else None
    limits = TopicLimits(output=output, dead_letters=100_000)
    OutputMaker(SETTINGS, limits).finish(slot, outcome, attempt=2, info=info, now_ms=0)
    return slot


def sent(slot: Slot) -> Output:
    (output,) = slot.outputs
    return output


def test_a_result_says_where_it_comes_from() -> None:
    slot = finish(answer(), partition=2, offset=7, timestamp=99, headers=[("h", b"1")])
    output = sent(slot)
    record = OutputRecord.model_validate_json(output.value or b"")
    assert (output.topic, output.key) == ("out", b"k")
    assert (record.id, record.model, record.version) == (5, "m", "3")
    assert record.source.model_dump() == {
        "topic": "in",
        "partition": 2,
        "offset": 7,
        "timestamp": 99,
    }
    headers = dict(output.headers)
    assert headers["h"] == b"1"
    assert headers["bertstream-source"] == b"in/2/7"
    assert headers["bertstream-attempt"] == b"2"


def test_the_id_header_is_before_the_id_field() -> None:
    slot = finish(answer(), headers=[("ce_id", b"order-1")])
    assert orjson.loads(sent(slot).value or b"")["id"] == "order-1"


def test_a_failure_is_a_dead_letter_with_the_original_bytes() -> None:
    slot = finish(Failure(FailureKind.NOT_JSON, "no"), value=b"\xff{", headers=[("h", b"1")])
    output = sent(slot)
    assert output.topic == "out.dead-letters"
    assert (output.key, output.value, output.headers[0]) == (b"k", b"\xff{", ("h", b"1"))
    assert dict(output.headers)["bertstream.errors.kind"] == b"not-json"


@pytest.mark.parametrize("size", [1, 300, 400, 500, 560, 600, 700, 2_000])
def test_a_result_is_sent_only_where_it_fits(size: int) -> None:
    slot = finish(answer(size), output=1_000)
    generous = sent(finish(answer(size)))
    if fits(generous.key, generous.value, generous.headers, max_bytes=1_000):
        assert sent(slot) == generous
    else:
        assert isinstance(slot.outcome, Failure)
        assert slot.outcome.kind is FailureKind.RESULT_TOO_LARGE
        assert sent(slot).topic == "out.dead-letters"
        assert sent(slot).value == b'{"text": "a"}'


def test_large_headers_count() -> None:
    slot = finish(answer(), output=1_000, headers=[("h", b"x" * 990)])
    assert isinstance(slot.outcome, Failure)
    assert slot.outcome.kind is FailureKind.RESULT_TOO_LARGE


PARTS = (
    Part("topic", "text-classification", b'[{"label":"news","score":0.9}]'),
    Part("names", "token-classification", b"[]"),
)
TWO_HEADS = Answer(
    b'{"topic":[{"label":"news","score":0.9}],"names":[]}', b"5", None, None, 3, False, PARTS
)
MULTI = INFO._replace(task="multi-task")


def records_of(slot: Slot) -> list[OutputRecord]:
    return [OutputRecord.model_validate_json(output.value or b"") for output in slot.outputs]


def finished(settings: PipelineSettings, *, output: int = 10_000) -> Slot:
    slot = Slot(PlainRecord(), "3")
    limits = TopicLimits(output=output, dead_letters=100_000)
    OutputMaker(settings, limits).finish(slot, TWO_HEADS, attempt=1, info=MULTI, now_ms=0)
    return slot


def test_results_of_all_heads_are_in_one_record() -> None:
    (record,) = records_of(finished(SETTINGS))
    assert (record.task, record.head, record.result) == ("multi-task", None, None)
    assert record.results == {"topic": [{"label": "news", "score": 0.9}], "names": []}


def test_each_head_has_a_record_where_the_pipeline_wants_so() -> None:
    slot = finished(SETTINGS.model_copy(update={"output_per_head": True}))
    first, second = records_of(slot)
    assert (first.head, first.task) == ("topic", "text-classification")
    assert (second.head, second.task, second.result) == ("names", "token-classification", [])
    assert first.id == second.id == 5
    assert {output.key for output in slot.outputs} == {b"k"}


def test_head_that_does_not_fit_makes_the_record_one_dead_letter() -> None:
    settings = SETTINGS.model_copy(update={"output_per_head": True})
    slot = finished(settings, output=100)
    assert isinstance(slot.outcome, Failure)
    assert sent(slot).topic == "out.dead-letters"
