"""Measure the gain of two heads on one encoder against two models, with JSON in and out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.disturbance import seconds_in_turns
from bench.engine import MAX_LENGTH, model_directory
from serve.combining import combine
from serve.contract import CallOptions
from serve.importing import import_model
from serve.replica import Replica
from serve.settings import ModelSettings

CALLERS = 2
HEADS = {"mood": 2, "topic": 4}


def make_classifier(out: Path, *, labels: int = 2) -> None:
    """Write a model directory: the packaged encoder with an untrained head."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(labels)
    with model_directory("minilm") as encoder, tempfile.TemporaryDirectory() as made:
        model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=labels)
        model.save_pretrained(made)
        AutoTokenizer.from_pretrained(encoder).save_pretrained(made)
        import_model(made, out, task="text-classification", max_length=MAX_LENGTH)


def measure_heads(calls: Sequence[list[bytes]], *, repeats: int) -> dict[str, float | str]:
    """Measure two models, each asked for every text, and one model with both heads, round-robin.

    Args:
        calls: Values of records, one list for each micro-batch.
    """
    texts = sum(map(len, calls))
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bertstream-bench-")))
        threads = stack.enter_context(ThreadPoolExecutor(CALLERS))
        for name, labels in HEADS.items():
            make_classifier(place / name, labels=labels)
        combine({name: place / name for name in HEADS}, place / "both")
        replicas = {
            name: Replica(ModelSettings(name="bench", path=place / name))
            for name in (*HEADS, "both")
        }
        for replica in replicas.values():
            stack.callback(replica.close)

        def asking(*names: str) -> Callable[[], object]:
            def ask() -> None:
                options = CallOptions()
                for predict in (replicas[name].predict for name in names):
                    list(threads.map(predict, calls, [options] * len(calls)))

            return ask

        samples = seconds_in_turns([asking(*HEADS), asking("both")], repeats=repeats)
    figures: dict[str, float | str] = {}
    for name, sample in zip(("two_models", "two_heads"), samples, strict=True):
        figures[f"{name}_texts_per_s"] = round(texts / sample.value, 1)
        figures[f"{name}_others_cores"] = round(sample.others_cores, 2)
    return figures
