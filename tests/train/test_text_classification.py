"""Real training, from a file to a model directory that a replica serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from transformers import BertConfig, BertModel

from ops.demo.stream import REVIEWS
from serve.artifact import Artifact, load
from serve.contract import Answer, CallOptions
from serve.errors import ArtifactError
from serve.replica import Replica
from serve.settings import EngineSettings, ModelSettings
from serve.sources import locate
from serve.tasks.text_classification import ClassificationHead
from train.settings import TextClassificationSettings
from train.text_classification import train

pytestmark = pytest.mark.model


def ignore(step: int, total: int, loss: float | None) -> None:
    pass


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("trained") / "sentiment"
    return train(TextClassificationSettings(data=REVIEWS, out=out), ignore)


def test_frozen_encoder_learns_the_reviews(sentiment: Artifact) -> None:
    accuracy = {metric.name: metric.value for metric in sentiment.card.metrics}["accuracy"]
    assert accuracy >= 0.85
    assert sentiment.card.labels == ("negative", "positive")
    assert len(sentiment.golden()) == 32
    reference = sentiment.reference()
    assert reference is not None
    assert reference.texts == sum(reference.labels.values())


def test_served_answers_are_the_trained_ones(sentiment: Artifact) -> None:
    replica = Replica(
        ModelSettings(name="s", path=sentiment.path, engine=EngineSettings(precision="f32"))
    )
    golden = sentiment.golden()
    reply = replica.predict([record.value for record in golden], CallOptions())
    replica.close()
    for record, outcome in zip(golden, reply.outcomes, strict=True):
        assert isinstance(outcome, Answer)
        served = {row["label"]: row["score"] for row in orjson.loads(outcome.result)}
        trained = {row["label"]: row["score"] for row in record.result if isinstance(row, dict)}
        for label, score in trained.items():
            assert served[label] == pytest.approx(score, abs=2e-3)


def tiny_base(folder: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    base = folder / "base"
    BertModel(config).save_pretrained(base)
    packaged = locate(None) / "tokenizer.json"
    (base / "tokenizer.json").write_bytes(packaged.read_bytes())
    return base


def written(folder: Path, rows: list[dict[str, object]]) -> Path:
    file = folder / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_full_fine_tuning_lowers_the_loss(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": f"{'sun' if n % 2 else 'rain'} number {n}", "label": "ab"[n % 2]}
        for n in range(120)
    ]
    losses: list[float] = []
    golden = tmp_path / "golden.txt"
    golden.write_text('rain again\n{"text": "the sun", "exact": true}\n')

    def note(step: int, total: int, loss: float | None) -> None:
        if loss is not None:
            losses.append(loss)

    settings = TextClassificationSettings(
        data=written(tmp_path, rows),
        out=tmp_path / "out",
        base=str(tiny_base(tmp_path)),
        freeze="none",
        golden=golden,
        epochs=8,
        encoder_lr=2e-3,
        head_lr=5e-3,
        batch_items=8,
    )
    artifact = train(settings, note)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert load(tmp_path / "out").digest == artifact.digest
    named = [(record.text, record.exact) for record in artifact.golden()[:2]]
    assert named == [("rain again", False), ("the sun", True)]
    assert len(artifact.golden()) > 2  # those that it never saw


def test_several_labels_get_scores_of_their_own(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {
            "text": f"{'cold ' * (n % 2)}{'dear ' * (n % 3 == 0)}thing {n}",
            "labels": ["cold"] * (n % 2) + ["dear"] * (n % 3 == 0),
        }
        for n in range(120)
    ]
    settings = TextClassificationSettings(
        data=written(tmp_path, rows), out=tmp_path / "out", multi_label=True, epochs=30
    )
    artifact = train(settings, ignore)
    assert isinstance(artifact.card.head, ClassificationHead)
    assert artifact.card.head.problem_type == "multi_label"
    replica = Replica(ModelSettings(name="m", path=artifact.path))
    reply = replica.predict([b"cold dear thing 5"], CallOptions(format="text"))
    replica.close()
    outcome = reply.outcomes[0]
    assert isinstance(outcome, Answer)
    scores = [row["score"] for row in orjson.loads(outcome.result)]
    assert sum(scores) > 1.2


def test_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(step: int, total: int, loss: float | None) -> None:
        if loss is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(TextClassificationSettings(data=REVIEWS, out=tmp_path / "m"), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    with pytest.raises(ArtifactError, match="already exists"):
        train(TextClassificationSettings(data=REVIEWS, out=taken), ignore)
    with pytest.raises(ArtifactError, match="512 positions"):
        train(TextClassificationSettings(data=REVIEWS, out=tmp_path / "n", max_length=600), ignore)
