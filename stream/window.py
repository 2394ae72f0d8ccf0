"""The window: micro-batches that are with the replicas, each in a thread until it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from stream.isolation import Caller, Reply
from stream.offsets import Slot
from stream.shadow import Mirrored

# Reading beside calls costs the broker a fetch and this process a turn, for a record or two. So
# it pauses for a share of what a call takes: later by that much, and with the cores for the model.
PAUSE_SHARE = 1 / 8
MIN_PAUSE_S = 0.005
MAX_PAUSE_S = 0.05


class Call(NamedTuple):
    """A micro-batch with the replicas of one version.

    Attributes:
        began: On the clock of the loop, in seconds.
        abandoned: Set when nobody wants the answer any more.
        mirrored: The same with a candidate; None where it is asked of one version only.
    """

    slots: list[Slot]
    version: str
    began: float
    future: Future[Reply]
    abandoned: threading.Event
    mirrored: Mirrored | None


class Calls:
    """Calls in flight; the loop alone sends, takes and abandons."""

    def __init__(
        self, caller: Caller, *, window: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make an empty window.

        Args:
            window: Calls at a time. Abandoned ones do not count; as many of those may still
                occupy a thread.
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
        """One more call may be sent."""
        return len(self._calls) < self._window

    @property
    def is_half_empty(self) -> bool:
        """Half of the window is free."""
        return len(self._calls) < max(1, self._window // 2)

    def versions(self) -> set[str]:
        """Those that calls are in flight to; from any thread."""
        return {call.version for call in self._calls.copy()}

    def slots(self) -> list[Slot]:
        """Of all calls in flight."""
        return [slot for call in self._calls for slot in call.slots]

    def send(self, slots: list[Slot], digest: str | None, mirrored: Mirrored | None = None) -> None:
        """Have a micro-batch of one version answered."""
        version = slots[0].version
        values = [slot.record.value or b"" for slot in slots]
        abandoned = threading.Event()
        future = self._threads.submit(self._caller.answer, version, values, digest, abandoned)
        self._calls.append(Call(slots, version, self._clock(), future, abandoned, mirrored))
        future.add_done_callback(lambda _: self._answered.set())

    def wait(self, timeout_s: float) -> None:
        """Until a call is answered, at most for ``timeout_s``."""
        self._answered.wait(timeout_s)

    def take_done(self) -> list[Call]:
        """Those that came back since the last call, with their answer or error."""
        self._answered.clear()
        done = self._take(lambda call: call.future.done())
        if done:
            self._last_s = self.age_s(done[-1])
        return done

    @property
    def pause_s(self) -> float:
        """How long records may wait unread beside these calls, as the last answer took."""
        return min(MAX_PAUSE_S, max(MIN_PAUSE_S, PAUSE_SHARE * self._last_s))

    def abandon(self, unwanted: Callable[[Call], bool]) -> list[Call]:
        """Give calls up; whatever they bring is for nobody."""
        given_up = self._take(unwanted)
        for call in given_up:
            call.abandoned.set()
        return given_up

    def age_s(self, call: Call) -> float:
        """Since it was sent."""
        return self._clock() - call.began

    def close(self) -> None:
        """Give everything up; threads end with their call."""
        self.abandon(lambda _: True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, wanted: Callable[[Call], bool]) -> list[Call]:
        taken = [call for call in self._calls if wanted(call)]
        self._calls = [call for call in self._calls if call not in taken]
        return taken
