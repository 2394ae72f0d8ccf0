from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serve.engine.choice import open_engine
from serve.engine.padding import BatchSettings
from serve.engine.protocol import Engine
from serve.errors import EngineUnavailable
from serve.settings import EngineSettings
from tests.serve.engine.conformity import classifier, plain, random_items, require_close

pytestmark = pytest.mark.model

BATCHES = BatchSettings()


def test_opened_engine_computes_and_its_choice_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serve.engine.choice")
    settings = EngineSettings(precision="f32")
    engine = open_engine(
        classifier, settings, on_gpu=False, cache_dir=tmp_path, digest="d", batches=BATCHES
    )
    items = random_items(3, 8)
    require_close(engine.infer(items).outputs, plain(classifier(), items))
    assert (engine.name, engine.precision) == ("openvino", "f32")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"computing with openvino in f32 on {engine.device}, streams: ")
    assert line.endswith("f32 as configured")
    engine.close()


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_opened_engine_takes_token_types_and_keeps_to_the_settings_of_batches(kind: Any) -> None:
    items = random_items(3, 8, token_types=True)
    engine = open_engine(
        classifier,
        EngineSettings(kind=kind, precision="f32"),
        on_gpu=False,
        cache_dir=None,
        digest="d",
        batches=BatchSettings(max_items=1),
        token_types=True,
    )
    inferred = engine.infer(items)
    assert inferred.padded_tokens == sum(len(item.ids) for item in items)
    assert [answer.shape for (answer,) in inferred.outputs] == [(3,)] * 3
    engine.close()


class Undecided(torch.nn.Module):
    """Branches on its data, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(120, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self.table(input_ids).sum(dim=1)
        return sums if sums.sum() > 0 else -sums


def opened(factory: Callable[[], torch.nn.Module], settings: EngineSettings) -> Engine:
    return open_engine(factory, settings, on_gpu=False, cache_dir=None, digest="d", batches=BATCHES)


def test_torch_takes_what_openvino_cannot_convert(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serve.engine.choice")
    engine = opened(Undecided, EngineSettings())
    assert engine.name == "torch"
    assert [answer.shape for (answer,) in engine.infer(random_items(3, 8)).outputs] == [(4,)] * 3
    assert "torch because OpenVINO cannot be used: OpenVINO cannot convert" in caplog.text
    engine.close()


class Peculiar(Undecided):
    """Raises what nobody expects of it while it is taken to pieces, and computes otherwise."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            raise KeyError("shape")
        return super().forward(input_ids, attention_mask)


def test_whatever_a_model_raises_while_it_is_converted_leaves_it_to_torch() -> None:
    engine = opened(Peculiar, EngineSettings())
    assert engine.name == "torch"
    engine.close()


def test_openvino_by_name_gets_no_stand_in() -> None:
    with pytest.raises(EngineUnavailable, match="OpenVINO cannot convert"):
        opened(Undecided, EngineSettings(kind="openvino"))
