"""The network of a model directory as one torch module: token ids in, numbers out.

Decides which checkpoints are refused. Does not handle devices or precision: engines compile or
cast the module that it returns.

B batch, T tokens, C classes, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from serve.artifact import CONFIG_FILE, Artifact
from serve.checkpoint import library, read_json, require_checkpoint
from serve.embedding import EmbeddingHead, Pooling
from serve.errors import ArtifactError
from serve.families import REFUSED
from serve.pooling import load_layers, pool
from serve.registry import task_type


class Headed(nn.Module):
    """A transformers model with the head of a task, reduced to the outputs that the task uses."""

    def __init__(self, model: Any, select: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.select = select

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return (B, C) or (B, T, C) for token ids (B, T)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return self.select(output)


class Embedder(nn.Module):
    """A transformers encoder, the pooling of its token vectors and the layers after it."""

    def __init__(self, encoder: Any, pooling: Pooling, layers: nn.Sequential | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.layers = nn.Sequential() if layers is None else layers

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings (B, H), or (B, 2 H) for ``mean-max``, for token ids (B, T)."""
        # Sums over tokens lose digits in half precision, so pooling is float32 throughout.
        states = self._states(input_ids, attention_mask).float()  # (B, T, H)
        embedding = self.layers(pool(states, attention_mask, self.pooling))  # (B, H)
        if self.pooling.normalize:
            embedding = functional.normalize(embedding, dim=-1)
        kept: Tensor = embedding[:, : self.pooling.dimensions]
        return kept

    def _states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        wants_layers = self.pooling.mode == "last-k"
        output = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=wants_layers
        )
        if wants_layers:
            return torch.stack(output.hidden_states[-self.pooling.last_k :]).mean(dim=0)
        states: Tensor = output.last_hidden_state
        return states


class TokenEmbedder(nn.Module):
    """A transformers encoder that returns the vectors of its tokens."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors of the last layer (B, T, H) for token ids (B, T)."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = output.last_hidden_state.float()
        return states


def build_module(artifact: Artifact) -> nn.Module:
    """Load the network of a model directory.

    Args:
        artifact: A verified model directory; its weights are safetensors.
    Returns:
        The module of its task, in float32 on the CPU, in evaluation mode, without gradients; see
        ``task.Task.build_module`` for its arguments and outputs.
    Raises:
        ArtifactError: The weights do not fit the card or the configuration. Not retriable.
    """
    return task_type(artifact.card.task).build_module(artifact).eval().requires_grad_(False)


def headed(
    artifact: Artifact,
    model_class: str,
    select: Callable[[Any], Tensor],
    *,
    classes: int | None = None,
) -> Headed:
    """Load a transformers model with its head.

    Args:
        model_class: Name of the transformers class.
        select: From the model's output object to logits (B, C) or (B, T, C).
        classes: C as the card has it; None where the card does not determine it.
    Raises:
        ArtifactError: The weights do not fit the card or the configuration. Not retriable.
    """
    model = load_pretrained(getattr(transformers, model_class), artifact.path)
    if classes is not None and model.config.num_labels != classes:
        raise ArtifactError(
            f"{artifact.path}: the weights have {model.config.num_labels} classes, but the card "
            f"has {classes}; import the model again, with one label per class"
        )
    return Headed(model, select)


def embedder(artifact: Artifact) -> nn.Module:
    """Load an encoder with the pooling of its card, or for the vectors of tokens without.

    Raises:
        ArtifactError: The weights do not fit the card or the configuration. Not retriable.
    """
    head = artifact.card.head
    assert isinstance(head, EmbeddingHead)
    encoder = load_pretrained(AutoModel, artifact.path)
    if head.tokens:
        return TokenEmbedder(encoder)
    _require_layers(artifact.path, encoder, head.pooling)
    return Embedder(encoder, head.pooling, load_layers(head.pooling.layers, artifact.path))


def load_pretrained(auto_class: Any, path: Path) -> Any:
    """Load a transformers model from a local directory, with all weights from safetensors.

    Args:
        auto_class: A class of transformers such as ``AutoModel``.
        path: Directory with config.json and the safetensors; nothing is downloaded.
    Returns:
        The model in float32, with scaled-dot-product attention where the model supports it and
        OpenVINO computes it; an unused pooler is removed.
    Raises:
        ArtifactError: Weights are missing, pickled or have another shape; the architecture is
            unknown, refused by ``families`` or needs code from the directory. Not retriable.
    """
    # Otherwise transformers logs a table of missing weights; they are checked below.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    require_checkpoint(path)
    config = read_config(auto_class, path)
    with library(path, "transformers cannot load it"):
        model, report = auto_class.from_pretrained(
            path,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention_of(auto_class, config),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below
        )
    for name, found, wanted in sorted(report["mismatched_keys"]):
        raise ArtifactError(
            f"{path}: {name} has the shape {tuple(found)} in the weights, but {tuple(wanted)} in "
            f"{CONFIG_FILE}; correct {CONFIG_FILE} (labels, vocabulary, sizes) or download both "
            "again"
        )
    missing = sorted(report["missing_keys"])
    if auto_class is AutoModel and hasattr(model, "pooler"):
        # Its output is not used, and many checkpoints lack its weights. It is replaced, not set
        # to None, because some encoders always call it.
        model.pooler = nn.Identity()
        missing = [key for key in missing if not key.startswith("pooler.")]
    if missing:
        in_encoder = auto_class is AutoModel or any(
            key.startswith(model.base_model_prefix) and ".pooler." not in key for key in missing
        )
        raise ArtifactError(
            f"{path}: the weights have no {', '.join(missing[:3])} ({len(missing)} missing); "
            + (
                f"they do not match {CONFIG_FILE}: download both again"
                if in_encoder
                else "the model was made for another task: train it for this one first"
            )
        )
    return model


def read_config(auto_class: Any, path: Path) -> Any:
    """Read the configuration of a directory.

    Raises:
        ArtifactError: The file cannot be read; or the family is refused, unknown or has no
            network for ``auto_class``. Not retriable.
    """
    family = read_json(path / CONFIG_FILE).get("model_type")
    if family in REFUSED:
        raise ArtifactError(f"{path}: {family} is not served: {REFUSED[family]}")
    if family not in CONFIG_MAPPING:
        raise ArtifactError(
            f"{path / CONFIG_FILE}: model_type {family!r} is not known to transformers "
            f"{transformers_version}, and code from the source is not run; choose another model"
        )
    with library(path / CONFIG_FILE, "transformers cannot read it"):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if type(config) not in auto_class._model_mapping:
        raise ArtifactError(
            f"{path}: transformers has no {auto_class.__name__.removeprefix('Auto')} for {family}; "
            "choose another model or task"
        )
    return config


def attention_of(auto_class: Any, config: Any) -> str:
    """Return ``sdpa`` where the model supports it and OpenVINO computes it, else ``eager``."""
    # A padding row whose window contains only padding attends to nothing: OpenVINO's sdpa
    # returns NaN for it, which the next layer spreads.
    is_local = any(getattr(config, name, None) for name in ("local_attention", "sliding_window"))
    has_sdpa = getattr(auto_class._model_mapping[type(config)], "_supports_sdpa", False)
    return "sdpa" if has_sdpa and not is_local else "eager"


def _require_layers(path: Path, encoder: Any, pooling: Pooling) -> None:
    layers = encoder.config.num_hidden_layers
    if pooling.mode == "last-k" and pooling.last_k > layers:
        raise ArtifactError(
            f"{path}: the pooling uses the last {pooling.last_k} layers, but the encoder has only "
            f"{layers}; choose a smaller last_k"
        )


def vocabulary_size(module: torch.nn.Module) -> int:
    """Return the number of word embeddings: the rows of the largest embedding table."""
    tables = (part for part in module.modules() if isinstance(part, torch.nn.Embedding))
    return max(table.num_embeddings for table in tables)
