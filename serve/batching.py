"""Grouping of items into batches: by length, within a budget of padded tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from serve.errors import ItemTooLong

# Once a batch has about this fraction of the budget, it ends before an item shorter than the
# second fraction of its longest: filling it up would cost more in padding than another batch.
ENOUGH_OF_BUDGET = 1 / 4
MUCH_SHORTER = 7 / 8


def plan_batches(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> list[list[int]]:
    """Group items so that no padded batch exceeds ``max_tokens``.

    The longest items come first: the last batches are short, so that engines that run several
    batches at once finish them together.

    Args:
        lengths: Tokens per item, special tokens included; shape (N,), each >= 1.
        max_tokens: Budget for B * T after padding, in tokens.
        max_items: Upper bound for B.
    Returns:
        Lists of indices; together a permutation of range(N).
    Raises:
        ItemTooLong: One item alone exceeds max_tokens. Not retriable.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    if order and lengths[order[0]] > max_tokens:
        raise ItemTooLong(
            f"item {order[0]} has {lengths[order[0]]} tokens, but a batch may have {max_tokens}; "
            "raise max_batch_tokens or cut the text"
        )
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        stop = min(start + min(max_items, max_tokens // longest), len(order))
        enough = start + max(1, int(ENOUGH_OF_BUDGET * max_tokens) // longest)
        while enough < stop and lengths[order[enough]] >= MUCH_SHORTER * longest:
            enough += 1
        stop = min(stop, enough)
        batches.append(order[start:stop])
        start = stop
    return batches


def padded_tokens(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """Return the tokens that are computed when each batch is padded to its longest item."""
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
