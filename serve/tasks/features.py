"""Embeddings to lists of numbers."""

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
        """Write each embedding; (N, H) in, N predictions out."""
        # Adding 0 turns -0.0, which rounding leaves of small negatives, into 0.0.
        rounded = np.ascontiguousarray(
            outputs.round(EMBEDDING_DECIMALS) + np.float32(0.0)
        )  # (N, H)
        option = orjson.OPT_SERIALIZE_NUMPY
        return [Prediction(orjson.dumps(row, option=option), None, None) for row in rounded]
