"""Ranking of texts: scores beside those of a CrossEncoder, the order, agreement and refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from serve.agreement import TOLERANCES, Ranking
from serve.artifact import Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind, Outcome
from serve.errors import ArtifactError, ParametersRefused
from serve.parameters import checked_parameters
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.task import Computed, Encoded, Passage, Prediction, Window
from serve.tasks.text_ranking import RankingHead, RankingParameters, TextRanking
from tests.serve.tiny import TEXTS, MakeSource

QUERY = "How long does the battery last?"
SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
Edit = Callable[..., Path]


def predicted(*logits: Sequence[float], head: RankingHead | None = None, **parameters: Any) -> Any:
    """Return the prediction for texts a, b, ... with the logits of their windows."""
    passages = [Passage("q", chr(97 + place)) for place in range(len(logits))]
    encoded = Encoded(np.ones(3, dtype=np.int32))
    windows = [
        [Window(encoded, (np.array([logit], dtype=np.float32),)) for logit in own] for own in logits
    ]
    texts = tuple(str(passage.pair) for passage in passages)
    task = TextRanking(head or RankingHead(), precision="f32")
    (prediction,) = task.predictions(
        [Computed(("q", texts), passages, windows)], RankingParameters(**parameters)
    )
    assert isinstance(prediction, Prediction)
    assert prediction.label is None
    return prediction


def ranked(*logits: float, **parameters: Any) -> list[tuple[int, float]]:
    result = orjson.loads(predicted(*([one] for one in logits), **parameters).result)
    return [(item["index"], item["score"]) for item in result]


def test_texts_are_best_first_with_their_indices() -> None:
    assert ranked(-1.0, 2.0, 0.0) == [(1, 0.8808), (2, 0.5), (0, 0.2689)]


def test_texts_with_equal_scores_stay_in_their_order() -> None:
    assert [index for index, _ in ranked(0.0, 1.0, 0.0, 1.0)] == [1, 3, 0, 2]


def test_texts_that_the_sigmoid_maps_to_one_score_are_in_the_order_of_the_numbers() -> None:
    assert ranked(-14.0, 11.0, -12.0, 13.0) == [(3, 1.0), (1, 1.0), (2, 0.0), (0, 0.0)]


def test_digits_that_are_not_reported_do_not_change_the_order() -> None:
    assert ranked(0.1, 0.10000001, 3.0) == [(2, 0.9526), (0, 0.525), (1, 0.525)]


def test_score_without_activation_is_the_number_and_no_confidence() -> None:
    plain = RankingHead(activation="none")
    prediction = predicted([-2.5], [11.123456], head=plain)
    assert prediction.result == b'[{"index":1,"score":11.1235},{"index":0,"score":-2.5}]'
    assert prediction.confidence is None
    assert predicted([0.0], head=plain, activation="sigmoid").confidence == 0.5
    assert predicted([0.0]).confidence == 0.5
    assert predicted([-1e-9], activation="none").result == b'[{"index":0,"score":0.0}]'


def test_result_has_the_best_texts_where_asked() -> None:
    assert ranked(0.0, 2.0, 1.0, top_k=2) == [(1, 0.8808), (2, 0.7311)]
    result = orjson.loads(predicted([0.0], [2.0], return_documents=True).result)
    assert result == [
        {"index": 1, "score": 0.8808, "text": "b"},
        {"index": 0, "score": 0.5, "text": "a"},
    ]


def test_text_in_windows_has_the_score_of_the_best() -> None:
    result = orjson.loads(predicted([0.5], [-3.0, 1.0, -2.0]).result)
    assert result == [{"index": 1, "score": 0.7311}, {"index": 0, "score": 0.6225}]


def test_only_the_text_is_divided_into_windows() -> None:
    task = TextRanking(RankingHead(), precision="f32")
    parameters = RankingParameters()
    windows = task.division(windows=True, stride=8, parameters=parameters)
    assert (windows.truncation, windows.windows, windows.stride) == ("only_second", True, 8)
    cut = task.division(windows=False, stride=8, parameters=parameters)
    assert (cut.truncation, cut.windows) == ("longest_first", False)


def test_prompt_is_before_the_query() -> None:
    task = TextRanking(RankingHead(prompt="Find: "), precision="f32")
    passages = task.passages(("q", ("a", "b")), RankingParameters())
    assert passages == [Passage("Find: q", "a"), Passage("Find: q", "b")]


def test_wrong_parameters_are_refused() -> None:
    task = TextRanking(RankingHead(), precision="f32")
    for wrong in ({"top_k": 0}, {"max_texts": 10_001}, {"activation": "tanh"}, {"topk": 1}):
        with pytest.raises(ParametersRefused, match=next(iter(wrong))):
            checked_parameters(task, wrong)


def scored(**scores: float) -> list[dict[str, Any]]:
    """Return a ranking of the texts _0, _1, ..., in this order."""
    return [{"index": int(name[1:]), "score": score} for name, score in scores.items()]


EXPECTED = scored(_2=0.9, _0=0.5, _1=0.495)


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (EXPECTED, None),
        (scored(_2=0.905, _1=0.497, _0=0.496), None),
        (scored(_2=0.88, _0=0.5, _1=0.495), "text 2 scores 0.88, expected 0.9"),
        (scored(_0=0.9, _2=0.5, _1=0.495), "text 2 scores 0.5, expected 0.9"),
        (scored(_2=0.9, _0=0.5), "it has 2 texts, expected 3"),
        (scored(_2=0.9, _0=0.5, _7=0.49), None),
        (scored(_2=0.9, _0=0.5, _7=0.3), "text 1 scores 0.3, expected 0.495"),
    ],
)
def test_scores_are_compared_by_index(found: Any, difference: str | None) -> None:
    assert Ranking().difference(found, EXPECTED, TOLERANCES["f32"]) == difference


def test_tolerance_grows_with_scores_that_have_no_bound() -> None:
    agreement, tolerance = Ranking(), TOLERANCES["f32"]
    expected = scored(_0=10.0, _1=-2.0)
    assert agreement.difference(scored(_0=10.08, _1=-2.08), expected, tolerance) is None
    assert agreement.difference(scored(_0=10.2, _1=-2.0), expected, tolerance) is not None
    assert agreement.same_for_people(expected, scored(_0=10.9, _1=-2.9))
    assert not agreement.same_for_people(expected, scored(_0=11.1, _1=-2.0))


def test_best_text_may_be_either_of_two_near_ones() -> None:
    agreement, tolerance = Ranking(), TOLERANCES["f32"]
    near = scored(_0=0.5, _1=0.49, _2=0.1)
    assert agreement.same_best(scored(_1=0.5, _0=0.49, _2=0.1), near, tolerance)
    assert not agreement.same_best(scored(_2=0.5, _0=0.49, _1=0.1), near, tolerance)
    assert not agreement.same_best(scored(_3=0.5), near, tolerance)


def test_people_see_another_best_text_and_large_shifts() -> None:
    agreement = Ranking()
    before = scored(_0=0.9, _1=0.3, _2=0.25)
    assert agreement.same_for_people(before, scored(_0=0.85, _2=0.3, _1=0.27))
    assert not agreement.same_for_people(before, scored(_0=0.9, _1=0.3, _2=0.05))
    near = scored(_0=0.9, _1=0.89)
    assert not agreement.same_for_people(near, scored(_1=0.9, _0=0.89))
    assert not agreement.same_for_people(before, before[:2])
    assert agreement.answer(before) == "text 0"
    assert agreement.cosine(before, before) is None


@pytest.fixture(scope="module")
def tiny(make_source: MakeSource) -> Path:
    return make_source(num_labels=1)


@pytest.fixture
def edit(tiny: Path, tmp_path: Path) -> Edit:
    """Copies the tiny cross-encoder with changes to its JSON files."""

    def copied(**files: Any) -> Path:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(tiny, source)
        for name, content in files.items():
            file = source / f"{name}.json"
            before = orjson.loads(file.read_bytes()) if file.exists() else None
            file.write_bytes(orjson.dumps(before | content if before else content))
        return source

    return copied


def imported(source: Path, out: Path, **options: Any) -> Artifact:
    from serve.importing import import_model

    return import_model(str(source), out, task="text-ranking", **options)


def replica_of(artifact: Artifact, kind: str = "torch") -> Any:
    from serve.replica import Replica

    engine = EngineSettings.model_validate({"kind": kind, "precision": "f32"})
    return Replica(ModelSettings(name="model", path=artifact.path, engine=engine))


def value(query: str, texts: Sequence[str]) -> bytes:
    return orjson.dumps({"query": query, "texts": texts})


def results(outcomes: list[Outcome]) -> list[list[dict[str, Any]]]:
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [orjson.loads(one.result) for one in outcomes if isinstance(one, Answer)]


def require_same_as_library(replica: Any, peer: Any, texts: list[str]) -> None:
    (found,) = results(replica.predict([value(QUERY, texts)], CallOptions()).outcomes)
    wanted = peer.predict([(QUERY, text) for text in texts])
    scores = {item["index"]: item["score"] for item in found}
    np.testing.assert_allclose([scores[place] for place in range(len(texts))], wanted, atol=1e-4)
    order = [item["corpus_id"] for item in peer.rank(QUERY, texts)]
    assert [item["index"] for item in found] == order
    assert wanted.max() - wanted.min() > 0.05


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged all-MiniLM-L6-v2 with a random head of one output."""
    import torch
    from transformers import BertForSequenceClassification

    directory = tmp_path_factory.mktemp("cross-encoder")
    model = BertForSequenceClassification.from_pretrained(locate(None), num_labels=1)
    torch.manual_seed(11)
    torch.nn.init.normal_(model.bert.pooler.dense.weight, std=0.2)
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(directory)
    for file in locate(None).glob("*token*"):
        shutil.copyfile(file, directory / file.name)
    return directory


@pytest.fixture(scope="module")
def artifact(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return imported(packaged, tmp_path_factory.mktemp("models") / "out")


@pytest.fixture(scope="module", params=["torch", "openvino"])
def replica(artifact: Artifact, request: pytest.FixtureRequest) -> Iterator[Any]:
    opened = replica_of(artifact, request.param)
    yield opened
    opened.close()


@pytest.mark.model
def test_scores_and_order_are_those_of_the_library(packaged: Path, replica: Any) -> None:
    from sentence_transformers import CrossEncoder

    texts = [*TEXTS, QUERY, "word " * 600, "The battery lasts two days."]
    require_same_as_library(replica, CrossEncoder(str(packaged), device="cpu"), texts)


@pytest.mark.model
def test_long_queries_are_cut_as_in_the_library(packaged: Path, replica: Any) -> None:
    from sentence_transformers import CrossEncoder

    query = "battery and screen " * 200
    texts = ["fine", "The battery lasts two days. " * 10, "not good, not bad " * 300]
    wanted = CrossEncoder(str(packaged), device="cpu").predict([(query, text) for text in texts])
    outcomes = replica.predict([value(query, texts)], CallOptions()).outcomes
    (found,) = results(outcomes)
    by_index = sorted(found, key=lambda item: int(item["index"]))
    np.testing.assert_allclose([item["score"] for item in by_index], wanted, atol=1e-4)
    assert outcomes[0].truncated


@pytest.mark.model
def test_record_alone_has_the_bytes_that_it_has_in_a_batch(replica: Any) -> None:
    records = [value(text, TEXTS[: 1 + place]) for place, text in enumerate(TEXTS)]
    together = replica.predict(records, CallOptions()).outcomes
    alone = [replica.predict([record], CallOptions()).outcomes[0] for record in records]
    results(together)
    assert together == alone


@pytest.mark.model
def test_equal_pairs_are_computed_once(replica: Any) -> None:
    records = [value("fine", ["good", "bad", "good"]), value("fine", ["good"])]
    reply = replica.predict([*records, records[0]], CallOptions())
    first, second, again = results(reply.outcomes)
    assert reply.stats.distinct_texts == 2
    assert first == again
    scores = {item["index"]: item["score"] for item in first}
    assert scores[0] == scores[2] == second[0]["score"]


@pytest.mark.model
def test_too_many_texts_are_refused_with_the_name_of_the_limit(replica: Any) -> None:
    many, few = value("fine", ["good"] * 5_000), value("fine", ["good"])
    failed, answered = replica.predict([many, few], CallOptions()).outcomes
    assert isinstance(answered, Answer)
    assert failed == Failure(
        FailureKind.TOO_MANY,
        "the field 'texts' has 5,000 elements, but max_texts allows 1,000; send fewer, or raise "
        "max_texts",
    )
    raised = CallOptions(parameters={"max_texts": 5_000})
    (found,) = results(replica.predict([many], raised).outcomes)
    assert [item["index"] for item in found] == list(range(5_000))


@pytest.mark.model
def test_records_without_texts_are_dead_letters(replica: Any) -> None:
    records = [value("fine", []), b'{"query": "fine"}', value("", ["fine"]), value("a", ["b", " "])]
    kinds = [one.kind for one in replica.predict(records, CallOptions()).outcomes]
    empty = FailureKind.EMPTY_TEXT
    assert kinds == [empty, FailureKind.NO_TEXT, empty, empty]


@pytest.mark.model
def test_windows_have_the_whole_query_and_the_best_counts(tiny: Path, tmp_path: Path) -> None:
    opened = replica_of(imported(tiny, tmp_path / "out"))
    options = CallOptions(long_text="window", window_stride=0)
    # Of the 64 tokens, the query has 3 and three are special, so 58 words fill a window.
    parts = [" ".join([word] * 58) for word in ("good", "late", "box")]
    query = "is it late"
    divided, each = results(
        opened.predict([value(query, [" ".join(parts)]), value(query, parts)], options).outcomes
    )
    tight = value("word " * 60, ["a long text " * 40, "fine"])
    too_long = value("word " * 200, ["fine"])
    ranked_tight, failed = opened.predict([tight, too_long], options).outcomes
    opened.close()
    assert divided == [{"index": 0, "score": each[0]["score"]}]
    assert isinstance(ranked_tight, Answer)
    assert isinstance(failed, Failure)
    assert failed.kind is FailureKind.TOO_LONG


@pytest.mark.model
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"config": {"sentence_transformers": {"activation_fn": IDENTITY}}},
        {"config": {"sentence_transformers": {"activation_fn": SIGMOID}}},
        {"config": {"sentence_transformers": {"activation_fn": None}}},
        {"config": {"sbert_ce_default_activation_function": IDENTITY}},
        {"config": {"sbert_ce_default_activation_function": "torch.nn.Identity"}},
        {
            "config": {
                "sbert_ce_default_activation_function": IDENTITY,
                "sentence_transformers": {"activation_fn": SIGMOID},
            }
        },
        # Without modules, the library does not read this file.
        {"config_sentence_transformers": {"activation_fn": IDENTITY, "model_type": "CrossEncoder"}},
    ],
)
def test_activation_is_that_of_the_library(
    edit: Edit, tmp_path: Path, files: dict[str, Any]
) -> None:
    from sentence_transformers import CrossEncoder

    source = edit(**files)
    artifact = imported(source, tmp_path / "out")
    peer = CrossEncoder(str(source), device="cpu")
    found = {"sigmoid": "Sigmoid", "none": "Identity"}[artifact.card.head.activation]  # type: ignore[attr-defined]
    assert found == type(peer.activation_fn).__name__
    opened = replica_of(artifact)
    require_same_as_library(opened, peer, TEXTS)
    opened.close()


@pytest.mark.model
@pytest.mark.parametrize("activation", ["Identity", "Sigmoid", None])
def test_directory_that_the_library_saved_gives_its_scores(
    tiny: Path, tmp_path: Path, activation: str | None
) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    made = CrossEncoder(
        str(tiny),
        device="cpu",
        max_length=40,
        activation_fn=getattr(torch.nn, activation)() if activation else None,
        prompts={"web": "Search the web: "},
        default_prompt_name="web" if activation else None,
    )
    source = tmp_path / "saved"
    made.save_pretrained(str(source))
    artifact = imported(source, tmp_path / "out")
    assert artifact.card.max_length == 40
    opened = replica_of(artifact)
    require_same_as_library(opened, CrossEncoder(str(source), device="cpu"), TEXTS)
    opened.close()


TRANSFORMER = {"type": "sentence_transformers.base.modules.transformer.Transformer", "path": ""}
SAVED = {
    "modules": [TRANSFORMER],
    "config_sentence_transformers": {"model_type": "CrossEncoder"},
}


@pytest.mark.model
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config": {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}},
            r"config.json: the activation is torch.nn.Tanh, but only Sigmoid and Identity",
        ),
        (
            {"config": {"sbert_ce_default_activation_function": "own.Act"}},
            "the activation is own.Act",
        ),
        (
            SAVED
            | {
                "config_sentence_transformers": {
                    "model_type": "CrossEncoder",
                    "activation_fn": "torch.nn.modules.activation.ReLU",
                }
            },
            "config_sentence_transformers.json: the activation is torch.nn.modules.activation.ReLU",
        ),
        (
            SAVED
            | {
                "config_sentence_transformers": {
                    "model_type": "CrossEncoder",
                    "default_prompt_name": "web",
                }
            },
            "default_prompt_name is 'web', but prompts has no such text",
        ),
        (
            SAVED
            | {
                "modules": [
                    TRANSFORMER,
                    {"type": "sentence_transformers.base.modules.dense.Dense", "path": "1_Dense"},
                ]
            },
            "has the modules Transformer, Dense, but only one Transformer",
        ),
        (SAVED | {"modules": [{"type": "own.Net", "path": ""}]}, "own.Net is custom code"),
        (SAVED | {"modules": {}}, "must list modules"),
        (
            SAVED | {"sentence_bert_config": {"max_seq_length": 20}},
            "max_seq_length is 20, which is not supported",
        ),
        (
            SAVED | {"sentence_bert_config": {"transformer_task": "text-generation"}},
            "transformer_task is 'text-generation', which is not supported",
        ),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    edit: Edit, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        imported(edit(**files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.model
def test_own_activation_replaces_what_is_refused(edit: Edit, tmp_path: Path) -> None:
    source = edit(config={"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}})
    artifact = imported(source, tmp_path / "out", head={"activation": "none"})
    assert artifact.card.head == RankingHead(activation="none")


@pytest.mark.model
def test_model_without_a_head_of_one_output_is_refused(
    make_source: MakeSource, tmp_path: Path
) -> None:
    for labels in (2, 3):
        source = make_source(num_labels=labels)
        with pytest.raises(
            ArtifactError,
            match=f"has {labels} labels, but text-ranking needs a cross-encoder whose head has one",
        ):
            imported(source, tmp_path / "out")
    with pytest.raises(ArtifactError, match="made for another task"):
        imported(make_source(classifies=False), tmp_path / "out")


@pytest.mark.model
def test_golden_record_is_answered_again(tiny: Path, tmp_path: Path) -> None:
    from serve.golden_texts import GoldenText

    record = {"query": "fine", "texts": TEXTS}
    artifact = imported(tiny, tmp_path / "out", golden=[GoldenText(record)])
    (golden,) = artifact.golden()
    opened = replica_of(artifact, "openvino")
    (found,) = results(opened.predict([golden.value], CallOptions()).outcomes)
    opened.close()
    assert [item["index"] for item in found] == [item["index"] for item in golden.result]
