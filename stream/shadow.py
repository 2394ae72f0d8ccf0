"""Shadow calls: a candidate also answers micro-batches of the live version, for comparison only.

They run in their own thread alongside the loop: what does not fit into its short queue is skipped,
so a slow candidate costs the live version nothing but a part of the machine. Candidate and live
version are called at the same moment, so that both are timed under the same load: a candidate that
is called later would share the cores with the live version's next calls.
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
# An unavailable candidate is not waited for: the records that it misses count as failed.
CANDIDATE_DEADLINE_S = 5.0
# A candidate that was called later than this after the live version is not timed.
MAX_LATE_S = 0.005
# Nor are the first answers of a replica: batches whose shape is new to it take 50% longer.
YOUNG_ANSWERS = 30


class Order(NamedTuple):
    """The versions that both answer a micro-batch.

    Attributes:
        live, candidate: The two versions.
        digest: Digest of the candidate's files; None accepts any.
    """

    live: str
    candidate: str
    digest: str | None


class _Answer(NamedTuple):
    reply: Reply
    is_prompt: bool


class Mirrored(NamedTuple):
    """A micro-batch sent to the candidate; ``answer`` becomes None if the candidate fails."""

    order: Order
    records: Sequence[Record]
    answer: Future[_Answer | None]


class ShadowCalls:
    """Calls the candidate and compares; ``mirror``, ``compare`` and ``take`` are for the loop."""

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
        """Send a fraction of the micro-batches to the candidate too.

        Returns:
            What to ``compare`` the live version's answer with; None if the candidate is not called.
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
        """Compare the live version's answer with the candidate's, now or when that arrives."""
        # In the same thread: the candidate has answered when this runs.
        self._thread.submit(self._compare, mirrored, live)

    def take(self, start_ms: int, end_ms: int) -> list[Output]:
        """Return the comparisons since the last call, as records; times are ms since 1970."""
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
        """Drop waiting calls; a call in progress ends on its own."""
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
            comparison.observe_answers(
                mirrored.records, live.outcomes, candidate.outcomes, task=live.info.task
            )
            self._answered.update((mirrored.order.live, mirrored.order.candidate))
            are_old = self._are_old(mirrored.order)
            if answer.is_prompt and are_old and _are_single(live, candidate):
                comparison.observe_calls(live.stats[0].compute_s, candidate.stats[0].compute_s)

    def _are_old(self, order: Order) -> bool:
        return min(self._answered[order.live], self._answered[order.candidate]) > YOUNG_ANSWERS

    def _comparison(self, order: Order) -> Comparison:
        return self._comparisons.setdefault((order.live, order.candidate), Comparison())


def _are_single(*replies: Reply) -> bool:
    """Return whether each reply took one call, so that its time covers all of its records."""
    return all(len(reply.stats) == 1 and not reply.retries for reply in replies)
