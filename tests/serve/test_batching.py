from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.batching import padded_tokens, plan_batches
from serve.errors import ItemTooLong

LENGTHS = st.lists(st.integers(1, 512), max_size=300)
MAX_TOKENS = st.integers(512, 4096)
MAX_ITEMS = st.integers(1, 64)


@given(LENGTHS, MAX_TOKENS, MAX_ITEMS)
def test_every_item_is_in_one_batch_within_both_limits(
    lengths: list[int], max_tokens: int, max_items: int
) -> None:
    plan = plan_batches(lengths, max_tokens=max_tokens, max_items=max_items)

    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        assert 1 <= len(batch) <= max_items
        assert len(batch) * max(lengths[index] for index in batch) <= max_tokens


@given(LENGTHS, MAX_TOKENS, MAX_ITEMS)
def test_longest_items_run_first(lengths: list[int], max_tokens: int, max_items: int) -> None:
    plan = plan_batches(lengths, max_tokens=max_tokens, max_items=max_items)

    in_order = [lengths[index] for batch in plan for index in batch]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=64), st.integers(1, 511))
def test_item_over_the_budget_is_refused(lengths: list[int], max_tokens: int) -> None:
    lengths = [*lengths, max_tokens + 1]

    with pytest.raises(ItemTooLong, match="raise max_batch_tokens"):
        plan_batches(lengths, max_tokens=max_tokens, max_items=8)


def test_equal_lengths_fill_batches_without_padding() -> None:
    lengths = [16] * 256
    plan = plan_batches(lengths, max_tokens=1024, max_items=64)

    assert [len(batch) for batch in plan] == [64] * 4
    assert padded_tokens(lengths, plan) == sum(lengths)


def test_batch_ends_where_filling_it_would_cost_more_than_another() -> None:
    lengths = [200] * 4 + [20] * 20
    assert plan_batches(lengths, max_tokens=2048, max_items=64) == [
        list(range(4)),
        list(range(4, 24)),
    ]

    too_few_to_stand_alone = [200, 20]
    assert plan_batches(too_few_to_stand_alone, max_tokens=2048, max_items=64) == [[0, 1]]


def test_mixed_lengths_waste_less_than_a_tenth() -> None:
    lengths = [1 + (index * 37) % 200 for index in range(256)]
    plan = plan_batches(lengths, max_tokens=2048, max_items=64)

    assert padded_tokens(lengths, plan) < 1.1 * sum(lengths)
    # In the order of arrival it would be more.
    assert padded_tokens(lengths, [list(range(256))]) > 1.9 * sum(lengths)


@given(LENGTHS, MAX_TOKENS, MAX_ITEMS)
def test_ratio_is_at_least_one_and_counts_the_padding(
    lengths: list[int], max_tokens: int, max_items: int
) -> None:
    plan = plan_batches(lengths, max_tokens=max_tokens, max_items=max_items)

    assert padded_tokens(lengths, plan) >= sum(lengths)
    assert padded_tokens([3, 5, 4], [[0, 1], [2]]) == 14
