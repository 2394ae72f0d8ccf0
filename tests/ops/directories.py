"""Sealed model directories for tests that never load a model: the weights are any bytes."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from ops.catalogue.archive import sizes_of, tar_of
from serve.artifact import (
    CONFIG_FILE,
    GOLDEN_FILE,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Metric,
    ModelCard,
    seal,
    write_card,
)
from serve.embedding import EmbeddingHead, Pooling
from serve.tasks.text_classification import ClassificationHead

LABELS = ("negative", "positive")
# How the archive of one is sent.
TAR = {"content-type": "application/x-tar"}


def make_directory(
    path: Path,
    *,
    weights: bytes = b"weights",
    config: dict[str, Any] | None = None,
    golden: Mapping[str, dict[str, float] | list[float]] | None = None,
    metrics: dict[str, float] | None = None,
    labels: tuple[str, ...] = LABELS,
) -> Path:
    """Write and seal a directory; directories with equal arguments have equal digests.

    Its task is classification, or feature extraction where golden answers are embeddings.
    """
    path.mkdir(parents=True)
    (path / WEIGHTS_FILE).write_bytes(weights)
    (path / TOKENIZER_FILE).write_text("{}")
    (path / CONFIG_FILE).write_bytes(orjson.dumps(config or {"hidden_size": 32}))
    lines = [
        orjson.dumps({"record": {"text": text}, "result": _result(answer)})
        for text, answer in (golden or {}).items()
    ]
    if lines:
        (path / GOLDEN_FILE).write_bytes(b"\n".join(lines) + b"\n")
    figures = (
        Metric(name=name, value=value, direction="lower" if name == "loss" else "higher")
        for name, value in (metrics or {}).items()
    )
    embeds = any(isinstance(answer, list) for answer in (golden or {}).values())
    classifies = ClassificationHead(labels=labels, problem_type="single_label")
    card = ModelCard(
        task="feature-extraction" if embeds else "text-classification",
        head=EmbeddingHead(pooling=Pooling()) if embeds else classifies,
        max_length=64,
        metrics=tuple(figures),
    )
    write_card(path, card)
    seal(path)
    return path


def _result(answer: dict[str, float] | list[float]) -> list[Any]:
    """As the task answers: labels with their scores, or an embedding."""
    if isinstance(answer, list):
        return answer
    return [{"label": label, "score": score} for label, score in answer.items()]


def archive_of(directory: Path) -> bytes:
    """The tar archive that registers a directory, whatever its files hold by now."""
    sizes = sizes_of((directory / MANIFEST_FILE).read_bytes())
    return b"".join(tar_of(sizes, lambda name: (directory / name).open("rb")))


@contextmanager
def small_disk(max_bytes: int) -> Iterator[None]:
    """No file of this process becomes larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
