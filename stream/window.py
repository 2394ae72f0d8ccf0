"""The window: micro-batches in flight to replicas, each in its own thread until answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from stream.isolation import Caller, Reply
from stream.offsets import Slot
from stream.shadow import Mirrored

# A read during calls costs a fetch and an iteration of the loop for only a few records. So reading
# pauses for a fraction of a call's duration: this adds little latency and leaves the model the CPU.
PAUSE_SHARE = 1 / 8
MIN_PAUSE_S = 0.005
MAX_PAUSE_S = 0.05


class Call(NamedTuple):
    """A micro-batch in flight to the replicas of one version.

    Attributes:
        began: When it was sent, on the clock of the loop, in seconds.
        abandoned: Set when the answer is no longer needed.
        mirrored: The same micro-batch with a candidate; None if only one version is called.
    """

    slots: list[Slot]
    version: str
    began: float
    future: Future[Reply]
    abandoned: threading.Event
    mirrored: Mirrored | None


class Calls:
    """Calls in flight; only the loop sends, takes and abandons them."""

    def __init__(
        self, caller: Caller, *, window: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create an empty window.

        Args:
            window: Maximum calls at a time. Abandoned calls do not count; the same number of
                those may still occupy a thread.
        """
        self._caller = caller
        self._window = window
        self._clock = clock
        self._calls: list[Call] = []
        self._threads = ThreadPoolExecutor(2 * window, thread_name_prefix="call")
        self._answered = threading.Event()
        self._last_s = 0.0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def has_room(self) -> bool:
        """Return whether one more call may be sent."""
        return len(self._calls) < self._window

    @property
    def is_half_empty(self) -> bool:
        """Return whether less than half of the window is in use."""
        return len(self._calls) < max(1, self._window // 2)

    def versions(self) -> set[str]:
        """Return the versions with calls in flight; may be called from any thread."""
        return {call.version for call in self._calls.copy()}

    def slots(self) -> list[Slot]:
        """Return the slots of all calls in flight."""
        return [slot for call in self._calls for slot in call.slots]

    def send(self, slots: list[Slot], digest: str | None, mirrored: Mirrored | None = None) -> None:
        """Send a micro-batch to its version, in a thread."""
        version = slots[0].version
        values = [slot.record.value or b"" for slot in slots]
        abandoned = threading.Event()
        future = self._threads.submit(self._caller.answer, version, values, digest, abandoned)
        self._calls.append(Call(slots, version, self._clock(), future, abandoned, mirrored))
        future.add_done_callback(lambda _: self._answered.set())

    def wait(self, timeout_s: float) -> None:
        """Wait until a call is answered, at most ``timeout_s``."""
        self._answered.wait(timeout_s)

    def take_done(self) -> list[Call]:
        """Remove and return the calls that have ended, each with its answer or error."""
        self._answered.clear()
        done = self._take(lambda call: call.future.done())
        if done:
            self._last_s = self.age_s(done[-1])
        return done

    @property
    def pause_s(self) -> float:
        """Return how long reading pauses during calls, from the duration of the last call."""
        return min(MAX_PAUSE_S, max(MIN_PAUSE_S, PAUSE_SHARE * self._last_s))

    def abandon(self, unwanted: Callable[[Call], bool]) -> list[Call]:
        """Abandon and return the matching calls; their answers are ignored."""
        given_up = self._take(unwanted)
        for call in given_up:
            call.abandoned.set()
        return given_up

    def age_s(self, call: Call) -> float:
        """Return the seconds since a call was sent."""
        return self._clock() - call.began

    def close(self) -> None:
        """Abandon all calls; each thread ends with its call."""
        self.abandon(lambda _: True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, wanted: Callable[[Call], bool]) -> list[Call]:
        taken = [call for call in self._calls if wanted(call)]
        self._calls = [call for call in self._calls if call not in taken]
        return taken
