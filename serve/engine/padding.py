"""Padded batches: planned, padded, computed, and their outputs cut to the items again.

B batch, C classes, H hidden, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.batching import padded_tokens, plan_batches
from serve.engine.protocol import Inferred, Item

Arrays = tuple[NDArray[np.float32], ...]


class Batch(NamedTuple):
    """Tokens of B items, padded on the right to the longest, T.

    Attributes:
        input_ids: int64, shape (B, T).
        attention_mask: int64, shape (B, T); 1 for a token, 0 for padding.
        token_type_ids: int64, shape (B, T); None where the module takes none.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None = None

    @property
    def inputs(self) -> list[NDArray[np.int64]]:
        """Arguments of the module."""
        return [array for array in self if array is not None]


class BatchSettings(NamedTuple):
    """How items are padded and grouped.

    Attributes:
        pad_id: Token id of the padding.
        max_tokens: Budget of one padded batch (B * T), in tokens.
        max_items: Upper bound for B.
    """

    pad_id: int = 0
    max_tokens: int = 1024
    max_items: int = 64


def pad(items: Sequence[Item], pad_id: int) -> Batch:
    """Return arrays of B items, B >= 1."""
    shape = (len(items), max(len(item.ids) for item in items))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for row, (ids, _) in enumerate(items):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    if items[0].types is None:
        return Batch(input_ids, attention_mask)
    token_type_ids = np.zeros(shape, dtype=np.int64)
    for row, (_, types) in enumerate(items):
        assert types is not None  # a model has token types or has none
        token_type_ids[row, : len(types)] = types
    return Batch(input_ids, attention_mask, token_type_ids)


def infer_padded(
    items: Sequence[Item],
    settings: BatchSettings,
    run: Callable[[Sequence[Batch]], tuple[list[Arrays], float]],
) -> Inferred:
    """Compute items in padded batches.

    Args:
        run: Returns the outputs of each batch, (B, C), (B, H) or (B, T, C), and the seconds.
    """
    lengths = [len(item.ids) for item in items]
    plan = plan_batches(lengths, max_tokens=settings.max_tokens, max_items=settings.max_items)
    computed, seconds = run([pad([items[row] for row in rows], settings.pad_id) for rows in plan])
    outputs: list[Arrays] = [()] * len(items)
    for rows, arrays in zip(plan, computed, strict=True):
        for place, row in enumerate(rows):
            outputs[row] = tuple(
                array[place, : lengths[row]] if array.ndim == 3 else array[place]
                for array in arrays
            )
    return Inferred(outputs, padded_tokens(lengths, plan), seconds)
