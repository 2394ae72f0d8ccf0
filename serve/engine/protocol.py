"""The complete interface of an engine: padded integer arrays in, float arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Batch(NamedTuple):
    """Token ids of B items padded to the longest, T.

    Attributes:
        input_ids: int64, shape (B, T).
        attention_mask: int64, shape (B, T); 1 for a token, 0 for padding.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]


class Inferred(NamedTuple):
    """Result of a call to an engine.

    Attributes:
        outputs: One array per batch, in order: logits (B, C) or embeddings (B, H).
        compute_s: Compute time of the batches, summed, without waiting for those of other
            calls.
    """

    outputs: list[NDArray[np.float32]]
    compute_s: float


class Engine(Protocol):
    """A compiled model; safe to call from several threads at once.

    Attributes:
        name: ``openvino`` or ``torch``.
        precision: ``f32``, ``bf16`` or ``f16``: the actual precision of matrix products.
        device: Name of the processor or card.
        streams: Batches that it computes at once.
    """

    name: str
    precision: str
    device: str
    streams: int

    def infer(self, batches: Sequence[Batch]) -> Inferred:
        """Run batches, several at once where that is faster.

        Args:
            batches: Each (B, T); B and T may differ from batch to batch.
        Raises:
            EngineError: The engine failed on one of them. Retriable.
        """
        ...

    def close(self) -> None:
        """Free the engine's resources; calls in progress end first."""
        ...
