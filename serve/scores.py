"""Functions from logits to scores. Pure.

C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores that add up to 1 over the last axis; shape (..., C) to (..., C)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return total


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an independent score between 0 and 1 for each number; any shape."""
    # Unlike 1 / (1 + exp(-x)), the hyperbolic tangent never overflows.
    scores: NDArray[np.float64] = (1.0 + np.tanh(logits / 2.0)) / 2.0
    return scores
