from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from serve.engine.choice import open_engine
from serve.errors import EngineUnavailable
from serve.settings import EngineSettings
from tests.serve.engine.conformity import classifier, plain, random_batch

pytestmark = pytest.mark.model


def test_opened_engine_computes_and_its_choice_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serve.engine.choice")
    settings = EngineSettings(precision="f32")
    engine = open_engine(classifier, settings, on_gpu=False, cache_dir=tmp_path, digest="d")
    batch = random_batch(3, 8)
    expected = plain(classifier(), [batch])[0]
    np.testing.assert_allclose(engine.infer([batch]).outputs[0], expected, atol=2e-6)
    assert (engine.name, engine.precision) == ("openvino", "f32")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"computing with openvino in f32 on {engine.device}, streams: ")
    assert line.endswith("f32 as configured")
    engine.close()


class Undecided(torch.nn.Module):
    """Branches on its data, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(120, 4)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self.table(input_ids).sum(dim=1)
        return sums if sums.sum() > 0 else -sums


def test_torch_takes_what_openvino_cannot_convert(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serve.engine.choice")
    engine = open_engine(Undecided, EngineSettings(), on_gpu=False, cache_dir=None, digest="d")
    assert engine.name == "torch"
    assert engine.infer([random_batch(3, 8)]).outputs[0].shape == (3, 4)
    assert "torch because OpenVINO cannot be used: OpenVINO cannot convert" in caplog.text
    engine.close()


class Peculiar(Undecided):
    """Raises what nobody expects of it while it is taken to pieces, and computes otherwise."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():
            raise KeyError("shape")
        return super().forward(input_ids, attention_mask)


def test_whatever_a_model_raises_while_it_is_converted_leaves_it_to_torch() -> None:
    engine = open_engine(Peculiar, EngineSettings(), on_gpu=False, cache_dir=None, digest="d")
    assert engine.name == "torch"
    engine.close()


def test_openvino_by_name_gets_no_stand_in() -> None:
    settings = EngineSettings(kind="openvino")
    with pytest.raises(EngineUnavailable, match="OpenVINO cannot convert"):
        open_engine(Undecided, settings, on_gpu=False, cache_dir=None, digest="d")
