"""Models for next sentences with random weights, beside transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from transformers import (
    AutoModelForNextSentencePrediction,
    AutoTokenizer,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertModel,
)

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.contract import Answer, CallOptions, Failure, FailureKind
from serve.errors import ArtifactError, ParametersRefused
from serve.golden_texts import GoldenText
from serve.importing import import_model
from serve.parameters import require_options
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.task import Division, Passage
from serve.tasks.next_sentence_prediction import NextSentenceHead, NextSentencePrediction
from serve.tokenize import TextTokenizer
from tests.serve.tiny import TEXTS, tiny_config

pytestmark = pytest.mark.model

LIMIT = 64
PAIRS = [*pairwise(TEXTS), ("fine", "fine"), (TEXTS[-1], TEXTS[-1])]
LABELS = ("is_next", "not_next")


def next_source(directory: Path, architecture: Any = BertForNextSentencePrediction) -> Path:
    torch.manual_seed(5)
    architecture(tiny_config(initializer_range=0.3)).save_pretrained(directory)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, directory / TOKENIZER_FILE)
    (directory / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LIMIT}))
    return directory


def imported(source: Path, out: Path, **more: Any) -> Artifact:
    return import_model(str(source), out, task="next-sentence-prediction", **more)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next_source(tmp_path_factory.mktemp("next"))


@pytest.fixture(scope="module")
def artifact(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return imported(source, tmp_path_factory.mktemp("models") / "model")


def opened(artifact: Artifact, kind: Any) -> Replica:
    engine = EngineSettings(kind=kind, precision="f32", threads=1)
    return Replica(ModelSettings(name="next", path=artifact.path, engine=engine))


@pytest.fixture(scope="module", params=["openvino", "torch"])
def replica(request: pytest.FixtureRequest, artifact: Artifact) -> Iterator[Replica]:
    found = opened(artifact, request.param)
    yield found
    found.close()


def value(text: str, pair: str) -> bytes:
    return orjson.dumps({"text": text, "text_pair": pair})


def answers(replica: Replica, pairs: list[tuple[str, str]], **options: Any) -> list[Answer]:
    values = [value(*pair) for pair in pairs]
    outcomes = replica.predict(values, CallOptions(**options)).outcomes
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Answer)]


def tensor(row: Any) -> torch.Tensor:
    return torch.from_numpy(row).long()[None]


def expected_scores(source: Path, pair: tuple[str, str]) -> dict[str, float]:
    model = AutoModelForNextSentencePrediction.from_pretrained(source).eval()
    tokens = AutoTokenizer.from_pretrained(source)(*pair, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return dict(zip(LABELS, model(**tokens).logits[0].softmax(-1).tolist(), strict=True))


def test_scores_are_those_of_transformers(replica: Replica, source: Path) -> None:
    winners = set()
    for pair, answer in zip(PAIRS, answers(replica, PAIRS), strict=True):
        result = orjson.loads(answer.result)
        scores = {item["label"]: item["score"] for item in result}
        expected = expected_scores(source, pair)
        assert scores == pytest.approx(expected, abs=1e-4)
        assert [item["label"] for item in result] == sorted(expected, key=lambda n: -expected[n])
        assert (answer.label, answer.confidence) == (result[0]["label"], result[0]["score"])
        winners.add(answer.label)
    assert winners == set(LABELS)


def test_alone_and_in_a_batch_the_bytes_are_the_same(replica: Replica) -> None:
    for pair, answer in zip(PAIRS, answers(replica, PAIRS), strict=True):
        assert answers(replica, [pair]) == [answer]


def test_windows_are_averaged_by_their_tokens(
    replica: Replica, artifact: Artifact, source: Path
) -> None:
    pair = (" ".join(TEXTS), TEXTS[1])
    (windows,) = TextTokenizer.of(artifact).divide([Passage(*pair)], Division(True, 8))
    assert not isinstance(windows, Failure)
    assert len(windows) > 1
    model = AutoModelForNextSentencePrediction.from_pretrained(source).eval()
    with torch.no_grad():
        logits = [
            model(*map(tensor, (w.ids, np.ones_like(w.ids), w.types))).logits[0].numpy()
            for w in windows
        ]
    average = np.average(logits, axis=0, weights=[len(w.ids) for w in windows])
    expected = dict(zip(LABELS, torch.tensor(average).softmax(-1).tolist(), strict=True))

    (answer,) = answers(replica, [pair], long_text="window", window_stride=8)
    scores = {item["label"]: item["score"] for item in orjson.loads(answer.result)}
    assert scores == pytest.approx(expected, abs=1e-4)


def test_a_record_without_a_second_text_fails(replica: Replica) -> None:
    values = [b'{"text": "fine"}', b'{"text": "fine", "text_pair": " "}', value("fine", "day")]
    missing, empty, whole = replica.predict(values, CallOptions()).outcomes

    assert isinstance(missing, Failure)
    assert missing.kind == FailureKind.NO_TEXT
    assert "'text_pair'" in missing.message
    assert isinstance(empty, Failure)
    assert empty.kind == FailureKind.EMPTY_TEXT
    assert isinstance(whole, Answer)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (CallOptions(format="text"), "needs text and text_pair"),
        (CallOptions(parameters={"top_k": 1}), "there is no top_k"),
    ],
)
def test_wrong_options_are_refused(artifact: Artifact, options: CallOptions, fault: str) -> None:
    with pytest.raises(ParametersRefused, match=fault):
        require_options(artifact.card, options)


def test_a_pretrained_model_with_both_heads_is_imported(tmp_path: Path) -> None:
    source = next_source(tmp_path / "source", BertForPreTraining)
    replica = opened(imported(source, tmp_path / "out"), "torch")
    (answer,) = answers(replica, PAIRS[:1])
    replica.close()

    scores = {item["label"]: item["score"] for item in orjson.loads(answer.result)}
    assert scores == pytest.approx(expected_scores(source, PAIRS[0]), abs=1e-4)


def test_a_model_without_the_head_is_refused(tmp_path: Path) -> None:
    source = next_source(tmp_path / "source", BertModel)
    with pytest.raises(ArtifactError, match="made for another task"):
        imported(source, tmp_path / "out")


@pytest.mark.parametrize("head", [{"labels": ["a", "b"]}, {"classes": 2}])
def test_the_head_cannot_be_changed(source: Path, tmp_path: Path, head: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="next-sentence-prediction: "):
        imported(source, tmp_path / "out", head=head)


def test_golden_texts_are_answered_in_every_engine(source: Path, tmp_path: Path) -> None:
    golden = [GoldenText({"text": one, "text_pair": other}) for one, other in PAIRS[:3]]
    artifact = imported(source, tmp_path / "out", golden=golden)

    for kind in ("openvino", "torch"):
        opened(artifact, kind).close()


def test_a_task_needs_only_its_head() -> None:
    task = NextSentencePrediction(NextSentenceHead(), precision="f32")
    assert task.passages(("a", "b"), task.parameters_type()) == [Passage("a", "b")]
