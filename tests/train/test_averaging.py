"""The averaging layer against the mean worked out directly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from train.averaging import MEAN_WEIGHT, average_in_last_layer
from train.errors import BaseUnsupported

pytestmark = pytest.mark.model


def tiny_bert(layers: int) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return BertForSequenceClassification(config).eval()


def test_first_vector_becomes_the_mean_without_padding() -> None:
    torch.manual_seed(0)
    model = tiny_bert(layers=3)
    average_in_last_layer(model)
    ids = torch.randint(5, 50, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    with torch.inference_mode():
        output = model.bert(ids, attention_mask=mask, output_hidden_states=True)
    before = output.hidden_states[-2]  # (B, T, H)
    weights = mask.unsqueeze(-1) / mask.sum(dim=1)[:, None, None]
    mean = (before * weights).sum(dim=1)  # (B, H)
    wanted = functional.layer_norm(before[:, 0] + MEAN_WEIGHT * mean, (16,))
    torch.testing.assert_close(output.last_hidden_state[:, 0], wanted, rtol=1e-4, atol=1e-4)


def test_other_layouts_and_single_layers_are_refused() -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    with pytest.raises(BaseUnsupported, match="distilbert"):
        average_in_last_layer(DistilBertForSequenceClassification(config))
    with pytest.raises(BaseUnsupported, match="at least 2 layers"):
        average_in_last_layer(tiny_bert(layers=1))
