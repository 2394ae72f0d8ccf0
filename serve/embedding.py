"""Heads of tasks that embed texts: their pooling, layers and prompts. Pure; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from serve.settings import Settings
from serve.task import Head

TokenPooling = Literal["mean", "cls", "max", "mean-sqrt-len", "weighted-mean", "last-token"]
PoolingMode = Literal[TokenPooling, "mean-max", "last-k"]
Activation = Literal["identity", "tanh", "relu", "gelu", "sigmoid", "silu"]


class Layer(Settings):
    """A layer after the pooling; its weights are in ``head.safetensors``, by its position.

    Attributes:
        kind: ``normalize`` has no weights and scales to length 1.
        activation: Activation of ``dense``; unused otherwise.
    """

    kind: Literal["dense", "layer-norm", "normalize"]
    activation: Activation = "identity"


class Pooling(Settings):
    """Pooling of the encoder's token vectors into one vector.

    Attributes:
        mode: ``mean-max`` concatenates both (2 H numbers); ``last-k`` averages the last layers,
            then the tokens; all others use the last layer. ``mean-sqrt-len`` divides the sum by
            the square root of the number of tokens, ``weighted-mean`` weights a token by its
            position.
        also: Poolings whose vectors are appended to that of ``mode``, in this order.
        skip: Tokens at the start that are not pooled: those of a prompt.
        last_k: Number of layers of ``last-k``; unused otherwise.
        layers: Layers that are applied to the vector next.
        normalize: Whether to scale to length 1, so that a dot product is the cosine.
        dimensions: Numbers that are kept at the end; None keeps all.
    """

    mode: PoolingMode = "mean"
    also: tuple[TokenPooling, ...] = ()
    skip: int = Field(default=0, ge=0)
    last_k: int = Field(default=4, ge=1)
    layers: tuple[Layer, ...] = ()
    normalize: bool = True
    dimensions: int | None = Field(default=None, ge=1)


class EmbeddingHead(Head):
    """Head of a model that embeds texts.

    Attributes:
        pooling: From the vectors of the tokens to that of the text.
        prompts: Texts that may be prepended to a text, by name.
        default_prompt_name: Name of the prompt that is prepended where none is chosen; None
            prepends nothing.
        tokens: Whether the result is one vector for each token, without pooling.
    """

    pooling: Pooling
    prompts: Mapping[str, str] = {}
    default_prompt_name: str | None = None
    tokens: bool = False

    @model_validator(mode="after")
    def _default_prompt_exists(self) -> Self:
        self.prompt(self.default_prompt_name)
        return self

    def prompt(self, name: str | None) -> str:
        """Return the prompt of a name, or that of the default.

        Raises:
            ValueError: There is no such prompt; the message lists those that there are.
        """
        name = name or self.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(self.prompts) or "none"
            raise ValueError(f"there is no prompt {name!r}; the model has {known}")
        return self.prompts[name]
