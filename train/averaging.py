"""A last encoder layer that averages: a frozen encoder then classifies far better.

A sequence classifier of BERT looks at the vector of the first token only, and in an encoder
that was not trained for this task little stands there; the mean of all token vectors says more.
Written as weights of an ordinary layer, the mean needs no code of its own where it is served.

T tokens, H hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from train.errors import BaseUnsupported

# How much the mean outweighs the first token's own vector in the layer's sum. Far above, and
# half precision would lose the small parts of the mean; far below, and the token drowns it.
MEAN_WEIGHT = 16.0


def average_in_last_layer(model: Any) -> None:
    """Overwrite the last encoder layer so that its every output is the mean of its inputs.

    Queries and keys of 0 make all attention weights equal, values and output projection are
    the identity, so attention gives the mean over the T tokens (padding is masked out); the
    feed-forward part adds 0, and the normalisations keep their form without their learnt scale.

    Args:
        model: A sequence classifier of transformers in BERT's layout; changed in place.
    Raises:
        BaseUnsupported: It is of another layout, or has no second layer to learn from.
    """
    config = model.config
    if config.model_type != "bert" or config.num_hidden_layers < 2:
        raise BaseUnsupported(
            f"freeze 'encoder' needs a BERT encoder of at least 2 layers, and the base is "
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
