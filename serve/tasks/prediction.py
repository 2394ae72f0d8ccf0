"""What a task makes of the engine's numbers, and how many digits of them are told."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# The same text in another batch is padded differently and summed in another order. With these
# decimals nearly all scores stay the same bytes; one more, and in bf16 every seventh would not.
SCORE_DECIMALS = {"f32": 4, "f16": 3, "bf16": 2}
# Of an embedding of length 1 fewer would cost more than bf16 does, and be hardly more stable.
EMBEDDING_DECIMALS = 4


class Prediction(NamedTuple):
    """One text's part of an answer.

    Attributes:
        result: JSON, shaped as the Hugging Face pipeline of the task.
        label: The best label; None for tasks without.
        confidence: Its score in 0..1; None for tasks without.
    """

    result: bytes
    label: str | None
    confidence: float | None


class TaskHead(Protocol):
    """The part of a task behind the engine."""

    def predictions(
        self, outputs: NDArray[np.float32], *, top_k: int | None = None
    ) -> list[Prediction]:
        """Turn the engine's numbers into results.

        Args:
            outputs: Finite; logits (N, C) or embeddings (N, H).
            top_k: Labels of a result, at most; None for all.
        Returns:
            Shape (N,).
        """
        ...
