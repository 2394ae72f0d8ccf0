"""What a loop is trying to get over: told once when it changes, waited for with growing pauses."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from stream.errors import BrokerUnreachable, CommitFailed, StreamError, TopicUnfit

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
MAX_PAUSE_S = 5.0
# What time may heal, or somebody meanwhile.
PASSING = (BrokerUnreachable, CommitFailed, TopicUnfit)


class Backoff:
    """Keeps and tells what is wrong at the moment; any thread may read it.

    Attributes:
        text: What it is; None while all is well.
        last: What it was last, and when, in seconds since 1970; None where nothing ever was.
    """

    def __init__(self, name: str, stopping: threading.Event) -> None:
        self._name = name
        self._stopping = stopping
        self.text: str | None = None
        self.last: tuple[str, float] | None = None

    def note(self, error: StreamError | None) -> None:
        """Remember it, None for nothing, and log it when it changes: not at every attempt."""
        before, self.text = self.text, str(error) if error is not None else None
        if self.text is not None:
            self.last = self.text, time.time()
        if self.text == before:
            return
        if self.text is not None:
            logger.warning("%s: trying on: %s", self._name, self.text)
        else:
            logger.info("%s: going on", self._name)

    def pause(self, turn: int) -> None:
        """Wait before try number ``turn``, from 0; ends at once when told to stop."""
        self._stopping.wait(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(turn, 10)))

    def persist(self, attempt: Callable[[], T]) -> T | None:
        """Try until it works; None when told to stop meanwhile.

        Raises:
            StreamError: What no waiting heals, as ``attempt`` found it.
        """
        turn = 0
        while not self._stopping.is_set():
            try:
                result = attempt()
            except PASSING as exc:
                self.note(exc)
                self.pause(turn)
                turn += 1
            else:
                self.note(None)
                return result
        return None
