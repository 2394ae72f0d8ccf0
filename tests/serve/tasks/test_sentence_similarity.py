"""Similarity of sentences: cosines beside those of sentence-transformers, prompts and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from serve.artifact import Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind, Outcome
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ArtifactError, ParametersRefused
from serve.parameters import checked_parameters, require_options
from serve.settings import EngineSettings, ModelSettings
from serve.task import Computed, Encoded, Passage, Window
from serve.tasks.sentence_similarity import SentenceSimilarity, SimilarityParameters, cosines
from tests.serve.tiny import TEXTS, MakeSource

QUERY = "How long does the battery last?"
# Half a unit of the last digit that is reported, and the noise of float32.
NEAR = 0.6e-4
MakeSentences = Callable[..., Path]


def similarity(**head: Any) -> SentenceSimilarity:
    return SentenceSimilarity(EmbeddingHead(pooling=Pooling(), **head), precision="f32")


def record_of(*vectors: list[float]) -> Computed:
    windows = [[window(vector)] for vector in vectors]
    return Computed(("q", ("t",)), [Passage("q")], windows)


def window(vector: list[float], tokens: int = 3) -> Window:
    encoded = Encoded(np.ones(tokens, dtype=np.int32))
    return Window(encoded, (np.array(vector, dtype=np.float32),))


def scores_of(record: Computed, **parameters: Any) -> list[float]:
    (prediction,) = similarity().predictions([record], SimilarityParameters(**parameters))
    assert not isinstance(prediction, Failure)
    assert prediction.label is None
    assert prediction.confidence is None
    scores: list[float] = orjson.loads(prediction.result)
    return scores


def test_cosines_are_in_the_order_of_the_texts_and_do_not_depend_on_lengths() -> None:
    record = record_of([1, 0], [5, 5], [0, 3], [-2, 0], [0, 0], [1e-9, 0])
    assert scores_of(record) == [0.7071, 0.0, -1.0, 0.0, 1.0]


def test_cosines_are_computed_in_float64() -> None:
    # In float32, the sum of squares of the first would be infinite, of the second zero.
    record = record_of([3e30, 4e30], [4e30, 3e30], [3e-30, 4e-30])
    assert scores_of(record) == [0.96, 1.0]


def test_no_cosine_exceeds_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 3))
    found = np.array([cosines(vector, vector[None])[0] for vector in vectors])
    assert found.max() == 1.0


def test_only_the_first_dimensions_are_compared() -> None:
    record = record_of([1, 0, 7], [1, 1, -9])
    assert scores_of(record, dimensions=2) == [0.7071]


def test_vector_of_windows_is_their_mean_weighted_by_tokens() -> None:
    windows = [window([1, 0], tokens=30), window([0, 1], tokens=10)]
    record = Computed(("q", ("t",)), [Passage("q")], [[window([1, 0])], windows])
    assert scores_of(record) == [round(3 / np.sqrt(10), 4)]


@pytest.mark.parametrize(
    ("prompts", "default", "parameters", "expected"),
    [
        ({}, None, {}, ("", "")),
        ({"query": "Q: ", "document": "D: "}, None, {}, ("Q: ", "D: ")),
        ({"query": "Q: ", "document": ""}, "query", {}, ("Q: ", "")),
        ({"query": "", "document": "D: "}, "document", {}, ("", "D: ")),
        ({"query": "", "document": "", "sts": "S: "}, "sts", {}, ("S: ", "S: ")),
        ({"query": "", "document": "", "sts": "S: "}, None, {}, ("", "")),
        ({"query": "Q: ", "sts": "S: "}, "sts", {"text_prompt_name": "sts"}, ("Q: ", "S: ")),
        ({"query": "Q: ", "none": ""}, None, {"query_prompt_name": "none"}, ("", "")),
    ],
)
def test_query_and_texts_have_their_own_prompts(
    prompts: dict[str, str],
    default: str | None,
    parameters: dict[str, Any],
    expected: tuple[str, str],
) -> None:
    task = similarity(prompts=prompts, default_prompt_name=default)
    passages = task.passages(("a", ("b", "c")), checked_parameters(task, parameters))
    query, text = expected
    assert passages == [Passage(f"{query}a"), Passage(f"{text}b"), Passage(f"{text}c")]


def test_unknown_prompt_is_refused_with_those_of_the_model() -> None:
    task = similarity(prompts={"query": "Q: "})
    with pytest.raises(ParametersRefused, match="no prompt 'doc'; the model has query"):
        checked_parameters(task, {"text_prompt_name": "doc"})


def test_skipped_prompt_cannot_be_replaced() -> None:
    head = EmbeddingHead(
        pooling=Pooling(skip=3), prompts={"a": "A: ", "b": "B: "}, default_prompt_name="a"
    )
    task = SentenceSimilarity(head, precision="f32")
    checked_parameters(task, {"query_prompt_name": "a"})
    with pytest.raises(ParametersRefused, match="skips the tokens of the default prompt"):
        checked_parameters(task, {"query_prompt_name": "b"})


def test_limit_of_texts_has_bounds() -> None:
    for wrong in (0, 10_001):
        with pytest.raises(ParametersRefused, match="max_texts"):
            checked_parameters(similarity(), {"max_texts": wrong})


@pytest.fixture(scope="module")
def make_sentences(
    make_source: MakeSource, tmp_path_factory: pytest.TempPathFactory
) -> MakeSentences:
    """Writes a sentence-transformers directory of a tiny model with the library itself."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling as LibraryPooling
    from sentence_transformers.sentence_transformer.modules import Transformer

    def make(*, include_prompt: bool = True, **options: Any) -> Path:
        directory = tmp_path_factory.mktemp("sentences")
        transformer = Transformer(str(make_source(classifies=False)))
        pooling = LibraryPooling(32, "mean", include_prompt=include_prompt)
        model = SentenceTransformer(modules=[transformer, pooling], device="cpu", **options)
        model.save_pretrained(str(directory))
        return directory

    return make


def value(query: str, texts: list[str]) -> bytes:
    return orjson.dumps({"query": query, "texts": texts})


def results(outcomes: list[Outcome]) -> list[list[float]]:
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(one.result) for one in outcomes if isinstance(one, Answer)]


def replica_of(artifact: Artifact, kind: str) -> Any:
    from serve.replica import Replica

    engine = EngineSettings.model_validate({"kind": kind, "precision": "f32"})
    return Replica(ModelSettings(name="model", path=artifact.path, engine=engine))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The packaged all-MiniLM-L6-v2 for sentence similarity."""
    from serve.importing import import_model

    return import_model(None, tmp_path_factory.mktemp("models") / "out", task="sentence-similarity")


@pytest.fixture(scope="module", params=["torch", "openvino"])
def replica(packaged: Artifact, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = replica_of(packaged, request.param)
    yield opened
    opened.close()


@pytest.mark.model
def test_packaged_model_gives_the_similarities_of_the_library(replica: Any) -> None:
    from sentence_transformers import SentenceTransformer

    from serve.sources import locate

    peer = SentenceTransformer(str(locate(None)), device="cpu")
    texts = [*TEXTS, QUERY, "word " * 600]
    wanted = peer.similarity(peer.encode_query(QUERY), peer.encode_document(texts))[0].numpy()
    ((*found,),) = results(replica.predict([value(QUERY, texts)], CallOptions()).outcomes)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.argsort(found).tolist() == np.argsort(wanted).tolist()
    assert found[len(TEXTS)] == 1.0


@pytest.mark.model
def test_record_alone_has_the_bytes_that_it_has_in_a_batch(replica: Any) -> None:
    records = [value(text, TEXTS[: 1 + place]) for place, text in enumerate(TEXTS)]
    together = replica.predict(records, CallOptions()).outcomes
    alone = [replica.predict([record], CallOptions()).outcomes[0] for record in records]
    results(together)
    assert together == alone


@pytest.mark.model
def test_equal_texts_are_computed_once(replica: Any) -> None:
    records = [value("fine", ["fine", "good", "fine"]), value("good", ["fine"])]
    reply = replica.predict([*records, records[0]], CallOptions())
    first, second, again = results(reply.outcomes)
    assert reply.stats.distinct_texts == 2
    assert first == again
    assert first[0] == first[2] == 1.0
    assert second == [first[1]]


@pytest.mark.model
def test_too_many_texts_are_refused_with_the_name_of_the_limit(replica: Any) -> None:
    many, few = value("fine", ["good"] * 5_000), value("fine", ["good"])
    failed, answered = replica.predict([many, few], CallOptions()).outcomes
    assert failed == Failure(
        FailureKind.TOO_MANY,
        "the field 'texts' has 5,000 elements, but max_texts allows 1,000; send fewer, or raise "
        "max_texts",
    )
    raised = CallOptions(parameters={"max_texts": 5_000})
    ((*scores,),) = results(replica.predict([many], raised).outcomes)
    assert scores == results([answered])[0] * 5_000


@pytest.mark.model
def test_records_without_texts_are_dead_letters(replica: Any) -> None:
    records = [value("fine", []), b'{"query": "fine"}', value("", ["fine"]), value("a", ["b", " "])]
    kinds = [one.kind for one in replica.predict(records, CallOptions()).outcomes]
    empty = FailureKind.EMPTY_TEXT
    assert kinds == [empty, FailureKind.NO_TEXT, empty, empty]


@pytest.mark.model
def test_long_texts_are_compared_in_windows(replica: Any) -> None:
    long = "The battery lasts two days. " * 60 + "The parcel came late. " * 60
    records = [value("The parcel came late.", [long])]
    ((cut,),) = results(replica.predict(records, CallOptions()).outcomes)
    answer = replica.predict(records, CallOptions(long_text="window")).outcomes[0]
    ((divided,),) = results([answer])
    assert divided > cut + 0.1
    assert not answer.truncated


@pytest.mark.model
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_prompts_are_those_of_the_library(
    make_sentences: MakeSentences, tmp_path: Path, kind: str
) -> None:
    from sentence_transformers import SentenceTransformer

    from serve.importing import import_model

    prompts = {"query": "Find this: ", "document": "A text about ", "sts": "Compare: "}
    source = make_sentences(prompts=prompts)
    artifact = import_model(str(source), tmp_path / "out", task="sentence-similarity")
    opened = replica_of(artifact, kind)
    peer = SentenceTransformer(str(source), device="cpu")
    names = {"query_prompt_name": "sts", "text_prompt_name": "sts"}
    for parameters, query, texts in (
        ({}, peer.encode_query(QUERY), peer.encode_document(TEXTS)),
        (names, peer.encode(QUERY, prompt_name="sts"), peer.encode(TEXTS, prompt_name="sts")),
    ):
        wanted = peer.similarity(query, texts)[0].numpy()
        options = CallOptions(parameters=parameters)
        ((*found,),) = results(opened.predict([value(QUERY, TEXTS)], options).outcomes)
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    opened.close()
    plain = peer.similarity(peer.encode(QUERY), peer.encode(TEXTS))[0].numpy()
    assert np.abs(found - plain).max() > 10 * NEAR  # the prompts matter


@pytest.mark.model
def test_dimensions_are_those_of_the_library(packaged: Artifact, replica: Any) -> None:
    from sentence_transformers import SentenceTransformer

    from serve.sources import locate

    peer = SentenceTransformer(str(locate(None)), device="cpu", truncate_dim=64)
    wanted = peer.similarity(peer.encode(QUERY), peer.encode(TEXTS))[0].numpy()
    options = CallOptions(parameters={"dimensions": 64})
    require_options(packaged.card, options)
    ((*found,),) = results(replica.predict([value(QUERY, TEXTS)], options).outcomes)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.model
def test_pooling_that_skips_different_prompts_is_refused(
    make_sentences: MakeSentences, tmp_path: Path
) -> None:
    from serve.importing import import_model

    out = tmp_path / "out"
    for prompts, default in (
        ({"query": "Find this: ", "document": ""}, None),
        ({"query": "Find this: ", "document": ""}, "query"),
        ({"sts": "Compare: "}, None),
    ):
        source = make_sentences(
            include_prompt=False, prompts=dict(prompts), default_prompt_name=default
        )
        with pytest.raises(ArtifactError, match="the pooling skips the tokens of a prompt"):
            import_model(str(source), out, task="sentence-similarity")


@pytest.mark.model
def test_pooling_that_skips_the_default_prompt_is_that_of_the_library(
    make_sentences: MakeSentences, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    from serve.importing import import_model

    source = make_sentences(
        include_prompt=False, prompts={"sts": "Compare: "}, default_prompt_name="sts"
    )
    artifact = import_model(str(source), tmp_path / "out", task="sentence-similarity")
    opened = replica_of(artifact, "torch")
    peer = SentenceTransformer(str(source), device="cpu")
    wanted = peer.similarity(peer.encode(QUERY), peer.encode(TEXTS))[0].numpy()
    ((*found,),) = results(opened.predict([value(QUERY, TEXTS)], CallOptions()).outcomes)
    opened.close()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.model
def test_vectors_of_tokens_are_refused(make_source: MakeSource, tmp_path: Path) -> None:
    from serve.importing import import_model

    source = str(make_source(classifies=False))
    with pytest.raises(ArtifactError, match="compares one vector for each text"):
        import_model(source, tmp_path, task="sentence-similarity", head={"tokens": True})
