"""How the platform stands, for people and programs."""

from __future__ import annotations

from collections.abc import Callable

from ops.access import Actor
from ops.errors import NotReady
from ops.health import Health


def unwatched() -> Health:
    """What is said where nobody looks.

    Raises:
        NotReady: Always. Retriable, at an operator's own API.
    """
    raise NotReady("nobody looks at health here; ask the API of the operator")


class HealthVerbs:
    """Health as anybody with a token may read it: it names models and topics, and no content."""

    def __init__(self, latest: Callable[[], Health]) -> None:
        self._latest = latest

    def latest(self, _actor: Actor) -> Health:
        """The last judgement.

        Raises:
            NotReady: There is none yet. Retriable.
        """
        return self._latest()
