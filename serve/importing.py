"""Import of Hugging Face and sentence-transformers models into model directories.

Weights are read only from safetensors and no code from the source is run. Does not fine-tune: a
source without the head that the task needs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from serve.artifact import (
    CONFIG_FILE,
    HEAD_FILE,
    Artifact,
    ModelCard,
    Pooling,
    load,
    seal,
    write_card,
)
from serve.checkpoint import library, read_json, require_downloaded
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText, add_golden
from serve.module import build_module, load_pretrained
from serve.output import new_directory, require_free
from serve.sentence_import import (
    TextPreparation,
    source_pooling,
    text_preparation,
    transformer_directory,
)
from serve.settings import Task
from serve.sources import locate
from serve.tokenize import TextTokenizer
from serve.tokenizer_import import (
    build_tokenizer,
    count_tokens,
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
    task: Task,
    pooling: Pooling | None = None,
    labels: tuple[str, ...] | None = None,
    max_length: int | None = None,
    golden: Sequence[GoldenText] = (),
) -> Artifact:
    """Create a sealed model directory from an external model.

    Args:
        source: A directory, or a name on the Hugging Face hub; None uses the packaged
            all-MiniLM-L6-v2, which needs no network.
        out: Output directory; must not exist, or be empty.
        task: Task that the model will be used for; its weights must fit.
        pooling: None uses that of the source's sentence-transformers files, or the normalised
            mean where it has none.
        labels: Labels of class 0, 1, ...; None uses the source's.
        max_length: Limit in tokens; None uses the source's.
        golden: Golden texts, which the model answers during the import.
    Returns:
        The artifact, which a replica can load.
    Raises:
        ArtifactMissing: Neither a directory nor a name on the hub. Not retriable.
        ArtifactError: The source does not fit the task, or ``out`` is taken. Not retriable.
    """
    directory = locate(source)
    require_free(out)
    if out.resolve().is_relative_to(directory.resolve()):
        raise ArtifactError(f"{out} is inside the source {directory}; choose one elsewhere")
    classifies = task == "text-classification"
    network = transformer_directory(directory)
    for folder in {directory, network}:
        require_downloaded(folder)
    if classifies and labels is None:
        _require_numbered(network / CONFIG_FILE)
    model = load_pretrained(
        AutoModelForSequenceClassification if classifies else AutoModel, network
    )
    # Texts of a classifier are read as in transformers' own pipeline.
    reading = TextPreparation() if classifies else text_preparation(directory, network)
    tokenizer = build_tokenizer(network, reading.options)
    if reading.lower_case:
        lower_case(tokenizer)
    require_vocabulary(tokenizer, network, _vectors(network, model))
    head: dict[str, torch.Tensor] = {}
    if not classifies and pooling is None:
        prompt_tokens = count_tokens(tokenizer, reading.prompt)
        pooling, head = source_pooling(directory, prompt_tokens=prompt_tokens)
    card = ModelCard(
        task=task,
        labels=_labels(model.config, labels) if classifies else (),
        problem_type=_problem_type(model.config) if classifies else None,
        max_length=_max_length(network, model, tokenizer, max_length),
        pooling=None if classifies else pooling,
        tokenizer=settings_of(tokenizer, prompt=reading.prompt),
        base=source or PACKAGED_BASE,
    )
    with new_directory(out) as work:
        made = work / "model"
        with library(made, "cannot be written"):
            model.save_pretrained(made, max_shard_size="1TB")
            if head:
                save_file(head, made / HEAD_FILE)
            write_tokenizer(tokenizer, made)
            write_card(made, card)
            seal(made)
        artifact = load(made, task=task)
        require_same(tokenizer, artifact, takes_types=_takes_types(model))
        _require_answers(artifact)
        if golden:
            add_golden(artifact, golden)
    return load(out, task=task)


def _labels(config: Any, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is not None and len(labels) != config.num_labels:
        raise ArtifactError(
            f"{len(labels)} labels were given, but the model has {config.num_labels} classes; "
            "give one label per class, in the order of the classes"
        )
    found = labels or tuple(str(config.id2label[index]) for index in range(config.num_labels))
    repeated = sorted({label for label in found if found.count(label) > 1})
    if repeated:
        raise ArtifactError(
            f"the label {repeated[0]!r} is used for several classes; give distinct labels, one per "
            "class, in the order of the classes"
        )
    return found


def _require_numbered(file: Path) -> None:
    """Refuse a configuration that does not clearly number its labels."""
    config = read_json(file)
    names = config.get("id2label")
    if names is None:
        return
    remedy = "correct the file, or give the labels yourself, in the order of the classes"
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        shown = ", ".join(names) if isinstance(names, dict) else repr(names)
        raise ArtifactError(
            f"{file}: id2label must number the labels 0, 1, ... without gaps, but has {shown}; "
            f"{remedy}"
        )
    numbers = config.get("label2id")
    labels = list(names.values())
    for index, label in names.items():
        if not isinstance(label, str | int | float):
            raise ArtifactError(
                f"{file}: class {index} in id2label is {label!r}, not a text; {remedy}"
            )
        number = numbers.get(str(label), index) if isinstance(numbers, dict) else index
        if str(number) != index and labels.count(label) == 1:
            raise ArtifactError(
                f"{file}: {label!r} is class {index} in id2label but {number} in label2id; {remedy}"
            )


def _require_answers(artifact: Artifact) -> None:
    """Run the network once: some architectures load but cannot answer."""
    module = build_module(artifact)
    tokenizer = TextTokenizer.of(artifact)
    batch = tokenizer.pad([item.ids or [0] for item in tokenizer.encode(["fine day", "fine"])])
    with library(artifact.path, "the model cannot compute from token ids and a mask alone"):
        answers = module(*map(torch.from_numpy, batch))
    if not torch.isfinite(answers).all():
        raise ArtifactError(
            f"{artifact.card.base}: the model's answer is not a finite number; its weights are "
            "damaged, or another model's"
        )


def _problem_type(config: Any) -> Any:
    if config.problem_type == "regression" or config.num_labels < 2:
        if config.problem_type == "multi_label_classification":
            return "multi_label"
        raise ArtifactError("the model is a regression with one output; it has no classes")
    multi = config.problem_type == "multi_label_classification"
    return "multi_label" if multi else "single_label"


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
    return int(getattr(model.config, "type_vocab_size", 0) or 0) > 0


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
