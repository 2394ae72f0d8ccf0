from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.padding import Arrays, Batch, BatchSettings, infer_padded, pad
from serve.engine.protocol import Item


def item_of(*ids: int, types: Sequence[int] | None = None) -> Item:
    return Item(
        np.array(ids, dtype=np.int32),
        None if types is None else np.array(types, dtype=np.int32),
    )


def test_padding_goes_right_and_is_masked() -> None:
    batch = pad([item_of(101, 7, 102), item_of(101, 102)], 0)

    assert batch.input_ids.tolist() == [[101, 7, 102], [101, 102, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    assert batch.token_type_ids is None
    assert len(batch.inputs) == 2


def test_padding_has_the_id_of_the_model() -> None:
    assert pad([item_of(5, 6), item_of(5)], 1).input_ids.tolist() == [[5, 6], [5, 1]]


def test_padding_has_the_type_0() -> None:
    batch = pad([item_of(5, 6, 7, types=(0, 1, 1)), item_of(5, 8, types=(0, 1))], 9)

    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 1, 1], [0, 1, 0]]
    assert batch.token_type_ids.dtype == np.int64
    assert batch.input_ids.tolist() == [[5, 6, 7], [5, 8, 9]]
    assert [array.tolist() for array in batch.inputs] == [
        batch.input_ids.tolist(),
        batch.attention_mask.tolist(),
        batch.token_type_ids.tolist(),
    ]


def own_ids(batches: Sequence[Batch]) -> tuple[list[Arrays], float]:
    """Sum of the ids of each item, and each token's id, type and padding as it stands."""
    computed: list[Arrays] = []
    for batch in batches:
        assert batch.token_type_ids is not None
        sums = (batch.input_ids * batch.attention_mask).sum(axis=1, keepdims=True)  # (B, 1)
        tokens = np.stack([batch.input_ids, batch.token_type_ids], axis=2)  # (B, T, 2)
        computed.append((sums.astype(np.float32), tokens.astype(np.float32)))
    return computed, 0.5


@given(
    st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=16), max_size=40),
    st.integers(16, 64),
    st.integers(1, 8),
)
def test_each_item_gets_its_own_outputs_without_padding(
    texts: list[list[int]], max_tokens: int, max_items: int
) -> None:
    items = [item_of(*ids, types=[value % 2 for value in ids]) for ids in texts]
    settings = BatchSettings(pad_id=7, max_tokens=max_tokens, max_items=max_items)
    inferred = infer_padded(items, settings, own_ids)

    assert len(inferred.outputs) == len(items)
    for ids, (total, tokens) in zip(texts, inferred.outputs, strict=True):
        assert total.tolist() == [sum(ids)]
        assert tokens.tolist() == [[value, value % 2] for value in ids]
    assert inferred.compute_s == 0.5
    assert inferred.padded_tokens >= sum(map(len, texts))


def test_batches_keep_to_the_settings() -> None:
    shapes: list[tuple[int, ...]] = []

    def run(batches: Sequence[Batch]) -> tuple[list[Arrays], float]:
        shapes.extend(batch.input_ids.shape for batch in batches)
        return own_ids(batches)

    items = [item_of(*range(1, 5), types=[0] * 4)] * 10
    inferred = infer_padded(items, BatchSettings(max_tokens=12, max_items=8), run)
    assert shapes == [(3, 4)] * 3 + [(1, 4)]
    assert inferred.padded_tokens == 40
    shapes.clear()
    infer_padded(items, BatchSettings(max_tokens=100, max_items=5), run)
    assert shapes == [(5, 4)] * 2
