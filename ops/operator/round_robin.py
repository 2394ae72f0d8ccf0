"""Round-robin over names within a time limit; pure except for the injected clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class RoundRobin:
    """Yields names until a time limit; names that were left out come first in the next round.

    Each round yields at least one name, so no name waits for more rounds than there are names.
    """

    def __init__(self, lasts_s: float, clock: Callable[[], float]) -> None:
        """Begin with no names left out.

        Args:
            lasts_s: Time after which no further name is yielded.
            clock: Returns seconds.
        """
        self._lasts_s = lasts_s
        self._clock = clock
        self._left: list[str] = []

    @property
    def has_left_some(self) -> bool:
        """Return whether the last round was too short for all names."""
        return bool(self._left)

    def run_in_turn(self, names: Sequence[str]) -> Iterator[str]:
        """Yield the names of this round in order."""
        ends = self._clock() + self._lasts_s
        left = [name for name in self._left if name in names]
        self._left = left + [name for name in names if name not in left]
        while self._left:
            yield self._left[0]
            del self._left[0]
            if self._clock() > ends:
                return
