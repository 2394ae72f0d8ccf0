"""The loop on problems so small that the right outcome is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from train.errors import TrainingDiverged
from train.loop import Compute, TrainingBatch, learning_rate_factor, loss_of, optimise, shuffled
from train.settings import TextClassificationSettings

pytestmark = pytest.mark.model

CPU = Compute(torch.device("cpu"), bf16=False)


def settings_of(**options: object) -> TextClassificationSettings:
    return TextClassificationSettings.model_validate(
        {"data": Path("unused.jsonl"), "out": Path("unused")} | options
    )


def separable(count: int) -> TrainingBatch:
    """Points whose first coordinate's sign is their class."""
    points = torch.randn(count, 4)
    return TrainingBatch((points,), (points[:, 0] > 0).long())


def run(
    module: nn.Module,
    train: Callable[[], list[TrainingBatch]],
    val: TrainingBatch,
    **options: object,
) -> list[tuple[int, int, float | None]]:
    calls: list[tuple[int, int, float | None]] = []
    optimise(
        module,
        train,
        [val],
        settings=settings_of(**options),
        compute=CPU,
        progress=lambda *call: calls.append(call),
    )
    return calls


def test_best_epoch_is_kept_and_a_rising_loss_stops() -> None:
    torch.manual_seed(0)
    val = separable(64)
    # Learning from the wrong classes makes every epoch worse than the first.
    wrong = TrainingBatch(val.inputs, 1 - val.targets)
    module = nn.Linear(4, 2)
    calls = run(module, lambda: [wrong], val, epochs=50, patience=2, head_lr=0.1, warmup_share=0)
    steps = len(calls) - 1  # the last call tells the end
    assert steps == 3
    assert calls[-1][:2] == (50, 50)
    kept = loss_of(module(*val.inputs), val.targets).item()
    assert kept == pytest.approx(calls[-1][2], abs=1e-6)


def test_separable_points_are_learnt() -> None:
    torch.manual_seed(0)
    train, val = separable(256), separable(64)
    module = nn.Linear(4, 2)
    run(module, lambda: shuffled(train, 32), val, epochs=20, head_lr=0.1)
    right = (module(*val.inputs).argmax(dim=1) == val.targets).float().mean()
    assert right > 0.9


def test_diverged_training_is_an_error() -> None:
    torch.manual_seed(0)
    val = separable(8)
    endless = TrainingBatch((torch.full((8, 4), float("inf")),), val.targets)
    with pytest.raises(TrainingDiverged, match="lower --head-lr"):
        run(nn.Linear(4, 2), lambda: [endless], val, epochs=2)


def test_shuffled_batches_hold_every_example_once() -> None:
    examples = TrainingBatch((torch.arange(10),), torch.arange(10))
    batches = shuffled(examples, 4)
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert torch.cat([batch.targets for batch in batches]).sort().values.tolist() == list(range(10))
    assert all(torch.equal(batch.inputs[0], batch.targets) for batch in batches)


@given(total=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_learning_rate_rises_then_falls_to_nothing(total: int, warmup: float) -> None:
    settings = settings_of(warmup_share=warmup)
    factors = [learning_rate_factor(step, total, settings) for step in range(total + 1)]
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert 0 < max(factors) <= 1
    assert factors[-1] == 0
