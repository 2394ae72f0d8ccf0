"""Tokens of neighbouring windows of a text: its own, and those that two windows share. Pure.

T tokens of a window.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve.task import Window


class OwnTokens(NamedTuple):
    """Tokens of a window that are the text's, without special ones.

    Attributes:
        places: Positions in the window; shape (T,).
        rows: Id, first character and the one after the last of each; shape (T, 3).
    """

    places: NDArray[np.int64]
    rows: NDArray[np.int64]


def own_tokens(window: Window) -> OwnTokens:
    """Return the text's tokens of a window that has offsets."""
    encoding = window.encoded.encoding
    assert encoding is not None  # the task needs offsets
    places = np.flatnonzero(np.array(encoding.special_tokens_mask) == 0)
    offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return OwnTokens(places, np.column_stack([window.encoded.ids, offsets])[places])


def shared_tokens(before: NDArray[np.int64], after: NDArray[np.int64]) -> int:
    """Return the number of tokens at the end of a window with which the next one begins.

    Args:
        before: Rows of the window; see ``OwnTokens``.
        after: Rows of the next one.
    """
    # Offsets alone are not enough: the tokens of one character may share them.
    for start in np.flatnonzero((before == after[0]).all(axis=1)).tolist():
        length = len(before) - start
        if np.array_equal(before[start:], after[:length]):
            return length
    return 0
