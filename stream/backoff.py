"""Retries with growing pauses; an error is logged only when it changes."""

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
# Errors that may pass with time, or that an operator may resolve meanwhile.
PASSING = (BrokerUnreachable, CommitFailed, TopicUnfit)


class Backoff:
    """Keeps and logs the current error; any thread may read it.

    Attributes:
        text: The current error; None if there is none.
        last: The last error and its time, in seconds since 1970; None if there was none.
    """

    def __init__(self, name: str, stopping: threading.Event) -> None:
        self._name = name
        self._stopping = stopping
        self.text: str | None = None
        self.last: tuple[str, float] | None = None

    def note(self, error: StreamError | None) -> None:
        """Record the current error, None for none, and log it only when it changes."""
        before, self.text = self.text, str(error) if error is not None else None
        if self.text is not None:
            self.last = self.text, time.time()
        if self.text == before:
            return
        if self.text is not None:
            logger.warning("%s: retrying: %s", self._name, self.text)
        else:
            logger.info("%s: recovered", self._name)

    def pause(self, retry: int) -> None:
        """Wait before retry number ``retry``, from 0; return at once if a stop is requested."""
        self._stopping.wait(min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(retry, 10)))

    def persist(self, attempt: Callable[[], T]) -> T | None:
        """Retry until ``attempt`` succeeds; return None if a stop is requested meanwhile.

        Raises:
            StreamError: An error of ``attempt`` that is not in ``PASSING``.
        """
        retry = 0
        while not self._stopping.is_set():
            try:
                result = attempt()
            except PASSING as exc:
                self.note(exc)
                self.pause(retry)
                retry += 1
            else:
                self.note(None)
                return result
        return None
