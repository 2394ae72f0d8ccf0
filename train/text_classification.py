"""Training of a text classifier: from labelled texts to a sealed model directory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from serve.artifact import (
    REFERENCE_FILE,
    TOKENIZER_FILE,
    Artifact,
    ModelCard,
    load,
    seal,
    write_card,
)
from serve.checkpoint import library
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
from serve.engine.torch import TorchEngine
from serve.golden_texts import GoldenText, add_golden, read_golden_texts
from serve.importing import import_model
from serve.module import attention_of, build_module, read_config
from serve.output import new_directory, require_free
from serve.scores import sigmoid, softmax
from serve.tasks.text_classification import ClassificationHead
from serve.tokenize import TextTokenizer
from train.data import Example, Prepared, Splits, file_sha256, prepare
from train.evaluate import Labelling, Predictions, evaluate, reference
from train.loop import Dataset, OnTrainingStep, choose_compute, fit
from train.settings import TextClassificationSettings

GOLDEN_TEXTS = 32
PROBLEM_TYPES: dict[Labelling, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
}

logger = logging.getLogger(__name__)


def train(
    settings: TextClassificationSettings,
    progress: OnTrainingStep,
    prepared: Prepared | None = None,
) -> Artifact:
    """Fine-tune a base model into a text classifier and seal its directory.

    All work is done in a hidden directory next to ``settings.out``, which is renamed to it at
    the end: an interruption leaves nothing behind.

    Args:
        progress: Called after every step with steps done, total steps, and the loss or None.
        prepared: Contents of ``settings.data``, where it was read already.
    Returns:
        The artifact at ``settings.out``; its card has the metrics on held-out texts.
    Raises:
        DataError: The training file cannot be used. Not retriable.
        BaseUnsupported: The base's encoder cannot be frozen. Not retriable.
        TrainingDiverged: The loss was never a finite number. Not retriable.
        ArtifactError: The base or the golden texts cannot be read, or ``settings.out`` is taken
            or cannot be written. Not retriable.
        EngineUnavailable: The settings require a GPU and there is none. Not retriable.
    """
    out = settings.out
    require_free(out)
    golden = read_golden_texts(settings.golden) if settings.golden else []
    labels, splits, _ = prepared or prepare(settings)
    with new_directory(out) as work:
        base = import_model(
            settings.base,
            work / "base",
            task="feature-extraction",
            max_length=settings.max_length,
        )
        model_dir = work / "model"
        trained = _fine_tune(base, model_dir, splits, labels, settings=settings, progress=progress)
        held_out = _describe(trained, splits.test, settings)
        add_golden(load(model_dir), [*golden, *held_out])
    return load(out)


def _fine_tune(
    base: Artifact,
    out: Path,
    splits: Splits,
    labels: tuple[str, ...],
    *,
    settings: TextClassificationSettings,
    progress: OnTrainingStep,
) -> Artifact:
    """Write the trained network with its tokeniser and a card without metrics."""
    problem_type = _problem_type(settings)
    torch.manual_seed(settings.seed)  # the head's initial weights are random
    config = read_config(AutoModelForSequenceClassification, base.path)
    with library(base.path, "transformers cannot add a classifier to it"):
        model = AutoModelForSequenceClassification.from_pretrained(
            base.path,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            problem_type=PROBLEM_TYPES[problem_type],
            dtype=torch.float32,
            attn_implementation=attention_of(AutoModelForSequenceClassification, config),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    tokenizer = TextTokenizer.of(base)
    datasets = [_dataset(part, tokenizer, labels, problem_type) for part in splits[:2]]
    fit(model, *datasets, settings=settings, tokenizer=tokenizer, progress=progress)
    model.save_pretrained(out, max_shard_size="1TB")
    shutil.copyfile(base.path / TOKENIZER_FILE, out / TOKENIZER_FILE)
    card = ModelCard(
        task="text-classification",
        head=ClassificationHead(labels=labels, problem_type=problem_type),
        max_length=base.card.max_length,
        tokenizer=base.card.tokenizer,
        base=base.card.base,
        training_data_sha256=file_sha256(settings.data),
        code_version=version("bertstream"),
    )
    write_card(out, card)
    return Artifact(out, seal(out), card)


def _describe(
    artifact: Artifact, test: Sequence[Example], settings: TextClassificationSettings
) -> list[GoldenText]:
    """Evaluate the written model as it will be served, and add the results to the directory.

    Returns:
        The texts whose answers are to be sealed with the model.
    """
    card = artifact.card
    problem_type = _problem_type(settings)
    items = _items(test, TextTokenizer.of(artifact))
    logits = _logits(artifact, items, settings)  # (N, C)
    to_scores = softmax if problem_type == "single_label" else sigmoid
    truth = _marks(test, card.labels)
    predictions = Predictions(to_scores(logits.astype(np.float64)), truth, problem_type)
    metrics = evaluate(predictions, card.labels, seed=settings.seed)
    logger.info("metrics on %d held-out texts: %s", len(test), metrics)
    lengths = [len(item.ids) for item in items]
    write_card(artifact.path, card.model_copy(update={"metrics": metrics}))
    summary = reference(predictions, card.labels, token_counts=lengths)
    (artifact.path / REFERENCE_FILE).write_bytes(orjson.dumps(summary.model_dump()) + b"\n")
    seal(artifact.path)
    return [GoldenText({"text": test[row].text}) for row in _golden_rows(lengths)]


def _logits(
    artifact: Artifact, items: Sequence[Item], settings: TextClassificationSettings
) -> NDArray[np.float32]:
    """Return logits (N, C) in float32, computed by the engine that also serves."""
    engine = TorchEngine(
        build_module(artifact),
        precision="f32",
        threads=torch.get_num_threads(),
        device=choose_compute(settings).device.type,
        batches=BatchSettings(
            pad_id=TextTokenizer.of(artifact).pad_id,
            max_tokens=settings.batch_tokens,
            max_items=settings.batch_items,
        ),
    )
    outputs = engine.infer(items).outputs
    engine.close()
    return np.stack([logits for (logits,) in outputs])


def _dataset(
    examples: Sequence[Example],
    tokenizer: TextTokenizer,
    labels: Sequence[str],
    problem_type: Labelling,
) -> Dataset:
    marks = torch.from_numpy(_marks(examples, labels))  # (N, C)
    targets = marks.float() if problem_type == "multi_label" else marks.int().argmax(dim=1)
    return Dataset(_items(examples, tokenizer), targets)


def _items(examples: Sequence[Example], tokenizer: TextTokenizer) -> list[Item]:
    encoded = tokenizer.encode([example.text for example in examples])
    return [Item(one.ids, one.types) for one in encoded]


def _problem_type(settings: TextClassificationSettings) -> Labelling:
    return "multi_label" if settings.multi_label else "single_label"


def _marks(examples: Sequence[Example], labels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which labels each example has; shape (N, C)."""
    return np.array([[label in example.labels for label in labels] for example in examples])


def _golden_rows(lengths: Sequence[int]) -> list[int]:
    """Return rows spread evenly over the lengths, including the shortest and the longest."""
    by_length = np.argsort(lengths, kind="stable")
    places = np.linspace(0, len(lengths) - 1, num=min(GOLDEN_TEXTS, len(lengths)))
    return [int(row) for row in by_length[places.astype(int)]]
