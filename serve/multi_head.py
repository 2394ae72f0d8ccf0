"""Several heads on one encoder as one torch module, and their weights on disk.

The encoder is in ``model.safetensors`` of the model directory, each head in a directory below
``heads``: its configuration, and the weights that the encoder does not have.

B batch, C classes, H hidden, T tokens.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from serve.artifact import CONFIG_FILE, HEAD_FILE, WEIGHTS_FILE, Artifact
from serve.checkpoint import library
from serve.errors import ArtifactError
from serve.module import build_module, load_pretrained
from serve.task import Head

HEADS_DIR = "heads"


class HeadOfTask(Protocol):
    """Task and head of one part of a multi-task model."""

    task: str
    head: Head


class States(threading.local):
    """Token vectors (B, T, H) on their way from the encoder to the heads, for each thread.

    Not an attribute of a module: an exporter refuses modules that assign to their own.
    """

    current: Tensor | None = None


class Reused(nn.Module):
    """Stands in for the encoder of a head: returns the states that were computed already."""

    def __init__(self, encoder: Any, states: States) -> None:
        super().__init__()
        self.pooler = getattr(encoder, "pooler", None)
        # ALBERT's pooler is a plain layer for the first token, with the activation beside it.
        self.activation = getattr(encoder, "pooler_activation", None)
        self.config = encoder.config
        self._states = states

    def forward(self, *_: Any, **__: Any) -> BaseModelOutputWithPooling:
        """Return states (B, T, H) and, where the encoder has a pooler, its vectors (B, H)."""
        states = self._states.current
        assert states is not None  # the encoder was called before the heads
        pooled = None
        if self.activation is not None and self.pooler is not None:
            pooled = self.activation(self.pooler(states[:, 0]))
        elif self.pooler is not None:
            pooled = self.pooler(states)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)


class MultiHead(nn.Module):
    """One encoder and several heads; the encoder computes once."""

    def __init__(self, encoder: Any, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads.values())
        self._states = States()
        for head in self.heads:
            _replace_encoder(head, self._states)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return one tensor for each head, (B, C), (B, H) or (B, T, C), for token ids (B, T)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types)
        self._states.current = output.last_hidden_state
        try:
            return tuple(head(input_ids, attention_mask) for head in self.heads)
        finally:
            self._states.current = None


def load_heads(artifact: Artifact, members: Mapping[str, HeadOfTask]) -> MultiHead:
    """Load the encoder and the heads of a multi-task model directory.

    Raises:
        ArtifactError: Weights are missing or do not fit. Not retriable.
    """
    encoder = load_pretrained(AutoModel, artifact.path)
    weights = load_file(artifact.path / WEIGHTS_FILE)
    heads: dict[str, nn.Module] = {}
    for name, member in members.items():
        folder = artifact.path / HEADS_DIR / name
        with tempfile.TemporaryDirectory(prefix="bertstream-head-") as made:
            _write_whole(folder, weights, Path(made))
            card = artifact.card.model_copy(update={"task": member.task, "head": member.head})
            heads[name] = build_module(replace(artifact, path=Path(made), card=card))
    return MultiHead(encoder, heads)


def write_head(source: Artifact, encoder: Mapping[str, Tensor], folder: Path) -> None:
    """Write what a model directory has beyond a shared encoder.

    Args:
        source: A model directory of one task.
        encoder: Weights of the shared encoder, without a prefix.
        folder: Directory to create.
    Raises:
        ArtifactError: The encoder of the source has other weights; the message names one. Not
            retriable.
    """
    weights = load_file(source.path / WEIGHTS_FILE)
    prefix = _prefix(weights, encoder, source.path)
    own: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        shared = encoder.get(key.removeprefix(prefix)) if key.startswith(prefix) else None
        if shared is None:
            own[key] = tensor
        elif not torch.equal(shared, tensor):
            raise ArtifactError(
                f"{source.path}: {key} differs from the encoder of the first model; heads share an "
                "encoder only if it was frozen while they were trained: train with --freeze "
                "encoder, or import this head from the directory of the first model"
            )
    folder.mkdir(parents=True)
    shutil.copyfile(source.path / CONFIG_FILE, folder / CONFIG_FILE)
    save_file(own, folder / WEIGHTS_FILE, metadata={"format": "pt", "prefix": prefix})
    if (source.path / HEAD_FILE).exists():
        shutil.copyfile(source.path / HEAD_FILE, folder / HEAD_FILE)


def _write_whole(folder: Path, encoder: Mapping[str, Tensor], out: Path) -> None:
    """Write the directory of one head's model, encoder included."""
    with library(folder, "cannot be read; combine the models again"):
        for file in folder.iterdir():
            if file.name != WEIGHTS_FILE:
                shutil.copyfile(file, out / file.name)
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as stored:
            prefix = (stored.metadata() or {}).get("prefix", "")
        own = load_file(folder / WEIGHTS_FILE)
        whole = own | {f"{prefix}{key}": tensor for key, tensor in encoder.items()}
        save_file(whole, out / WEIGHTS_FILE, metadata={"format": "pt"})


def _prefix(weights: Mapping[str, Tensor], encoder: Mapping[str, Tensor], place: Path) -> str:
    """Return what the keys of the encoder begin with in a model with a head, such as ``bert.``."""
    first = next(iter(encoder))
    for key in weights:
        prefix = key.removesuffix(first)
        if key.endswith(first) and all(f"{prefix}{name}" in weights for name in encoder):
            return prefix
    raise ArtifactError(
        f"{place}: has another architecture than the first model, so they cannot share an encoder"
    )


def _replace_encoder(head: nn.Module, states: States) -> None:
    holder: Any = getattr(head, "model", head)
    name = "encoder" if holder is head else holder.base_model_prefix
    setattr(holder, name, Reused(getattr(holder, name), states))
