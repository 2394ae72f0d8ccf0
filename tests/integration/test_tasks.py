"""Every task from Kafka to Kafka: a broker, a pipeline and a replica with a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import pytest
from pydantic import TypeAdapter

from serve.agreement import TOLERANCES
from serve.artifact import Artifact
from serve.contract import Answer
from serve.registry import task_type
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.task import Input
from serve.task_names import TASKS
from stream.schema import DeadLetterHeaders, OutputRecord
from stream.settings import PipelineSettings
from tests.integration.harness import Bench, Ledger, LocalModel, Received
from tests.serve.heads import HEADS, LIMIT, model_of
from tests.serve.tiny import TEXTS

pytestmark = [pytest.mark.kafka, pytest.mark.model]

LONG = "word " * 2 * LIMIT
QUERY = "How long does the battery last?"
ANN = "Ann of Great Phones answered me."
MASKED = "The [MASK] is good."
LABELS = ["travel", "the price", "a broken hinge"]
Record = dict[str, Any]
GetModel = Callable[..., Artifact]


class Case(NamedTuple):
    """Records for a pipeline.

    Attributes:
        good: Records with a result; the first has all inputs of the task.
        bad: Records without one, and the kind of their dead letters.
        settings: Settings of the pipeline.
    """

    good: list[Record]
    bad: Sequence[tuple[Record, str]] = ()
    settings: Mapping[str, Any] = MappingProxyType({})


CASES = {
    "feature-extraction": Case(
        [{"text": text} for text in (*TEXTS, LONG)],
        settings={"parameters": {"dimensions": 8, "normalize": True}},
    ),
    "fill-mask": Case(
        [{"text": MASKED}, {"text": "[MASK] and [MASK]"}, {"text": f"{MASKED} {LONG}"}],
        [
            ({"text": "The phone is good."}, "wrong-input"),
            ({"text": f"{LONG} {MASKED}"}, "wrong-input"),
            ({"text": "[MASK] [MASK] [MASK]"}, "too-many"),
        ],
        {"parameters": {"max_masks": 2}},
    ),
    "multi-task": Case([{"text": text} for text in (ANN, *TEXTS)]),
    "next-sentence-prediction": Case(
        [{"text": QUERY, "text_pair": text} for text in (*TEXTS, LONG)]
    ),
    "question-answering": Case(
        [{"question": QUERY, "context": text} for text in (*TEXTS[1:5], LONG)],
        [
            ({"question": "word " * (LIMIT - 2), "context": ANN}, "too-long"),
            ({"question": LONG, "context": ANN}, "too-long"),
            ({"question": "\u200b", "context": ANN}, "empty-text"),
        ],
    ),
    "sentence-similarity": Case(
        [{"query": QUERY, "texts": TEXTS}, {"query": LONG, "texts": [LONG]}],
        [({"query": QUERY, "texts": ["a"] * 8}, "too-many")],
        {"parameters": {"max_texts": 7}},
    ),
    "text-classification": Case(
        [{"text": QUERY, "text_pair": TEXTS[1]}, *({"text": text} for text in TEXTS)],
        [({"text": LONG}, "too-long")],
        {"long_text": "dead-letter"},
    ),
    "text-ranking": Case(
        [{"query": QUERY, "texts": TEXTS}, {"query": "fine", "texts": [LONG, QUERY]}],
        [({"query": QUERY, "texts": ["a"] * 8}, "too-many")],
        {"parameters": {"max_texts": 7, "return_documents": True}},
    ),
    "token-classification": Case([{"text": text} for text in (ANN, *TEXTS, LONG)]),
    "zero-shot-classification": Case(
        [{"text": text, "candidate_labels": LABELS} for text in (*TEXTS, LONG)],
        [
            ({"text": ANN}, "no-text"),
            ({"text": ANN, "candidate_labels": None}, "no-text"),
            ({"text": ANN, "candidate_labels": ["a", "b", "c", "d"]}, "too-many"),
        ],
        {"parameters": {"max_labels": 3}},
    ),
}


def case_of(task: str) -> Case:
    """Return the case of a task; a new one has a text, or a few, for each of its inputs."""
    inputs = task_type(task).inputs
    return CASES.get(task) or Case(
        [{one.name: TEXTS if one.kind == "texts" else text for one in inputs} for text in TEXTS]
    )


# Other shapes of results: the task, the fields of the head and the parameters that give them.
OTHER_SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "integers": ("feature-extraction", {}, {"precision": "int8"}),
    "vectors of tokens": ("feature-extraction", {"tokens": True}, {}),
    "several answers": ("question-answering", {}, {"top_k": 4}),
    "without texts": ("text-ranking", {}, {"return_documents": False}),
    "labelled tokens": ("token-classification", {}, {"aggregation_strategy": "none"}),
}


@pytest.fixture(scope="module")
def get_model(tmp_path_factory: pytest.TempPathFactory) -> GetModel:
    """Return the model of a task; the same one for several tests."""
    made: dict[str, Artifact] = {}

    def get(task: str, **head: Any) -> Artifact:
        key = f"{task} {head}"
        if key not in made:
            made[key] = model_of(task, tmp_path_factory.mktemp("model"), head=head)
        return made[key]

    return get


class Run:
    """A pipeline with a replica in this process.

    Its topics have one partition, so that all results are in the order of the records.
    """

    def __init__(self, bench: Bench, artifact: Artifact, settings: Mapping[str, Any]) -> None:
        self.pipeline = bench.pipeline(partitions=1, **settings)
        self.ledger: Ledger = bench.ledger(self.pipeline)
        engine = EngineSettings(kind="torch", precision="f32")
        self.replica = Replica(
            ModelSettings(name=self.pipeline.model, path=artifact.path, engine=engine)
        )
        self._model = LocalModel(self.replica, self.pipeline)
        self._worker = bench.worker(self.pipeline, self._model)

    def send(self, values: list[bytes]) -> None:
        for number, value in enumerate(values):
            self.ledger.send(value, b"%d" % number)
        self.ledger.flush()

    def answer(self, value: bytes) -> Answer:
        """Return what the replica answered to a record, and would answer to it alone."""
        outcome = self._model.outcomes[value]
        assert isinstance(outcome, Answer), outcome
        (alone,) = self.replica.predict([value], self.pipeline.call_options()).outcomes
        assert isinstance(alone, Answer), alone
        # In another batch, the last digit may be another.
        agreement = task_type(self.replica.info().task).agreement
        results = orjson.loads(outcome.result), orjson.loads(alone.result)
        assert agreement.difference(*results, TOLERANCES["f32"]) is None
        return outcome

    def close(self) -> None:
        assert self._worker.stop(timeout_s=20, leave=True)
        self.replica.close()


@contextmanager
def running(bench: Bench, artifact: Artifact, settings: Mapping[str, Any]) -> Iterator[Run]:
    run = Run(bench, artifact, settings)
    try:
        yield run
    finally:
        run.close()


def faults(record: Record, inputs: tuple[Input, ...]) -> Iterator[tuple[bytes, str]]:
    """Return values that no task with these inputs can read, and why not.

    Args:
        record: A good one, with all inputs.
    """
    yield b"{", "not-json"
    yield b"\xff", "not-utf8"
    yield b"[1]", "wrong-type"
    yield b" ", "empty-text"
    for name, kind, optional in inputs:
        wrong: list[tuple[Any, str]] = [(7, "wrong-type")]
        if not optional:
            yield orjson.dumps({key: record[key] for key in record if key != name}), "no-text"
            wrong.append((None, "wrong-type"))
        if kind == "texts":
            wrong += [([], "empty-text"), (["a", " "], "empty-text")]
            wrong += [("a", "wrong-type"), (["a", 7], "wrong-type")]
        else:
            wrong += [(" ", "empty-text"), (["a"], "wrong-type")]
        for value, fault in wrong:
            yield orjson.dumps({**record, name: value}), fault


def require_result(received: Received, answer: Answer, task: str) -> Any:
    """Compare an output record with the replica's answer, and return its result."""
    record = OutputRecord.model_validate_json(received.value)
    assert (record.task, record.truncated) == (task, answer.truncated)
    name, result = "result", record.result
    if answer.parts:
        name, result = "results", record.results
    assert b'"%b":%b,"truncated":' % (name.encode(), answer.result) in received.value
    require_shape(task, result)
    return result


def require_shape(task: str, result: Any) -> None:
    TypeAdapter(task_type(task).result_type).validate_python(result, strict=True)


def require_dead_letter(letter: Received, kind: str, pipeline: PipelineSettings) -> None:
    headers = DeadLetterHeaders.model_validate(
        {name: (text or b"").decode() for name, text in letter.headers}
    )
    assert (headers.kind, headers.model) == (kind, f"{pipeline.model}@1")


@pytest.mark.parametrize("task", TASKS)
def test_good_records_have_results_and_bad_ones_are_dead_letters(
    bench: Bench, get_model: GetModel, task: str
) -> None:
    case = case_of(task)
    good = [orjson.dumps(record | {"id": number}) for number, record in enumerate(case.good)]
    card = get_model(task).card
    inputs = task_type(task)(card.head, precision="f32").inputs
    bad = [*faults(case.good[0], inputs)]
    bad += [(orjson.dumps(record), kind) for record, kind in case.bad]
    values = [good[0], *(value for value, _ in bad), *good[1:]]
    with running(bench, get_model(task), case.settings) as run:
        run.send(values)
        received = run.ledger.wait_for_count(len(good))
        letters = run.ledger.dead_letters(len(bad))
        results = [
            require_result(one, run.answer(value), task)
            for one, value in zip(received, good, strict=True)
        ]

    assert [one.number for one in received] == list(range(len(good)))
    assert [int(one.key or b"") for one in received] == [0, *range(len(bad) + 1, len(values))]
    assert all(result != results[0] for result in results[1:])
    assert [letter.value for letter in letters] == [value for value, _ in bad]
    assert [int(letter.key or b"") for letter in letters] == list(range(1, len(bad) + 1))
    for letter, (_, kind) in zip(letters, bad, strict=True):
        require_dead_letter(letter, kind, run.pipeline)


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_results_of_other_shapes_fit_the_type_of_the_task(
    bench: Bench, get_model: GetModel, shape: str
) -> None:
    task, head, parameters = OTHER_SHAPES[shape]
    values = [orjson.dumps(record) for record in case_of(task).good]
    with running(bench, get_model(task, **head), {"parameters": parameters}) as run:
        run.send(values)
        received = run.ledger.wait_for_count(len(values))
        results = [
            require_result(one, run.answer(value), task)
            for one, value in zip(received, values, strict=True)
        ]
    assert all(results)


def test_fields_may_have_other_names(bench: Bench, get_model: GetModel) -> None:
    fields = {"query": "question", "texts": "answers"}
    good = orjson.dumps({"id": 7, "question": QUERY, "answers": TEXTS, "query": 1})
    bad = orjson.dumps({"query": QUERY, "texts": TEXTS})
    with running(bench, get_model("text-ranking"), {"fields": fields}) as run:
        run.send([bad, good])
        (received,) = run.ledger.wait_for_count(1)
        (letter,) = run.ledger.dead_letters(1)
        require_result(received, run.answer(good), "text-ranking")
    assert received.number == 7
    assert letter.value == bad
    assert "'question'" in letter.header("bertstream.errors.message")
    require_dead_letter(letter, "no-text", run.pipeline)


def test_a_long_text_in_windows_is_read_to_its_end(bench: Bench, get_model: GetModel) -> None:
    text = " ".join([*TEXTS, ANN])
    value = orjson.dumps({"id": 0, "text": text})
    settings = {
        "long_text": "window",
        "window_stride": 8,
        "parameters": {"aggregation_strategy": "none", "ignore_labels": []},
    }
    with running(bench, get_model("token-classification"), settings) as run:
        run.send([value])
        (received,) = run.ledger.wait_for_count(1)
        tokens = require_result(received, run.answer(value), "token-classification")
    assert len(tokens) > LIMIT
    assert (tokens[0]["start"], tokens[-1]["end"]) == (0, len(text))
    assert OutputRecord.model_validate_json(received.value).truncated is False


def test_each_head_may_have_a_record_of_its_own(bench: Bench, get_model: GetModel) -> None:
    values = [orjson.dumps({"id": n, "text": text}) for n, text in enumerate((ANN, *TEXTS))]
    with running(bench, get_model("multi-task"), {"output_per_head": True}) as run:
        run.send(values)
        received = run.ledger.wait_for_count(len(HEADS) * len(values))
        answers = [run.answer(value) for value in values]
        letters = run.ledger.dead_letters(0)
    assert letters == []
    parts = [(number, part) for number, answer in enumerate(answers) for part in answer.parts]
    for one, (number, part) in zip(received, parts, strict=True):
        record = OutputRecord.model_validate_json(one.value)
        assert (one.key, record.id) == (b"%d" % number, number)
        assert (record.head, record.task) == (part.head, HEADS[part.head])
        assert b'"result":%b,' % part.result in one.value
        require_shape(HEADS[part.head], record.result)
