"""The training loop, top to bottom: batches, forward, loss, backward, step, stop.

Handles token ids and targets, not files or names of labels.

B batch, T tokens, C classes, H hidden, N examples.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from serve.batching import plan_batches
from serve.engine.machine import inspect_machine
from serve.engine.padding import pad
from serve.engine.protocol import Item
from serve.module import Headed
from serve.tokenize import TextTokenizer
from train.averaging import average_in_last_layer
from train.errors import TrainingDiverged
from train.settings import TextClassificationSettings

# Size of the pools that are sorted by length, in batches. Sorting all texts would give the same
# batches in every epoch; pools give other neighbours each time, and little padding.
POOL_BATCHES = 16

# Steps done, total steps, and the loss. Encoding the texts with a frozen encoder is a separate
# phase, with its own total and no loss.
OnTrainingStep = Callable[[int, int, float | None], None]

logger = logging.getLogger(__name__)


class Dataset(NamedTuple):
    """Tokenised texts and their targets.

    Attributes:
        items: Tokens of each text; shape (N,), none longer than a batch may be.
        targets: Classes, int64 (N,); or for multi-label 0 and 1, float32 (N, C).
    """

    items: Sequence[Item]
    targets: Tensor


class TrainingBatch(NamedTuple):
    """Arguments of one forward pass, each (B, ...), and its targets, (B,) or (B, C)."""

    inputs: tuple[Tensor, ...]
    targets: Tensor

    def rows(self, index: Tensor) -> TrainingBatch:
        """Return a batch of some of the rows; shape of index (b,)."""
        return TrainingBatch(tuple(values[index] for values in self.inputs), self.targets[index])


@dataclass(frozen=True, slots=True)
class Compute:
    """Device and precision of training.

    Attributes:
        bf16: Whether matrix products run in bf16; weights and sums stay float32.
    """

    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """Return a context in which matrix products run in the chosen precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


class TrainedHead(nn.Module):
    """The layers of a BERT classifier after the first token's vector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.pooler = model.bert.pooler
        self.dropout = model.dropout
        self.classifier = model.classifier

    def forward(self, vectors: Tensor) -> Tensor:
        """Return logits (B, C) for vectors (B, H)."""
        pooled = self.pooler(vectors.unsqueeze(1))  # (B, 1, H) to (B, H)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits  # (B, C)


def fit(
    model: Any,
    train: Dataset,
    val: Dataset,
    *,
    settings: TextClassificationSettings,
    tokenizer: TextTokenizer,
    progress: OnTrainingStep,
) -> None:
    """Train a sequence classifier in place; it ends on the CPU with its best epoch's weights.

    Args:
        model: A transformers model with a new head, float32.
        train: Texts to learn from.
        val: Texts whose loss decides when to stop.
        tokenizer: Has the token id that batches are padded with.
        progress: Called after every step, from this thread.
    Raises:
        BaseUnsupported: The encoder cannot be frozen. Not retriable.
        TrainingDiverged: The loss was never a finite number. Not retriable.
        EngineUnavailable: The settings require a GPU and there is none. Not retriable.
    """
    compute = choose_compute(settings)
    logger.info("training with %s", compute)
    torch.manual_seed(settings.seed)
    batches = TokenBatches(tokenizer, settings, compute.device)
    if settings.freeze == "encoder":
        average_in_last_layer(model)
        model.to(compute.device)
        learnt, watched = encode(model, (train, val), batches, compute=compute, progress=progress)
        # The head is a thousandth of the work, so full precision costs little.
        compute = replace(compute, bf16=False)
        with _one_thread():
            optimise(
                TrainedHead(model),
                lambda: shuffled(learnt, settings.batch_items),
                [watched],
                settings=settings,
                compute=compute,
                progress=progress,
            )
    else:
        model.to(compute.device)
        optimise(
            Headed(model, lambda output: output.logits),
            lambda: batches.shuffled(train),
            batches.sorted(val),
            settings=settings,
            compute=compute,
            progress=progress,
        )
    model.to("cpu").eval()


def optimise(
    module: nn.Module,
    next_epoch: Callable[[], list[TrainingBatch]],
    val: list[TrainingBatch],
    *,
    settings: TextClassificationSettings,
    compute: Compute,
    progress: OnTrainingStep,
) -> None:
    """Train a module until its loss on ``val`` no longer falls, and keep its best weights.

    Args:
        module: Returns logits (B, C); on the device of the batches.
        next_epoch: Returns the training batches in a new order; their number may vary a little.
        val: Batches that are only evaluated.
        progress: Its total is an estimate from the first epoch; the last call reaches it.
    Raises:
        TrainingDiverged: The loss on ``val`` was never a finite number. Not retriable.
    """
    batches = next_epoch()
    total = len(batches) * settings.epoch_limit
    optimizer = torch.optim.AdamW(_parameter_groups(module, settings))
    schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, total, settings))
    best_loss, best_weights, epochs_since_best = math.inf, _copy_of(module), 0
    step = 0
    for epoch in range(settings.epoch_limit):
        module.train()
        for batch in batches:
            loss = _step(module, batch, optimizer, settings.max_grad_norm, compute)
            schedule.step()
            step += 1
            progress(min(step, total), total, loss)

        val_loss = mean_loss(module, val, compute)
        logger.info("epoch %d: loss on the validation texts %.4f", epoch + 1, val_loss)
        if val_loss < best_loss:
            best_loss, best_weights, epochs_since_best = val_loss, _copy_of(module), 0
        else:
            epochs_since_best += 1
        if epochs_since_best >= settings.patience:
            break
        batches = next_epoch()
    if not math.isfinite(best_loss):
        raise TrainingDiverged(
            f"the loss was not a finite number after {step} steps; lower --head-lr or --encoder-lr"
        )
    module.load_state_dict(best_weights)
    progress(total, total, best_loss)


def _step(
    module: nn.Module,
    batch: TrainingBatch,
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float,
    compute: Compute,
) -> float:
    """Take one optimisation step and return the loss before it."""
    with compute.autocast():
        logits = module(*batch.inputs)  # (B, C)
    loss = loss_of(logits, batch.targets)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), max_grad_norm)
    optimizer.step()
    return loss.item()


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, C), in float32; binary for multi-label."""
    if targets.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)
    return functional.cross_entropy(logits.float(), targets)


def mean_loss(module: nn.Module, batches: Sequence[TrainingBatch], compute: Compute) -> float:
    """Return the loss per example, without dropout."""
    module.eval()
    total, count = 0.0, 0
    with torch.inference_mode(), compute.autocast():
        for batch in batches:
            size = len(batch.targets)
            total += loss_of(module(*batch.inputs), batch.targets).item() * size
            count += size
    return total / count


def learning_rate_factor(step: int, total: int, settings: TextClassificationSettings) -> float:
    """Return the fraction of the highest learning rate: linear warm-up, then linear decay to 0."""
    warmup = settings.warmup_share * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total - step) / max(1.0, total - warmup))


class TokenBatches:
    """Builds padded batches of token ids on a device, within the budget of tokens."""

    def __init__(
        self, tokenizer: TextTokenizer, settings: TextClassificationSettings, device: torch.device
    ) -> None:
        self._pad_id = tokenizer.pad_id
        self._max_tokens = settings.batch_tokens
        self._max_items = settings.batch_items
        self._device = device

    def sorted(self, data: Dataset) -> list[TrainingBatch]:
        """Return all examples in batches, longest first."""
        return [self._batch(data, rows) for rows in self.plan(data, range(len(data.items)))]

    def shuffled(self, data: Dataset) -> list[TrainingBatch]:
        """Return all examples in random batches; neighbours in length share a batch."""
        order: list[int] = torch.randperm(len(data.items)).tolist()
        pool = POOL_BATCHES * self._max_items
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        plan = [rows for part in pools for rows in self.plan(data, part)]
        return [self._batch(data, plan[place]) for place in torch.randperm(len(plan)).tolist()]

    def plan(self, data: Dataset, rows: Sequence[int]) -> list[list[int]]:
        """Return the given rows, divided into batches."""
        lengths = [len(data.items[row].ids) for row in rows]
        plan = plan_batches(lengths, max_tokens=self._max_tokens, max_items=self._max_items)
        return [[rows[place] for place in places] for places in plan]

    def _batch(self, data: Dataset, rows: Sequence[int]) -> TrainingBatch:
        padded = pad([data.items[row] for row in rows], self._pad_id)
        inputs = tuple(torch.from_numpy(part).to(self._device) for part in padded.inputs)  # (B, T)
        return TrainingBatch(inputs, data.targets[list(rows)].to(self._device))


def encode(
    model: Any,
    parts: Sequence[Dataset],
    batches: TokenBatches,
    *,
    compute: Compute,
    progress: OnTrainingStep,
) -> list[TrainingBatch]:
    """Run the encoder once over every text.

    Returns:
        One batch per part: the first token's vectors, float32 (N, H), and the targets.
    """
    model.eval()
    tokens = [batches.sorted(part) for part in parts]
    total, done = sum(map(len, tokens)), 0
    encoded = []
    for part in tokens:
        vectors = []
        for batch in part:
            with torch.no_grad(), compute.autocast():
                states = model.bert(*batch.inputs).last_hidden_state  # (B, T, H)
            vectors.append(states[:, 0].float())  # (B, H)
            done += 1
            progress(done, total, None)
        targets = torch.cat([batch.targets for batch in part])
        encoded.append(TrainingBatch((torch.cat(vectors),), targets))
    return encoded


def shuffled(examples: TrainingBatch, size: int) -> list[TrainingBatch]:
    """Divide a batch at random into small ones."""
    order = torch.randperm(len(examples.targets)).to(examples.targets.device)
    return [examples.rows(rows) for rows in torch.split(order, size)]


def choose_compute(settings: TextClassificationSettings) -> Compute:
    """Choose a GPU where there is one, and bf16 where the device supports it.

    Raises:
        EngineUnavailable: The settings require a GPU and there is none. Not retriable.
    """
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    machine = inspect_machine(on_gpu)
    has_bf16 = machine.gpu_bf16 if on_gpu else "BF16" in machine.capabilities
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and has_bf16)
    return Compute(torch.device("cuda" if on_gpu else "cpu"), bf16)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: for as little work as a head, several would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _parameter_groups(
    module: nn.Module, settings: TextClassificationSettings
) -> Iterator[dict[str, Any]]:
    """Yield a group per parameter: learning rate by part, weight decay only for matrices."""
    for name, parameter in module.named_parameters():
        in_encoder = ".encoder." in name or ".embeddings." in name
        yield {
            "params": [parameter],
            "lr": settings.encoder_lr if in_encoder else settings.head_lr,
            "weight_decay": settings.weight_decay if parameter.dim() > 1 else 0.0,
        }


def _copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}
