"""Conversion of embeddings to lists of numbers."""

from __future__ import annotations

import numpy as np
import orjson
from numpy.typing import NDArray

from serve.tasks.prediction import EMBEDDING_DECIMALS, Prediction


class Features:
    """One embedding per text: ``[0.0123, ...]``."""

    def predictions(
        self,
        outputs: NDArray[np.float32],
        *,
        top_k: int | None = None,  # noqa: ARG002
    ) -> list[Prediction]:
        """Return each embedding as JSON; (N, H) in, N predictions out."""
        # Rounding leaves -0.0 for small negative numbers; adding 0 turns it into 0.0.
        rounded = np.ascontiguousarray(
            outputs.round(EMBEDDING_DECIMALS) + np.float32(0.0)
        )  # (N, H)
        option = orjson.OPT_SERIALIZE_NUMPY
        return [Prediction(orjson.dumps(row, option=option), None, None) for row in rounded]
