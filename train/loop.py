"""The training loop, top to bottom: batches, forward, loss, backward, step, stop.

Knows token ids and targets, nothing of files or labels by name. B batch, T tokens, C classes,
H hidden, N examples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from serve.engine.machine import inspect_machine
from serve.tokenize import TextTokenizer
from train.averaging import average_in_last_layer
from train.settings import TextClassificationSettings

# Texts that are sorted by length together. All of them would give every epoch the same
# batches; so many give other neighbours each time, and little padding.
POOL_BATCHES = 16

logger = logging.getLogger(__name__)

# Steps done, steps in all, and the loss, which is None while texts are only encoded.
Progress = Callable[[int, int, float | None], None]


class Dataset(NamedTuple):
    """Tokenised texts and what they should be classified as.

    Attributes:
        items: Token ids of each text; shape (N,), none longer than a batch may be.
        targets: Classes, int64 (N,); or for multi-label 0 and 1, float32 (N, C).
    """

    items: Sequence[Sequence[int]]
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Compute:
    """Where and how training computes.

    Attributes:
        autocast: Matrix products run in bf16; weights and sums stay float32.
    """

    device: torch.device
    autocast: bool


def choose_compute(settings: TextClassificationSettings) -> Compute:
    """Take a GPU where there is one, and bf16 where the device computes in it.

    Raises:
        EngineUnavailable: A GPU was asked for by name and there is none. Not retriable.
    """
    wants_gpu = settings.device == "cuda"
    on_gpu = wants_gpu or (settings.device == "auto" and torch.cuda.is_available())
    machine = inspect_machine(on_gpu)
    has_bf16 = machine.gpu_bf16 if on_gpu else "BF16" in machine.capabilities
    autocast = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16)
    return Compute(torch.device("cuda" if on_gpu else "cpu"), autocast)


def fit(
    model: Any,
    data: tuple[Dataset, Dataset],
    settings: TextClassificationSettings,
    *,
    tokenizer: TextTokenizer,
    progress: Progress,
) -> None:
    """Train a sequence classifier in place; on return it is on the CPU, at its best epoch.

    Args:
        model: Of transformers, with a new head, float32.
        data: Examples to learn from, and examples whose loss decides when to stop.
        tokenizer: Pads batches.
        progress: Called after every step, from this thread.
    Raises:
        BaseUnsupported: The encoder cannot be frozen. Not retriable.
        EngineUnavailable: A GPU was asked for by name and there is none. Not retriable.
    """
    compute = choose_compute(settings)
    logger.info("training on %s, autocast %s", compute.device, compute.autocast)
    torch.manual_seed(settings.seed)
    if settings.freeze == "encoder":
        average_in_last_layer(model)
        model.to(compute.device)
        source: Source = FeatureSource(model, data, settings, tokenizer, compute, progress)
    else:
        model.to(compute.device)
        source = TextSource(model, data, settings, tokenizer, compute)
    _loop(source, settings, progress)
    model.to("cpu").eval()


class Batch(NamedTuple):
    """Input of a forward pass, as its source makes it, and the targets, (B,) or (B, C)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor


class FeatureSource:
    """Frozen encoder: every text is encoded once, and batches are of its vectors."""

    def __init__(
        self,
        model: Any,
        data: tuple[Dataset, Dataset],
        settings: TextClassificationSettings,
        tokenizer: TextTokenizer,
        compute: Compute,
        progress: Progress,
    ) -> None:
        self.module = nn.ModuleList((model.bert.pooler, model.dropout, model.classifier))
        self.groups = [{"params": list(self.module.parameters()), "lr": settings.head_lr}]
        self._batch_items = settings.batch_items
        text = TextSource(model, data, settings, tokenizer, compute)
        plans = [text.plan(part.items) for part in data]
        total, done = sum(map(len, plans)), 0
        self._vectors: list[Tensor] = []
        model.eval()
        for part, plan in zip(data, plans, strict=True):
            vectors = torch.empty(len(part.items), model.config.hidden_size)  # (N, H)
            for rows in plan:
                batch = text.batch(part, rows)
                with torch.inference_mode(), text.autocast():
                    states = model.bert(*batch.inputs).last_hidden_state  # (B, T, H)
                vectors[rows] = states[:, 0].float().cpu()  # (B, H)
                done += 1
                progress(done, total, None)
            self._vectors.append(vectors.to(compute.device))
        self._targets = [part.targets.to(compute.device) for part in data]
        self.steps = -(-len(data[0].items) // self._batch_items)

    def train_batches(self) -> Iterator[Batch]:
        """Every training example once, shuffled."""
        order = torch.randperm(len(self._vectors[0]))
        for rows in order.split(self._batch_items):
            yield Batch((self._vectors[0][rows],), self._targets[0][rows])

    def val_batches(self) -> Iterator[Batch]:
        """Every validation example once."""
        yield Batch((self._vectors[1],), self._targets[1])

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Logits (B, C) of vectors (B, H), as BERT's head computes them."""
        pooler, dropout, classifier = self.module
        pooled = pooler(inputs[0].unsqueeze(1))  # (B, 1, H) to (B, H)
        logits: Tensor = classifier(dropout(pooled))
        return logits
