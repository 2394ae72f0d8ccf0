from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from pydantic import ValidationError

from serve.agreement import TOLERANCES
from serve.artifact import Artifact
from serve.combining import combine
from serve.contract import Answer, CallOptions, Failure, FailureKind
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ParametersRefused
from serve.parameters import require_options
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.tasks.multi_task import ByHead, MultiTaskHead, SharedHead
from serve.tasks.text_classification import ClassificationHead
from tests.serve.heads import heads_of
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = pytest.mark.model

TASKS = ("text-classification", "token-classification", "feature-extraction")
NAMES = ("topic", "names", "vector")
TOPIC = SharedHead(
    task="text-classification",
    head=ClassificationHead(labels=("a", "b"), problem_type="single_label"),
)
VALUES = [text.encode() for text in TEXTS]
TEXT = CallOptions(format="text")


class Models:
    """A multi-task model and the models that it was made from, with replicas for one engine."""

    def __init__(self, alone: dict[str, Artifact], combined: Artifact, kind: Any) -> None:
        engine = EngineSettings(kind=kind, precision="f32")
        self.card = combined.card
        self.combined = Replica(ModelSettings(name="m", path=combined.path, engine=engine))
        self.alone = {
            name: Replica(ModelSettings(name="m", path=one.path, engine=engine))
            for name, one in zip(NAMES, alone.values(), strict=True)
        }

    def close(self) -> None:
        for replica in (self.combined, *self.alone.values()):
            replica.close()


@pytest.fixture(scope="module", params=["openvino", "torch"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Models]:
    place = tmp_path_factory.mktemp("heads")
    alone = heads_of(tiny_config(), TASKS, place)
    paths = dict(zip(NAMES, (one.path for one in alone.values()), strict=True))
    made = Models(alone, combine(paths, place / "combined"), request.param)
    yield made
    made.close()


def results(replica: Replica, values: list[bytes], options: CallOptions = TEXT) -> list[Any]:
    outcomes = replica.predict(values, options).outcomes
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(outcome.result) for outcome in outcomes if isinstance(outcome, Answer)]


@pytest.mark.parametrize("long_text", ["truncate", "window"])
def test_each_head_answers_as_its_model_alone(
    models: Models, long_text: Literal["truncate", "window"]
) -> None:
    options = CallOptions(format="text", long_text=long_text, window_stride=16)
    values = [*VALUES, b"the battery is good and the screen of Ann is bad " * 20]
    found = results(models.combined, values, options)
    for name, replica in models.alone.items():
        expected = results(replica, values, options)
        agreement = ByHead()
        for ours, theirs in zip(found, expected, strict=True):
            fault = agreement.difference(
                {name: ours[name]}, {name: theirs}, TOLERANCES["f32"]._replace(score=1.01e-4)
            )
            assert fault is None


def test_text_alone_and_in_any_batch_gives_the_same_bytes(models: Models) -> None:
    together = models.combined.predict(VALUES, TEXT).outcomes
    reversed_ = models.combined.predict(VALUES[::-1], TEXT).outcomes[::-1]
    alone = [models.combined.predict([value], TEXT).outcomes[0] for value in VALUES]

    assert len(set(together)) == len(VALUES)
    assert together == reversed_ == alone


def test_parameters_belong_to_a_head(models: Models) -> None:
    parameters = {"only": ["topic"], "heads": {"topic": {"top_k": 1}}}
    (found,) = results(models.combined, [b"fine"], CallOptions("text", parameters=parameters))

    assert list(found) == ["topic"]
    assert len(found["topic"]) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"only": ["topics"]}, "there is no head 'topics'; the model has topic, names, vector"),
        ({"heads": {"mood": {}}}, "there is no head 'mood'"),
        ({"heads": {"topic": {"topk": 1}}}, "there is no topk; did you mean top_k"),
        ({"heads": {"vector": {"prompt": "A "}}}, "the head 'vector' has a prompt before the text"),
    ],
)
def test_parameters_that_the_model_lacks_are_refused(
    models: Models, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParametersRefused, match=message):
        models.combined.predict([b"fine"], CallOptions("text", parameters=parameters))


def test_record_without_text_fails_alone(models: Models) -> None:
    first, second = models.combined.predict([b'{"text": "fine"}', b"{}"], CallOptions()).outcomes

    assert isinstance(first, Answer)
    assert isinstance(second, Failure)
    assert second.kind is FailureKind.NO_TEXT


def test_head_that_needs_more_than_the_last_states_is_refused() -> None:
    several = EmbeddingHead(pooling=Pooling(mode="last-k"))
    with pytest.raises(ValidationError, match="the head 'vector' pools several layers"):
        MultiTaskHead(
            heads={"topic": TOPIC, "vector": SharedHead(task="feature-extraction", head=several)}
        )


def test_head_with_a_prompt_cannot_share_the_tokens() -> None:
    prompts = {"query": "Q: ", "none": ""}

    def vector(default: str | None) -> SharedHead:
        head = EmbeddingHead(pooling=Pooling(), prompts=prompts, default_prompt_name=default)
        return SharedHead(task="feature-extraction", head=head)

    for default in (None, "none"):
        MultiTaskHead(heads={"topic": TOPIC, "vector": vector(default)})
    with pytest.raises(ValidationError, match="the head 'vector' has a prompt before the text"):
        MultiTaskHead(heads={"topic": TOPIC, "vector": vector("query")})


def test_results_are_compared_head_by_head() -> None:
    agreement = ByHead()
    before = {
        "topic": [{"label": "a", "score": 0.6}, {"label": "b", "score": 0.4}],
        "vector": [0.6, 0.8],
        "names": [{"entity_group": "PER", "score": 0.9, "word": "Ann", "start": 0, "end": 3}],
    }
    near = before | {"topic": [{"label": "a", "score": 0.601}, {"label": "b", "score": 0.399}]}
    other = before | {"names": []}
    tolerance = TOLERANCES["f32"]

    assert agreement.difference(near, before, tolerance) is None
    assert agreement.same_for_people(before, near)
    assert agreement.difference(other, before, tolerance) == (
        "head 'names': the result has 0 elements, expected 1"
    )
    assert not agreement.same_for_people(before, other)
    assert agreement.difference({}, before, tolerance) == "the head 'topic' is missing"
    assert agreement.answer(near) == agreement.answer(before) != agreement.answer(other)


def test_second_text_is_read_only_where_all_heads_read_pairs(
    models: Models, tmp_path: Path
) -> None:
    value = b'{"text": "Ada lived.", "text_pair": "London is big."}'
    alone, pair = results(models.combined, [b'{"text": "Ada lived."}', value], CallOptions())
    assert alone == pair
    with pytest.raises(ParametersRefused, match="multi-task has no input 'text_pair'"):
        require_options(models.card, CallOptions(fields={"text_pair": "second"}))

    both = heads_of(tiny_config(), ("text-classification",) * 2, tmp_path)
    made = combine({name: one.path for name, one in both.items()}, tmp_path / "out")
    require_options(made.card, CallOptions(fields={"text_pair": "second"}))
    engine = EngineSettings(kind="torch", precision="f32")
    replica = Replica(ModelSettings(name="m", path=made.path, engine=engine))
    alone, pair = results(replica, [b'{"text": "Ada lived."}', value], CallOptions())
    replica.close()
    assert alone != pair
