"""The whole boundary to an engine: padded integer arrays in, float arrays out."""

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
    """What became of batches.

    Attributes:
        outputs: One array per batch, in order: logits (B, C) or embeddings (B, H).
        compute_s: What the batches took to compute, summed; not what they waited for those of
            other calls.
    """

    outputs: list[NDArray[np.float32]]
    compute_s: float


class Engine(Protocol):
    """A compiled model; safe to call from several threads at a time.

    Attributes:
        name: ``openvino`` or ``torch``.
        precision: ``f32``, ``bf16`` or ``f16``: what the matrix products really run in.
        device: The processor or card by name.
        streams: Batches that it computes at a time.
    """

    name: str
    precision: str
    device: str
    streams: int

    def infer(self, batches: Sequence[Batch]) -> Inferred:
        """Run batches, several at a time where that is faster.

        Args:
            batches: Each (B, T); B and T may differ from batch to batch.
        Raises:
            EngineError: The engine failed on one of them.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds; calls in progress end first."""
        ...
