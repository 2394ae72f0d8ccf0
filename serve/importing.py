"""Import of Hugging Face and sentence-transformers models into model directories.

Weights are read only from safetensors and no code from the source is run. Does not fine-tune: a
source without the head that the task needs is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pydantic import ValidationError
from safetensors.torch import save_file

from serve.artifact import HEAD_FILE, Artifact, ModelCard, load, seal, write_card
from serve.checkpoint import library, require_downloaded
from serve.contract import Failure
from serve.engine.padding import pad
from serve.engine.protocol import Item
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText, add_golden
from serve.labels import require_numbered
from serve.module import build_module, load_pretrained
from serve.output import new_directory, require_free
from serve.parameters import fault_of_settings
from serve.registry import task_type
from serve.sentence_import import TextPreparation, text_preparation, transformer_directory
from serve.sources import locate
from serve.task import ImportedHead, LabelledHead, Passage, Source, Task
from serve.tokenize import TextTokenizer
from serve.tokenizer_import import (
    build_tokenizer,
    lower_case,
    require_same,
    require_vocabulary,
    settings_of,
    write_tokenizer,
)

PACKAGED_BASE = "all-MiniLM-L6-v2"
# Tokenisers without their own limit report 1e30.
NO_LIMIT = 1_000_000
# Fewest tokens: one and the two special tokens around it.
SHORTEST = 3


def import_model(
    source: str | None,
    out: Path,
    *,
    task: str,
    head: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    golden: Sequence[GoldenText] = (),
) -> Artifact:
    """Create a sealed model directory from an external model.

    Args:
        source: A directory, or a name on the Hugging Face hub; None uses the packaged
            all-MiniLM-L6-v2, which needs no network.
        out: Output directory; must not exist, or be empty.
        task: Task that the model will be used for; its weights must fit.
        head: Fields of the card's ``head``, such as ``labels``; they replace the source's.
        max_length: Limit in tokens; None uses the source's.
        golden: Golden texts, which the model answers during the import.
    Returns:
        The artifact, which a replica can load.
    Raises:
        ArtifactMissing: Neither a directory nor a name on the hub. Not retriable.
        ArtifactError: The source does not fit the task, or ``out`` is taken. Not retriable.
    """
    chosen = task_type(task)
    settings = dict(head or {})
    directory = locate(source)
    require_free(out)
    if out.resolve().is_relative_to(directory.resolve()):
        raise ArtifactError(f"{out} is inside the source {directory}; choose one elsewhere")
    network = transformer_directory(directory) if chosen.sentence_transformers else directory
    for folder in {directory, network}:
        require_downloaded(folder)
    chosen.check_source(network, settings)
    if issubclass(chosen.head_type, LabelledHead) and settings.get("labels") is None:
        require_numbered(network)
    model = load_pretrained(getattr(transformers, chosen.model_class), network)
    # Other tasks read texts as in transformers' own pipelines.
    reading = TextPreparation()
    if chosen.sentence_transformers:
        reading = text_preparation(directory, network)
    tokenizer = build_tokenizer(network, reading.options)
    if reading.lower_case:
        lower_case(tokenizer)
    require_vocabulary(tokenizer, network, _vectors(network, model))
    imported = _imported_head(
        chosen, Source(directory, network, model, tokenizer, settings), out=out
    )
    card = ModelCard(
        task=task,
        head=imported.head,
        max_length=_max_length(network, model, tokenizer, max_length),
        tokenizer=settings_of(
            tokenizer, token_types=chosen.reads_pairs and _gets_types(model, tokenizer)
        ),
        base=source or PACKAGED_BASE,
    )
    with new_directory(out) as work:
        made = work / "model"
        with library(made, "cannot be written"):
            model.save_pretrained(made, max_shard_size="1TB")
            if imported.weights:
                save_file(dict(imported.weights), made / HEAD_FILE)
            write_tokenizer(tokenizer, made)
            write_card(made, card)
            seal(made)
        artifact = load(made, task=task)
        require_same(tokenizer, artifact, takes_types=_takes_types(model))
        require_answers(artifact)
        if golden:
            add_golden(artifact, golden)
    return load(out, task=task)


def _imported_head(chosen: type[Task[Any, Any]], source: Source, *, out: Path) -> ImportedHead:
    try:
        return chosen.import_head(source)
    except ValidationError as exc:
        fault = fault_of_settings(exc, chosen.head_type.model_fields)
        raise ArtifactError(f"{out}: {chosen.name}: {fault}") from exc


def require_answers(artifact: Artifact) -> None:
    """Run the network once: some architectures load but cannot answer.

    Raises:
        ArtifactError: It fails, or its answer is not a finite number. Not retriable.
    """
    module = build_module(artifact)
    pairs = task_type(artifact.card.task).reads_pairs
    passages = [Passage("fine day", "day" if pairs else None), Passage("fine")]
    tokenizer = TextTokenizer.of(artifact)
    # A tokeniser without special tokens may find no token in a text.
    no_token = np.zeros(1, dtype=np.int32)
    items = [
        Item(*windows[0][:2])
        if len(windows[0].ids)
        else Item(no_token, None if windows[0].types is None else no_token)
        for windows in tokenizer.divide(passages)
        if not isinstance(windows, Failure)
    ]
    batch = pad(items, tokenizer.pad_id)
    with library(artifact.path, "the model cannot compute from token ids and a mask alone"):
        answers = module(*map(torch.from_numpy, batch.inputs))
    answers = answers if isinstance(answers, tuple) else (answers,)
    if not all(torch.isfinite(answer).all() for answer in answers):
        raise ArtifactError(
            f"{artifact.card.base}: the model's answer is not a finite number; its weights are "
            "damaged, or another model's"
        )


def _gets_types(model: Any, tokenizer: Any) -> bool:
    """Return whether transformers gives the model the type of each token, 0 or 1."""
    return _takes_types(model) and "token_type_ids" in tokenizer.model_input_names


def _max_length(directory: Path, model: Any, tokenizer: Any, wanted: int | None) -> int:
    positions = _positions(model)
    if wanted is not None and wanted > positions:
        raise ArtifactError(f"max_length {wanted}: the model has {positions} positions; lower it")
    if wanted is not None:
        return wanted
    stated = tokenizer.model_max_length
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated < SHORTEST:
        raise ArtifactError(
            f"{directory / 'tokenizer_config.json'}: model_max_length is {stated!r}, but must be a "
            f"whole number of at least {SHORTEST}; correct it, or give a maximum length yourself"
        )
    found = min(int(min(stated, NO_LIMIT)), positions)
    if found == NO_LIMIT:
        raise ArtifactError(
            f"{directory}: no file gives the model's limit in tokens; give a maximum length "
            "yourself"
        )
    return found


def _vectors(directory: Path, model: Any) -> int:
    """Return the number of rows in the table of token vectors."""
    with library(directory, "the model does not take tokens"):
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if rows is None:
        raise ArtifactError(f"{directory}: the model does not take tokens; choose one for texts")
    return int(rows)


def _takes_types(model: Any) -> bool:
    """Return whether the model distinguishes types of tokens: with one row, all are 0."""
    return int(getattr(model.config, "type_vocab_size", 0) or 0) > 1


def _positions(model: Any) -> int:
    """Return the tokens that fit the position table; RoBERTa's starts after the padding index."""
    # Families with only relative positions have no table.
    positions = int(getattr(model.config, "max_position_embeddings", NO_LIMIT))
    tables = [
        part
        for name, part in model.named_modules()
        if name.endswith("position_embeddings") and hasattr(part, "padding_idx")
    ]
    offsets = [table.padding_idx for table in tables if table.padding_idx is not None]
    return positions - offsets[0] - 1 if offsets else positions
