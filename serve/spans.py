"""Search for the most likely spans of tokens, such as answers in a context. Pure.

C tokens, L longest span.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


def best_spans(
    starts: NDArray[np.float64], ends: NDArray[np.float64], *, longest: int, count: int
) -> list[tuple[float, int, int]]:
    """Return the most likely spans of tokens, best first; of equal ones, those that begin first.

    Args:
        starts: Probability of each token to be the first of the span; shape (C,).
        ends: Probability to be the last; shape (C,).
        longest: Maximum number of tokens of a span.
        count: Maximum number of spans.
    Returns:
        Score, first and last token of each.
    """
    longest = min(longest, len(starts))
    padding = np.zeros(longest - 1)
    following = sliding_window_view(np.concatenate([ends, padding]), longest)  # (C, L)
    inside = np.add.outer(np.arange(len(starts)), np.arange(longest)) < len(starts)
    scores = np.where(inside, starts[:, None] * following, -1.0).ravel()
    count = min(count, int(inside.sum()))
    least = np.partition(scores, -count)[-count]
    likely = np.flatnonzero(scores >= least)
    kept = likely[np.argsort(-scores[likely], kind="stable")][:count]
    firsts, lengths = np.divmod(kept, longest)
    return list(
        zip(scores[kept].tolist(), firsts.tolist(), (firsts + lengths).tolist(), strict=True)
    )
