"""The training loop, top to bottom: batches, forward, loss, backward, step, stop.

Knows token ids and targets, nothing of files or labels by name. B batch, T tokens, C classes,
H hidden, N examples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from serve.batching import plan_batches
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
    # A head alone is so little work that two threads spend their time waiting for each other.
    with _threads(1 if settings.freeze == "encoder" else torch.get_num_threads()):
        _loop(source, settings, progress)
    model.to("cpu").eval()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        for rows in torch.split(order, self._batch_items):
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


class TextSource:
    """Nothing frozen: batches are of texts, padded to the longest."""

    def __init__(
        self,
        model: Any,
        data: tuple[Dataset, Dataset],
        settings: TextClassificationSettings,
        tokenizer: TextTokenizer,
        compute: Compute,
    ) -> None:
        self.module = model
        encoder = list(model.base_model.parameters())
        known = {id(parameter) for parameter in encoder}
        head = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self.groups = [
            {"params": head, "lr": settings.head_lr},
            {"params": encoder, "lr": settings.encoder_lr},
        ]
        self._data = data
        self._settings = settings
        self._tokenizer = tokenizer
        self._compute = compute
        self.steps = len(self.plan(data[0].items))

    def plan(self, items: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows of each batch, of similar length; together every row once."""
        return plan_batches(
            [len(ids) for ids in items],
            max_tokens=max(self._settings.batch_tokens, *map(len, items)),
            max_items=self._settings.batch_items,
        )

    def batch(self, part: Dataset, rows: Sequence[int]) -> Batch:
        """One padded batch on the device."""
        padded = self._tokenizer.pad([part.items[row] for row in rows])
        ids, mask = (torch.from_numpy(array) for array in padded)  # (B, T) each
        device = self._compute.device
        targets = part.targets[torch.as_tensor(rows)]
        return Batch((ids.to(device), mask.to(device)), targets.to(device))

    def autocast(self) -> AbstractContextManager[None]:
        """Matrix products in bf16 where that is chosen."""
        kind = self._compute.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self._compute.autocast)

    def train_batches(self) -> Iterator[Batch]:
        """Every training example once: sorted within pools, pools and batches shuffled."""
        part = self._data[0]
        order = torch.randperm(len(part.items)).tolist()
        size = POOL_BATCHES * self._settings.batch_items
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            plans = self.plan([part.items[row] for row in pool])
            for index in torch.randperm(len(plans)).tolist():
                yield self.batch(part, [pool[row] for row in plans[index]])

    def val_batches(self) -> Iterator[Batch]:
        """Every validation example once."""
        for rows in self.plan(self._data[1].items):
            yield self.batch(self._data[1], rows)

    def logits(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Logits (B, C) of ids and mask, (B, T) each."""
        with self.autocast():
            logits: Tensor = self.module(inputs[0], attention_mask=inputs[1]).logits
        return logits.float()


Source = FeatureSource | TextSource


def _loop(source: Source, settings: TextClassificationSettings, progress: Progress) -> None:
    """Train until the epochs are over or the validation loss no longer falls."""
    epochs = settings.epochs or (40 if settings.freeze == "encoder" else 4)
    total = epochs * source.steps
    optimizer = torch.optim.AdamW(_with_decay(source.groups, settings.weight_decay))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, total, settings.warmup_share)
    )
    best, best_loss, worse, done = deepcopy(source.module.state_dict()), math.inf, 0, 0
    for _ in range(epochs):
        source.module.train()
        for batch in source.train_batches():
            loss = _loss(source.logits(batch.inputs), batch.targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(source.module.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            done += 1
            progress(min(done, total), total, float(loss.detach()))
        val_loss = _validation_loss(source)
        if val_loss < best_loss:
            best, best_loss, worse = deepcopy(source.module.state_dict()), val_loss, 0
        else:
            worse += 1
        if worse >= settings.patience:
            break
    source.module.load_state_dict(best)
    progress(total, total, best_loss)


def _validation_loss(source: Source) -> float:
    source.module.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for batch in source.val_batches():
            items = len(batch.targets)
            total += float(_loss(source.logits(batch.inputs), batch.targets)) * items
            count += items
    return total / count


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of classes (B,), or of each label by itself (B, C)."""
    if targets.ndim == 1:
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets)


def _rate(step: int, total: int, warmup_share: float) -> float:
    """Share of the highest learning rate: up on a straight line, then down to 0."""
    warmup = max(1, round(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total - step) / max(1, total - warmup))


def _with_decay(groups: list[dict[str, Any]], decay: float) -> list[dict[str, Any]]:
    """Split each group: matrices decay, biases and normalisations do not."""
    split: list[dict[str, Any]] = []
    for group in groups:
        for matrices in (True, False):
            chosen = [p for p in group["params"] if (p.ndim > 1) == matrices]
            if chosen:
                rate = decay if matrices else 0.0
                split.append({"params": chosen, "lr": group["lr"], "weight_decay": rate})
    return split
