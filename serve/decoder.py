"""The decoder of a masked language model: its last layer, which the host computes.

H hidden, M masks, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from serve.artifact import WEIGHTS_FILE
from serve.checkpoint import library
from serve.errors import ArtifactError, first_line
from serve.task import Source

# Greatest difference between the decoder on the host and the model's own logits, relative to the
# largest logit.
TOLERANCE = 1e-3


class Decoder(NamedTuple):
    """The last layer of the model.

    Attributes:
        weight: float32, shape (V, H).
        bias: float32, shape (V,); None where there is none.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    def logits(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a logit for each token; shape (M, H) to (M, V)."""
        products: NDArray[np.float32] = states @ self.weight.T
        return products if self.bias is None else products + self.bias

    def is_same(self, other: Decoder) -> bool:
        """Return whether both have the same numbers."""
        ours, theirs = ([part for part in one if part is not None] for one in (self, other))
        return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def last_layer(model: Any, directory: Path) -> tuple[str, Any]:
    """Return the name of the decoder in the model, and the decoder.

    Raises:
        ArtifactError: The model's last layer is not linear. Not retriable.
    """
    from torch import nn

    decoder = model.get_output_embeddings()
    name = next((name for name, part in model.named_modules() if part is decoder), None)
    if name is None or not isinstance(decoder, nn.Linear):
        raise ArtifactError(f"{_unfit(model, directory)}: its last layer is not linear")
    return name, decoder


def require_linear(source: Source, name: str, tokens: list[int]) -> None:
    """Refuse a model whose logits are not what the decoder makes of its input, and no more.

    Args:
        name: Name of the decoder in the model.
        tokens: Token ids of a text to try.
    Raises:
        ArtifactError: Something follows the decoder; the message names the difference. Not
            retriable.
    """
    import torch

    model, unfit = source.model, _unfit(source.model, source.network)
    decoder = model.get_submodule(name)
    ids = torch.tensor([tokens])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        logits = model(**inputs).logits[0].numpy()
        model.set_submodule(name, torch.nn.Identity())
        try:
            states = model(**inputs).logits[0].numpy()
        except (AttributeError, RuntimeError, TypeError, ValueError) as exc:
            raise ArtifactError(f"{unfit}: {name} is not its last step: {first_line(exc)}") from exc
        finally:
            model.set_submodule(name, decoder)
    shape = (len(tokens), decoder.out_features)
    if logits.shape != shape or states.shape[1] != decoder.in_features:
        raise ArtifactError(
            f"{unfit}: its logits have the shape {logits.shape}, but those of {name} have {shape}"
        )
    difference = np.abs(on_host(decoder).logits(states) - logits).max()
    if difference > TOLERANCE * np.abs(logits).max():
        raise ArtifactError(
            f"{unfit}: something after {name} changes the logits, by up to {difference:.3g}"
        )


def saved_names(source: Source, decoder: Any) -> tuple[str, str | None]:
    """Return the names of the decoder's matrix and bias among the weights that will be written.

    A tied weight is written under one of its names, and some families rename weights.
    """
    places = {tensor.data_ptr() for tensor in decoder.parameters()}
    own = {n: t for n, t in source.model.state_dict().items() if t.data_ptr() in places}
    with TemporaryDirectory() as directory, library(source.network, "its last layer is not saved"):
        source.model.save_pretrained(directory, state_dict=own, max_shard_size="1TB")
        with safe_open(Path(directory) / WEIGHTS_FILE, framework="numpy") as file:
            names = {len(file.get_slice(name).get_shape()): name for name in file.keys()}  # noqa: SIM118
    return names[2], names.get(1)


def read_decoder(directory: Path, weight: str, bias: str | None) -> Decoder:
    """Read the decoder of a model directory.

    Args:
        weight: Name of the matrix among the weights.
        bias: Name of the bias; None where there is none.
    Raises:
        ArtifactError: There are no such weights. Not retriable.
    """
    file = directory / WEIGHTS_FILE
    fault = "the decoder that the card names cannot be read; import the model again"
    with library(file, fault), safe_open(file, framework="numpy") as weights:
        own_bias = None if bias is None else weights.get_tensor(bias)
        return Decoder(weights.get_tensor(weight), own_bias)


def on_host(decoder: Any) -> Decoder:
    """Return a linear layer of torch as numpy arrays."""
    bias = None if decoder.bias is None else decoder.bias.detach().numpy()
    return Decoder(decoder.weight.detach().numpy(), bias)


def _unfit(model: Any, directory: Path) -> str:
    return (
        f"{directory}: fill-mask serves models whose logits are one linear layer's, which those "
        f"of {model.config.model_type} are not, so choose another"
    )
