"""A model from elsewhere becomes a model directory: Hugging Face, sentence-transformers.

Weights come from safetensors only and no code of the source is run. Fine-tuning is not here:
a source without the head that the task needs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from transformers import AutoModel, AutoModelForSequenceClassification

from serve.artifact import (
    CONFIG_FILE,
    Artifact,
    ModelCard,
    Pooling,
    PoolingMode,
    load,
    seal,
    write_card,
)
from serve.errors import ArtifactError
from serve.golden_texts import GoldenText, add_golden
from serve.module import build_module, load_pretrained
from serve.settings import Task
from serve.sources import locate
from serve.tokenizer_import import (
    build_tokenizer,
    require_same,
    require_vocabulary,
    settings_of,
    write_tokenizer,
)

PACKAGED_BASE = "all-MiniLM-L6-v2"
# Tokenisers without a limit of their own say 1e30.
NO_LIMIT = 1_000_000
# Tokens at least: one and the two around it.
SHORTEST = 3

LEGACY_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


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
    """Make a sealed model directory of a model from elsewhere.

    Args:
        source: A directory, or a name on the Hugging Face hub; None takes the packaged
            all-MiniLM-L6-v2, which needs no network.
        out: Where to write; must not exist, or be empty.
        task: What it will be used for; its weights must fit.
        pooling: None takes what the source's sentence-transformers files say, or the normalised
            mean where it has none.
        labels: Of class 0, 1, ...; None takes the source's.
        max_length: In tokens; None takes the source's.
        golden: Texts to know it by, which it answers now.
    Returns:
        The artifact, which a replica can load.
    Raises:
        ArtifactMissing: No such directory and no such name on the hub. Not retriable.
        ArtifactError: It cannot be used for the task, or ``out`` is taken. Not retriable.
    """
    directory = locate(source)
    if out.exists() and any(out.iterdir()):
        raise ArtifactError(f"{out} is not empty; name a new directory or remove it")
    out.mkdir(parents=True, exist_ok=True)
    classifies = task == "text-classification"
    auto_class = AutoModelForSequenceClassification if classifies else AutoModel
    network = transformer_directory(directory)
    model = load_pretrained(auto_class, network)
    model.save_pretrained(out, max_shard_size="1TB")
    tokenizer = build_tokenizer(network)
    require_vocabulary(tokenizer, network, model.get_input_embeddings().num_embeddings)
    write_tokenizer(tokenizer, out)
    card = ModelCard(
        task=task,
        labels=_labels(model.config, labels) if classifies else (),
        problem_type=_problem_type(model.config) if classifies else None,
        max_length=_max_length(network, model, tokenizer, max_length),
        pooling=None if classifies else pooling or source_pooling(directory),
        tokenizer=settings_of(tokenizer),
        base=source or PACKAGED_BASE,
    )
    write_card(out, card)
    seal(out)
    artifact = load(out, task=task)
    require_same(tokenizer, artifact, takes_types=_takes_types(model))
    build_module(artifact)
    return add_golden(artifact, golden) if golden else artifact


def transformer_directory(directory: Path) -> Path:
    """Where the transformers files of a source lie: the source itself, or a folder of it."""
    for module in _modules(directory):
        if _kind(module) == "Transformer":
            return directory / str(module["path"])
    return directory


def source_pooling(directory: Path) -> Pooling:
    """Pooling as the sentence-transformers files of a source say; the normalised mean without.

    Raises:
        ArtifactError: A module or a pooling that has no counterpart here. Not retriable.
    """
    modules = _modules(directory)
    if not modules:
        return Pooling()
    kinds = [_kind(module) for module in modules]
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise ArtifactError(f"{directory}: has the modules {sorted(unknown)}, which are not known")
    folders = [module["path"] for module in modules if _kind(module) == "Pooling"]
    mode = _mode(directory / folders[0]) if folders else "mean"
    return Pooling(mode=mode, normalize="Normalize" in kinds)


def _modules(directory: Path) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = _json(directory / "modules.json", default=[])
    return modules


def _kind(module: dict[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _mode(folder: Path) -> PoolingMode:
    config = _json(folder / CONFIG_FILE, default={})
    named = config.get("pooling_mode")
    # Directories written by older releases have one switch for each mode.
    found = [key for key, value in config.items() if key in LEGACY_MODES and value is True]
    found += [named] if isinstance(named, str) else named or []
    modes = [LEGACY_MODES.get(name, name) for name in found]
    if len(modes) != 1 or modes[0] not in ("mean", "cls", "max"):
        raise ArtifactError(
            f"{folder}: pooling {found} has no counterpart here; name a pooling yourself"
        )
    mode: PoolingMode = modes[0]
    return mode


def _labels(config: Any, labels: tuple[str, ...] | None) -> tuple[str, ...]:
    if labels is not None and len(labels) != config.num_labels:
        raise ArtifactError(
            f"{len(labels)} labels given and the model has {config.num_labels} classes; "
            "give one label per class, in the order of the classes"
        )
    return labels or tuple(str(config.id2label[index]) for index in range(config.num_labels))


def _problem_type(config: Any) -> Any:
    if config.problem_type == "regression" or config.num_labels < 2:
        if config.problem_type == "multi_label_classification":
            return "multi_label"
        raise ArtifactError("the model is a regression with one number; it has no classes")
    multi = config.problem_type == "multi_label_classification"
    return "multi_label" if multi else "single_label"


def _max_length(directory: Path, model: Any, tokenizer: Any, wanted: int | None) -> int:
    positions = _positions(model)
    if wanted is not None and wanted > positions:
        raise ArtifactError(f"max_length {wanted}: the model has {positions} positions; lower it")
    if wanted is not None:
        return wanted
    own = _json(directory / "sentence_bert_config.json", default={}).get("max_seq_length")
    stated = own or tokenizer.model_max_length
    if isinstance(stated, bool) or not isinstance(stated, int | float) or stated < SHORTEST:
        raise ArtifactError(
            f"{directory / 'tokenizer_config.json'}: model_max_length is {stated!r}, and must be a "
            f"whole number from {SHORTEST}; correct it, or give a maximum length yourself"
        )
    return min(int(min(stated, NO_LIMIT)), positions)


def _takes_types(model: Any) -> bool:
    return int(getattr(model.config, "type_vocab_size", 0) or 0) > 0


def _positions(model: Any) -> int:
    """Tokens that the position table has room for; RoBERTa's counts from behind the padding."""
    positions = int(model.config.max_position_embeddings)
    tables = [
        part
        for name, part in model.named_modules()
        if name.endswith("position_embeddings") and hasattr(part, "padding_idx")
    ]
    offsets = [table.padding_idx for table in tables if table.padding_idx is not None]
    return positions - offsets[0] - 1 if offsets else positions


def _json(file: Path, *, default: Any) -> Any:
    return orjson.loads(file.read_bytes()) if file.is_file() else default
