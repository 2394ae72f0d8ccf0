"""A candidate answers micro-batches of the live version, too, and nobody reads its answers but the
comparison.

Beside the loop, in a thread of its own: what does not fit into its short queue is skipped, so a
slow candidate costs the live version nothing but its share of the machine. It is asked at the
moment at which the live version is asked, so that both are timed beside the same neighbours: one
that came after it would share the cores with the live version's next calls.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from stream.comparison import Comparison
from stream.errors import ModelUnavailable, SystemFault
from stream.isolation import Caller, ReplicaClient, Reply
from stream.records import Output, Record
from stream.settings import PipelineSettings
from stream.topics import COMPARISONS_TOPIC

logger = logging.getLogger(__name__)

MAX_PENDING = 2
# A candidate that is away is not waited for: the records it misses count as failed.
CANDIDATE_DEADLINE_S = 5.0
# A candidate that was asked so much later than the live version is not timed.
MAX_LATE_S = 0.005
# Nor are the first answers of a replica: batches whose shape is new to it take half as long again.
YOUNG_ANSWERS = 30


class Order(NamedTuple):
    """Who answers a micro-batch beside whom.

    Attributes:
        live, candidate: Versions.
        digest: Of the candidate's bytes; None takes any.
    """

    live: str
    candidate: str
    digest: str | None


class _Answer(NamedTuple):
    reply: Reply
    is_prompt: bool


class Mirrored(NamedTuple):
    """A micro-batch that the candidate answers; ``answer`` becomes None where it does not."""

    order: Order
    records: Sequence[Record]
    answer: Future[_Answer | None]


class ShadowCalls:
    """Asks the candidate and compares. ``mirror``, ``compare`` and ``take`` are the loop's."""

    def __init__(
        self,
        client: ReplicaClient,
        settings: PipelineSettings,
        stopping: threading.Event,
        *,
        rank: int,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._rank = rank
        self._chance = chance or random.Random()
        patience = {"model_deadline_s": CANDIDATE_DEADLINE_S, "max_attempts": 2}
        self._caller = Caller(client, settings.model_copy(update=patience), stopping)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._lock = threading.Lock()
        self._pending = 0
        self._comparisons: dict[tuple[str, str], Comparison] = {}
        self._answered: Counter[str] = Counter()

    def mirror(self, order: Order, records: Sequence[Record], share: float) -> Mirrored | None:
        """Have the candidate answer what goes to the live version now, for a share of the batches.

        Returns:
            What to ``compare`` the live version's answer with; None where it is not asked.
        """
        if self._chance.random() >= share:
            return None
        with self._lock:
            if self._pending >= MAX_PENDING:
                self._comparison(order).skipped += len(records)
                return None
            self._pending += 1
        answer = self._thread.submit(self._ask, order, records, time.monotonic())
        return Mirrored(order, records, answer)

    def compare(self, mirrored: Mirrored, live: Reply) -> None:
        """The live version has answered; what the candidate answers, or has, is compared."""
        # In the same thread: its answer is there when this comes to its turn.
        self._thread.submit(self._compare, mirrored, live)

    def take(self, start_ms: int, end_ms: int) -> list[Output]:
        """What was compared since the last call, as records; times are ms since 1970."""
        with self._lock:
            done, self._comparisons = self._comparisons, {}
        key = f"{self._settings.name}/{self._rank}".encode()
        records = [
            comparison.to_record(
                pipeline=self._settings.name,
                consumer=self._rank,
                model=self._settings.model,
                live=live,
                candidate=candidate,
                start_ms=start_ms,
                end_ms=end_ms,
            )
            for (live, candidate), comparison in done.items()
        ]
        return [Output(COMPARISONS_TOPIC, key, record.to_bytes(), []) for record in records]

    def close(self) -> None:
        """Drop what waits; a call in progress ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self, order: Order, records: Sequence[Record], offered_at: float) -> _Answer | None:
        is_prompt = time.monotonic() - offered_at <= MAX_LATE_S
        values = [record.value or b"" for record in records]
        try:
            return _Answer(self._caller.answer(order.candidate, values, order.digest), is_prompt)
        except (ModelUnavailable, SystemFault) as exc:
            logger.info("the candidate %s did not answer: %s", order.candidate, exc)
            return None
        finally:
            with self._lock:
                self._pending -= 1

    def _compare(self, mirrored: Mirrored, live: Reply) -> None:
        answer = mirrored.answer.result()
        with self._lock:
            comparison = self._comparison(mirrored.order)
            if answer is None:
                comparison.observe_loss(live.outcomes)
                return
            candidate = answer.reply
            comparison.observe_answers(mirrored.records, live.outcomes, candidate.outcomes)
            self._answered.update((mirrored.order.live, mirrored.order.candidate))
            are_old = self._are_old(mirrored.order)
            if answer.is_prompt and are_old and _are_single(live, candidate):
                comparison.observe_calls(live.stats[0].compute_s, candidate.stats[0].compute_s)

    def _are_old(self, order: Order) -> bool:
        return min(self._answered[order.live], self._answered[order.candidate]) > YOUNG_ANSWERS

    def _comparison(self, order: Order) -> Comparison:
        return self._comparisons.setdefault((order.live, order.candidate), Comparison())


def _are_single(*replies: Reply) -> bool:
    """Each was one call, so that what it took is what all of its records took together."""
    return all(len(reply.stats) == 1 and not reply.retries for reply in replies)
