"""The interface of a task after the engine, and the number of digits that are reported."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

# The same text in another batch has other padding and another order of sums. With these decimals
# nearly all scores stay identical; with one more, every seventh in bf16 would not.
SCORE_DECIMALS = {"f32": 4, "f16": 3, "bf16": 2}
# For an embedding of length 1, fewer would lose more than bf16 does and hardly be more stable.
EMBEDDING_DECIMALS = 4


class Prediction(NamedTuple):
    """Result for one text.

    Attributes:
        result: JSON in the format of the task's Hugging Face pipeline.
        label: The best label; None for tasks without labels.
        confidence: Score of the best label in 0..1; None for tasks without labels.
    """

    result: bytes
    label: str | None
    confidence: float | None


class TaskHead(Protocol):
    """The part of a task after the engine."""

    def predictions(
        self, outputs: NDArray[np.float32], *, top_k: int | None = None
    ) -> list[Prediction]:
        """Turn the engine's numbers into results.

        Args:
            outputs: Finite numbers; logits (N, C) or embeddings (N, H).
            top_k: Maximum number of labels in a result; None for all.
        Returns:
            Predictions; shape (N,).
        """
        ...
