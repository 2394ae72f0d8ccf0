from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from serve.engine.torch import TorchEngine
from serve.module import vocabulary_size
from tests.serve.engine.conformity import (
    VOCABULARY,
    EngineConformity,
    OpenEngine,
    classifier,
    embedder,
    items_of_all_shapes,
    plain,
)

pytestmark = pytest.mark.model

ITEMS = items_of_all_shapes()


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    engine = TorchEngine(classifier(), precision="f32", lanes=2, threads=2)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def open_engine() -> OpenEngine:
    # The module takes token types where the items have them.
    def opened(factory: Callable[[], torch.nn.Module], *, token_types: bool = False) -> TorchEngine:
        return TorchEngine(factory(), precision="f32", threads=2)

    return opened


class TestTorch(EngineConformity):
    pass


def test_bf16_is_close_and_comes_out_as_float32() -> None:
    engine = TorchEngine(embedder("mean"), precision="bf16", threads=2)
    farthest = 0.0
    expected = plain(embedder("mean"), ITEMS)
    for (answer,), (wanted,) in zip(engine.infer(ITEMS).outputs, expected, strict=True):
        assert answer.dtype == np.float32
        assert answer @ wanted > 0.999
        farthest = max(farthest, float(np.abs(answer - wanted).max()))
    assert farthest > 1e-4  # float32 would be closer
    engine.close()


def test_threads_are_set_for_the_process() -> None:
    before = torch.get_num_threads()
    try:
        TorchEngine(classifier(), precision="f32", threads=before + 1).close()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_vocabulary_is_the_largest_table() -> None:
    assert vocabulary_size(classifier()) == VOCABULARY


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["bf16", "f16", "f32"])
def test_gpu_answers_as_the_processor_does(precision: str) -> None:
    engine = TorchEngine(embedder("mean"), precision=precision, lanes=3, device="cuda")
    assert engine.device == torch.cuda.get_device_name()
    items = ITEMS * 20
    expected = plain(embedder("mean"), ITEMS) * 20
    for (answer,), (wanted,) in zip(engine.infer(items).outputs, expected, strict=True):
        assert answer @ wanted > 0.999
    engine.close()
