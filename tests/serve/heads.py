"""Tiny models with random weights: one for any task, and several heads on the same encoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from serve.artifact import TOKENIZER_FILE, Artifact
from serve.combining import combine
from serve.importing import import_model
from serve.registry import task_type
from serve.sources import locate
from tests.serve.tiny import tiny_config

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LIMIT = 60
# Labels of the model of a task, where the task needs some.
LABELS = {
    "text-classification": ("negative", "neutral", "positive"),
    "text-ranking": ("relevance",),
    "token-classification": ("O", "B-PER", "I-PER"),
    "zero-shot-classification": ("contradiction", "neutral", "entailment"),
}
# Heads of the multi-task model, by name.
HEADS = {"topic": "text-classification", "names": "token-classification"}


def model_of(task: str, directory: Path, *, head: Mapping[str, Any] | None = None) -> Artifact:
    """Import a model of any task, which reads 60 tokens.

    Args:
        directory: An empty directory for the source and the artifact.
        head: Fields of the head that replace those of the source.
    """
    if task == "multi-task":
        alone = heads_of(tiny_config(), list(HEADS.values()), directory)
        paths = (artifact.path for artifact in alone.values())
        return combine(dict(zip(HEADS, paths, strict=True)), directory / "model")
    torch.manual_seed(3)
    names = dict(enumerate(LABELS.get(task, ())))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    model = _network(task, tiny_config(), labels if names else {})
    _write(model, directory / "source")
    return import_model(
        str(directory / "source"), directory / "model", task=task, head=head, max_length=LIMIT
    )


def heads_of(
    config: Any, tasks: Sequence[str], directory: Path, *, seed: int = 3
) -> dict[str, Artifact]:
    """Import one model for each task; all have the same random encoder.

    Args:
        config: Configuration of a tiny encoder with the packaged vocabulary.
        tasks: Tasks that share a pass; one may be repeated with another number of labels.
        directory: An empty directory for sources and artifacts.
    """
    torch.manual_seed(seed)
    encoder = _random(transformers.AutoModel.from_config(config, attn_implementation="eager"))
    artifacts = {}
    for place, task in enumerate(tasks):
        source = directory / f"source-{place}"
        labels = {} if task == "feature-extraction" else {"num_labels": place + 2}
        model = _network(task, config, labels)
        model.base_model.load_state_dict(encoder.state_dict(), strict=False)
        _write(model, source)
        name = f"{task}-{place}"
        artifacts[name] = import_model(str(source), directory / name, task=task, max_length=LIMIT)
    return artifacts


def _network(task: str, config: Any, labels: Mapping[str, Any]) -> Any:
    auto = getattr(transformers, task_type(task).model_class)
    return _random(auto.from_config(type(config).from_dict({**config.to_dict(), **labels})))


def _random(model: Any) -> Any:
    """Give a model weights with which texts have clearly different results."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    return model


def _write(model: Any, source: Path) -> None:
    model.save_pretrained(source)
    shutil.copyfile(locate(None) / TOKENIZER_FILE, source / TOKENIZER_FILE)
    (source / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
