"""Combination of model directories that have the same encoder into one multi-task model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModel

from serve.artifact import (
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Artifact,
    ModelCard,
    Tokenizing,
    load,
    seal,
    write_card,
)
from serve.checkpoint import library
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText, add_golden
from serve.importing import require_answers
from serve.module import load_pretrained
from serve.multi_head import HEADS_DIR, write_head
from serve.output import new_directory, require_free
from serve.parameters import fault_of_settings
from serve.tasks.multi_task import MultiTask, MultiTaskHead, SharedHead


def combine(
    sources: Mapping[str, Path], out: Path, *, golden: Sequence[GoldenText] = ()
) -> Artifact:
    """Create a sealed multi-task model directory.

    Args:
        sources: Model directories by name of the head; at least two. Their encoders must have the
            same weights, as those of models that were trained with a frozen encoder have.
        out: Output directory; must not exist, or be empty.
        golden: Golden texts, which the model answers.
    Returns:
        The artifact, which a replica can load.
    Raises:
        ArtifactError: The models differ in encoder or tokeniser, a task cannot share a pass, or
            ``out`` is taken. Not retriable.
    """
    require_free(out)
    artifacts = {name: load(path) for name, path in sources.items()}
    head = _head(artifacts, out)
    first = next(iter(artifacts.values()))
    for artifact in artifacts.values():
        _require_same_tokens(first, artifact)
    with new_directory(out) as work:
        made = work / "model"
        with library(made, "cannot be written"):
            load_pretrained(AutoModel, first.path).save_pretrained(made, max_shard_size="1TB")
            encoder = load_file(made / WEIGHTS_FILE)
            for name, artifact in artifacts.items():
                write_head(artifact, encoder, made / HEADS_DIR / name)
            shutil.copyfile(first.path / TOKENIZER_FILE, made / TOKENIZER_FILE)
            write_card(made, _card(head, artifacts))
            seal(made)
        artifact = load(made)
        require_answers(artifact)
        if golden:
            add_golden(artifact, golden)
    return load(out)


def _head(artifacts: Mapping[str, Artifact], out: Path) -> MultiTaskHead:
    try:
        return MultiTaskHead(
            heads={
                name: SharedHead(task=artifact.card.task, head=artifact.card.head)
                for name, artifact in artifacts.items()
            }
        )
    except ValidationError as exc:
        raise ArtifactError(f"{out}: {fault_of_settings(exc, ())}") from exc


def _card(head: MultiTaskHead, artifacts: Mapping[str, Artifact]) -> ModelCard:
    cards = {name: artifact.card for name, artifact in artifacts.items()}
    first = next(iter(cards.values()))
    types = any(card.tokenizer.token_types for card in cards.values())
    return ModelCard(
        task=MultiTask.name,
        head=head,
        max_length=min(card.max_length for card in cards.values()),
        tokenizer=first.tokenizer.model_copy(update={"token_types": types}),
        metrics=tuple(
            metric.model_copy(update={"name": f"{name}.{metric.name}"})
            for name, card in cards.items()
            for metric in card.metrics
        ),
        base=first.base,
        code_version=first.code_version,
    )


def _require_same_tokens(first: Artifact, other: Artifact) -> None:
    same_file = (first.path / TOKENIZER_FILE).read_bytes() == (
        other.path / TOKENIZER_FILE
    ).read_bytes()
    if not same_file or _without_types(first) != _without_types(other):
        raise ArtifactError(
            f"{other.path}: its tokeniser differs from that of {first.path}, so they cannot share "
            "an encoder"
        )


def _without_types(artifact: Artifact) -> Tokenizing:
    return artifact.card.tokenizer.model_copy(update={"token_types": False})
