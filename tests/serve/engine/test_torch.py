from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from serve.engine.torch import TorchEngine
from serve.errors import EngineError
from serve.module import vocabulary_size
from tests.serve.engine.conformity import (
    SHAPES,
    VOCABULARY,
    EngineConformity,
    classifier,
    embedder,
    plain,
    random_batch,
)

pytestmark = pytest.mark.model

BATCHES = [random_batch(*shape) for shape in SHAPES]


@pytest.fixture(scope="module")
def engine() -> Iterator[TorchEngine]:
    engine = TorchEngine(classifier(), precision="f32", lanes=2, threads=2)
    yield engine
    engine.close()


class TestTorch(EngineConformity):
    pass


def test_bf16_is_close_and_comes_out_as_float32() -> None:
    engine = TorchEngine(embedder("mean"), precision="bf16", threads=2)
    for answer, expected in zip(
        engine.infer(BATCHES).outputs, plain(embedder("mean"), BATCHES), strict=True
    ):
        assert answer.dtype == np.float32
        assert (answer * expected).sum(axis=1).min() > 0.999
        assert np.abs(answer - expected).max() > 1e-4  # float32 would be closer
    engine.close()


def test_threads_are_set_for_the_process() -> None:
    before = torch.get_num_threads()
    try:
        TorchEngine(classifier(), precision="f32", threads=before + 1).close()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_closed_engine_says_so() -> None:
    engine = TorchEngine(classifier(), precision="f32")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer([random_batch(1, 4)])


def test_vocabulary_is_the_largest_table() -> None:
    assert vocabulary_size(classifier()) == VOCABULARY


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["bf16", "f16", "f32"])
def test_gpu_answers_as_the_processor_does(precision: str) -> None:
    engine = TorchEngine(embedder("mean"), precision=precision, lanes=3, device="cuda")
    assert engine.device == torch.cuda.get_device_name()
    batches = BATCHES * 20
    for answer, expected in zip(
        engine.infer(batches).outputs, plain(embedder("mean"), batches), strict=True
    ):
        assert (answer * expected).sum(axis=1).min() > 0.999
    engine.close()
