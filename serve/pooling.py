"""Pooling of token vectors into one vector, and the layers that some models have after it.

B batch, T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from serve.artifact import HEAD_FILE
from serve.checkpoint import library
from serve.embedding import Layer, Pooling

ACTIVATIONS = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool the token vectors of each item into one vector.

    Args:
        states: Token vectors, float32; shape (B, T, H).
        attention_mask: 1 for a token, 0 for the padding after them; shape (B, T), at least one
            token each.
    Returns:
        Vectors; shape (B, P * H) for P poolings, which are concatenated.
    """
    first = {"mean-max": ("mean", "max"), "last-k": ("mean",)}.get(pooling.mode, (pooling.mode,))
    counted = attention_mask > 0
    if pooling.skip:
        counted = counted & (attention_mask.cumsum(dim=1) > pooling.skip)
    vectors = [
        _pooled(mode, states, counted, attention_mask, pooling.skip)
        for mode in (*first, *pooling.also)
    ]
    return torch.cat(vectors, dim=-1) if len(vectors) > 1 else vectors[0]


def _pooled(mode: str, states: Tensor, counted: Tensor, mask: Tensor, skip: int) -> Tensor:
    if mode == "cls" and not skip:
        return states[:, 0]
    place = mask.cumsum(dim=1)  # (B, T), 1 for the first token
    if mode == "cls":
        return _sum(states, counted & (place == skip + 1))
    if mode == "last-token":
        return _sum(states, counted & (place == mask.sum(dim=1, keepdim=True)))
    if mode == "max":
        lowest = torch.finfo(states.dtype).min
        return states.where(counted.unsqueeze(-1), lowest).amax(dim=1)
    if mode == "weighted-mean":
        weights = place.where(counted, 0).to(states.dtype)
        total = weights.sum(dim=1, keepdim=True).clamp(min=1)
        return _sum(states * weights.unsqueeze(-1), counted) / total
    tokens = counted.sum(dim=1, keepdim=True).clamp(min=1).to(states.dtype)
    return _sum(states, counted) / (tokens.sqrt() if mode == "mean-sqrt-len" else tokens)


def _sum(states: Tensor, counted: Tensor) -> Tensor:
    # Selects instead of multiplying: padding may contain NaN, and NaN times 0 is NaN.
    return states.where(counted.unsqueeze(-1), 0.0).sum(dim=1)


class AfterPooling(nn.Module):
    """A layer after the pooling; computes in float32 whatever the type of its weights."""

    def __init__(self, layer: Layer, weight: Tensor | None, bias: Tensor | None) -> None:
        super().__init__()
        self.kind = layer.kind
        self.weight = None if weight is None else nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.activation = ACTIVATIONS[layer.activation]()

    def forward(self, vectors: Tensor) -> Tensor:
        """Return vectors of the width of the layer for vectors (B, H)."""
        if self.weight is None:
            return functional.normalize(vectors, dim=-1)
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        if self.kind == "layer-norm":
            return functional.layer_norm(vectors, weight.shape, weight, bias)
        output: Tensor = self.activation(functional.linear(vectors, weight, bias))
        return output


def load_layers(layers: Sequence[Layer], path: Path) -> nn.Sequential:
    """Load the layers after the pooling of a model directory.

    Raises:
        ArtifactError: Their weights cannot be read. Not retriable.
    """
    if not layers:
        return nn.Sequential()
    file = path / HEAD_FILE
    with library(file, "the layers after the pooling cannot be read; import the model again"):
        weights = load_file(file) if file.exists() else {}
        return nn.Sequential(
            *(
                AfterPooling(layer, weights.get(f"{place}.weight"), weights.get(f"{place}.bias"))
                for place, layer in enumerate(layers)
            )
        )
