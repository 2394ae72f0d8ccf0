"""The complete interface of an engine: items of token ids in, their output arrays out.

An engine decides itself how items share a computation: padded to the longest of a batch, or one
after the other.

C classes, H hidden, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Item(NamedTuple):
    """Tokens that are computed together, such as those of one text.

    Attributes:
        ids: Token ids, int32; shape (T,), T >= 1.
        types: Token types, int32; shape (T,). None where the module takes none.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32] | None = None


class Inferred(NamedTuple):
    """Result of a call to an engine.

    Attributes:
        outputs: For each item, in order, one array for each output of the module: (C,), (H,), or
            (T, C) without padding.
        padded_tokens: Tokens computed, padding included.
        compute_s: Compute time, summed over batches, without waiting for other calls.
    """

    outputs: list[tuple[NDArray[np.float32], ...]]
    padded_tokens: int
    compute_s: float


class Engine(Protocol):
    """A compiled model; safe to call from several threads at once.

    Attributes:
        name: ``openvino`` or ``torch``.
        precision: ``f32``, ``bf16`` or ``f16``: the actual precision of matrix products.
        device: Name of the processor or card.
    """

    name: str
    precision: str
    device: str

    def infer(self, items: Sequence[Item]) -> Inferred:
        """Compute the outputs of items, in any number.

        Args:
            items: Shape (N,); of any length that the model accepts.
        Raises:
            EngineError: The engine failed on some of them. Retriable.
        """
        ...

    def warm_up(self, item: Item) -> None:
        """Compute an item alone once wherever the engine computes, so that later ones are fast.

        Raises:
            EngineError: The engine failed. Retriable.
        """
        ...

    def close(self) -> None:
        """Free the engine's resources; calls in progress end first."""
        ...
