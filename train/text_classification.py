"""From labelled texts to a sealed model directory. Owns the order of the steps and the files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers import logging as transformers_logging

from serve.artifact import (
    GOLDEN_FILE,
    REFERENCE_FILE,
    TOKENIZER_FILE,
    Artifact,
    GoldenRecord,
    Metric,
    ModelCard,
    load,
    seal,
    write_card,
)
from serve.importing import PACKAGED_BASE, locate, transformer_directory
from serve.tasks.classification import sigmoid, softmax
from serve.tasks.prediction import SCORE_DECIMALS
from serve.tokenize import TextTokenizer
from train.data import Example, Splits, classes, file_sha256, read_examples, split
from train.errors import BaseUnsupported, DataError, OutputTaken
from train.evaluate import metrics, reference
from train.loop import Dataset, Progress, fit
from train.settings import TextClassificationSettings

GOLDEN_TEXTS = 32
MAX_LENGTH = 512


def train(settings: TextClassificationSettings, progress: Progress) -> Artifact:
    """Fine-tune a classifier and write its model directory, whole or not at all.

    Args:
        settings: What to train on and how.
        progress: Called with steps done, steps in all and the loss.
    Returns:
        The artifact, sealed and verified.
    Raises:
        DataError: The training file cannot be used. Not retriable.
        OutputTaken: Something lies at ``out``. Not retriable.
        BaseUnsupported: The base cannot be trained in the way asked for. Not retriable.
        ArtifactMissing: There is no such base. Not retriable.
    """
    if settings.out.exists() and any(settings.out.iterdir()):
        raise OutputTaken(f"{settings.out} is not empty; name a new directory or remove it")
    examples = read_examples(settings)
    labels = classes(examples)
    parts = split(
        examples, val_share=settings.val_share, test_share=settings.test_share, seed=settings.seed
    )
    base = transformer_directory(locate(settings.base))
    model = _new_classifier(base, labels, settings)
    max_length = _max_length(base, model, settings)
    with _draft(settings.out) as draft:
        model.save_pretrained(draft, max_shard_size="1TB")
        shutil.copyfile(base / TOKENIZER_FILE, draft / TOKENIZER_FILE)
        tokenizer = TextTokenizer(
            Tokenizer.from_file(str(draft / TOKENIZER_FILE)),
            max_length=max_length,
            pad_id=model.config.pad_token_id or 0,
        )
        datasets = [_dataset(part, labels, tokenizer, settings) for part in parts]
        fit(model, (datasets[0], datasets[1]), settings, tokenizer=tokenizer, progress=progress)
        model.save_pretrained(draft, max_shard_size="1TB")
        measured = _evaluate(model, parts, datasets[2], labels, tokenizer, settings, draft)
        card = ModelCard(
            task="text-classification",
            labels=labels,
            problem_type="multi_label" if settings.multi_label else "single_label",
            max_length=max_length,
            metrics=measured,
            base=settings.base or PACKAGED_BASE,
            training_data_sha256=file_sha256(settings.data),
            code_version=version("bertstream"),
        )
        write_card(draft, card)
        seal(draft)
    return load(settings.out, task="text-classification")


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """A directory beside ``out`` that takes its place at the end, or is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield draft
        draft.chmod(0o755)
        if out.exists():
            out.rmdir()  # empty, as was checked
        draft.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _new_classifier(
    base: Path, labels: tuple[str, ...], settings: TextClassificationSettings
) -> Any:
    """The base's encoder with a new head, float32."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(settings.seed)
    try:
        config = AutoConfig.from_pretrained(
            base,
            local_files_only=True,
            trust_remote_code=False,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            problem_type=(
                "multi_label_classification"
                if settings.multi_label
                else "single_label_classification"
            ),
        )
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError) as exc:
        raise BaseUnsupported(f"{base}: transformers cannot load it: {exc}") from exc


def _max_length(base: Path, model: Any, settings: TextClassificationSettings) -> int:
    limit = int(getattr(model.config, "max_position_embeddings", MAX_LENGTH))
    wanted = settings.max_length or min(limit, 256)
    if wanted > limit:
        raise BaseUnsupported(f"{base} takes {limit} tokens; max_length {wanted} is more")
    return wanted


def _dataset(
    part: Sequence[Example],
    labels: tuple[str, ...],
    tokenizer: TextTokenizer,
    settings: TextClassificationSettings,
) -> Dataset:
    items = [encoded.ids for encoded in tokenizer.encode([example.text for example in part])]
    truth = _truth(part, labels)  # (N, C)
    if settings.multi_label:
        return Dataset(items, torch.from_numpy(truth.astype(np.float32)))
    return Dataset(items, torch.from_numpy(truth.argmax(axis=1)))


def _truth(part: Sequence[Example], labels: tuple[str, ...]) -> Any:
    """Which labels each text has; bool (N, C)."""
    return np.array([[label in example.labels for label in labels] for example in part])


def _evaluate(
    model: Any,
    parts: Splits,
    test: Dataset,
    labels: tuple[str, ...],
    tokenizer: TextTokenizer,
    settings: TextClassificationSettings,
    draft: Path,
) -> tuple[Metric, ...]:
    """Measure on the held-out texts; write the golden texts and the reference beside."""
    logits = _logits(model, test.items, tokenizer)  # (N, C)
    scores = sigmoid(logits) if settings.multi_label else softmax(logits)
    if not np.isfinite(scores).all():
        raise DataError("training diverged: the model answers with numbers that are not finite")
    best = scores.argmax(axis=1)
    predicted = scores >= 0.5 if settings.multi_label else np.eye(len(labels), dtype=bool)[best]
    golden = [
        GoldenRecord(text=example.text, result=_result(row, labels))
        for example, row in zip(parts.test[:GOLDEN_TEXTS], scores, strict=False)
    ]
    lines = [orjson.dumps(record.model_dump()) for record in golden]
    (draft / GOLDEN_FILE).write_bytes(b"\n".join(lines) + b"\n")
    looks = reference(
        [len(ids) for ids in test.items],
        [labels[index] for index in best.tolist()],
        scores.max(axis=1).tolist(),
    )
    (draft / REFERENCE_FILE).write_text(looks.model_dump_json(indent=2))
    return metrics(_truth(parts.test, labels), predicted, seed=settings.seed)


def _logits(model: Any, items: Sequence[Sequence[int]], tokenizer: TextTokenizer) -> Any:
    """Logits in float32 on the CPU, one text at a time: no padding to explain; (N, C)."""
    rows = []
    with torch.inference_mode():
        for ids in items:
            input_ids, mask = (torch.from_numpy(array) for array in tokenizer.pad([ids]))
            rows.append(model(input_ids, attention_mask=mask).logits[0].double().numpy())
    return np.stack(rows)


def _result(scores: Any, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    rounded = scores.round(SCORE_DECIMALS["f32"])
    order = np.argsort(-rounded, kind="stable")
    return [{"label": labels[index], "score": float(rounded[index])} for index in order]
