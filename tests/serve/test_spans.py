from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve.spans import best_spans

Spans = list[tuple[float, int, int]]
# Few distinct values, so that many spans have equal scores.
PROBABILITIES = st.sampled_from([0.0, 0.125, 0.25, 0.5]) | st.floats(0, 1)


def all_spans(starts: list[float], ends: list[float], longest: int) -> Spans:
    found = [
        (starts[first] * ends[last], first, last)
        for first in range(len(starts))
        for last in range(first, min(first + longest, len(ends)))
    ]
    return sorted(found, key=lambda span: (-span[0], span[1], span[2]))


@given(
    st.lists(st.tuples(PROBABILITIES, PROBABILITIES), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 100),
)
def test_spans_are_the_best_of_all_that_are_allowed(
    tokens: list[tuple[float, float]], longest: int, count: int
) -> None:
    starts, ends = (list(column) for column in zip(*tokens, strict=True))

    found = best_spans(np.array(starts), np.array(ends), longest=longest, count=count)

    assert found == all_spans(starts, ends, longest)[:count]


def test_a_span_never_ends_before_it_begins() -> None:
    starts, ends = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.1])

    assert best_spans(starts, ends, longest=3, count=1) == [(0.1, 2, 2)]
    assert len(best_spans(starts, ends, longest=3, count=100)) == 6


def test_the_longest_span_has_the_number_of_tokens_that_is_allowed() -> None:
    starts, ends = np.array([1.0, 0.0, 0.2, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])

    assert best_spans(starts, ends, longest=4, count=1) == [(1.0, 0, 3)]
    assert best_spans(starts, ends, longest=3, count=1) == [(0.2, 2, 3)]


def test_of_equal_spans_the_first_is_found() -> None:
    even = np.full(300, 1 / 300)

    (best,) = best_spans(even, even, longest=15, count=1)
    assert best[1:] == (0, 0)
