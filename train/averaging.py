"""A last encoder layer that averages, with which a frozen encoder classifies far better.

A BERT sequence classifier uses only the vector of the first token, which carries little
information in an encoder that was not trained for this task; the mean of all vectors has more.
Written as weights of an ordinary layer, the mean needs no extra code for serving.

T tokens, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from train.errors import BaseUnsupported

# Weight of the mean relative to the first token's own vector in the layer's sum. Far above, half
# precision would lose the small parts of the mean; far below, the token's vector dominates.
MEAN_WEIGHT = 16.0


def average_in_last_layer(model: Any) -> None:
    """Overwrite the last encoder layer so that each output is the mean of its inputs.

    Queries and keys of 0 make all attention weights equal, and values and output projection are
    the identity, so attention gives the mean over the T tokens (padding is masked out); the
    feed-forward part adds 0, and the normalisations keep their form without their learnt scale.

    Args:
        model: A transformers sequence classifier in BERT's layout; changed in place.
    Raises:
        BaseUnsupported: The model has another layout, or fewer than 2 layers. Not retriable.
    """
    config = model.config
    if config.model_type != "bert" or config.num_hidden_layers < 2:
        raise BaseUnsupported(
            f"freeze 'encoder' needs a BERT encoder of at least 2 layers, but the base is "
            f"{config.model_type!r} with {config.num_hidden_layers}; train with freeze 'none'"
        )
    layer = model.bert.encoder.layer[-1]
    attention = layer.attention
    with torch.no_grad():
        for dense in (attention.self.query, attention.self.key):
            _fill(dense, scale=0.0)
        _fill(attention.self.value, scale=1.0)
        _fill(attention.output.dense, scale=MEAN_WEIGHT)
        for dense in (layer.intermediate.dense, layer.output.dense):
            _fill(dense, scale=0.0)
        for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()


def _fill(dense: nn.Linear, *, scale: float) -> None:
    dense.weight.zero_()
    dense.weight.fill_diagonal_(scale)
    dense.bias.zero_()
