"""Whose turn it is where a round has time for some only; pure, but for the clock it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class RoundRobin:
    """Goes through names for a time; those that were left out come first in the next round.

    One at least has its turn in each round, so nobody waits longer than there are others.
    """

    def __init__(self, lasts_s: float, clock: Callable[[], float]) -> None:
        """Nobody was left out yet.

        Args:
            lasts_s: After so long no further turn begins.
            clock: Seconds.
        """
        self._lasts_s = lasts_s
        self._clock = clock
        self._left: list[str] = []

    @property
    def has_left_some(self) -> bool:
        """Whether the last round was too short for all."""
        return bool(self._left)

    def run_in_turn(self, names: Sequence[str]) -> Iterator[str]:
        """The names whose turn it is, one after the other."""
        ends = self._clock() + self._lasts_s
        left = [name for name in self._left if name in names]
        self._left = left + [name for name in names if name not in left]
        while self._left:
            yield self._left[0]
            del self._left[0]
            if self._clock() > ends:
                return
