"""A candidate answers the micro-batches that the live version has answered, and nobody reads its
answers but the comparison.

Beside the loop, in a thread of its own: what does not fit into its short queue is skipped, so a
slow candidate costs the live version nothing but its share of the machine.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from serve.contract import Outcome
from stream.caller import Caller, ReplicaClient, Reply
from stream.comparison import COMPARISONS_TOPIC, Comparison
from stream.errors import ModelUnavailable, SystemFault
from stream.records import Output, Record
from stream.settings import PipelineSettings

logger = logging.getLogger(__name__)

MAX_PENDING = 2
# A candidate that is away is not waited for: the records it misses count as failed.
CANDIDATE_DEADLINE_S = 5.0


class Mirrored(NamedTuple):
    """A micro-batch that the live version has answered.

    Attributes:
        live, candidate: Versions.
        digest: Of the candidate's bytes; None takes any.
        records, outcomes: Shape (N,) each.
        seconds: That the live version's replica took for all of them in one call.
    """

    live: str
    candidate: str
    digest: str | None
    records: Sequence[Record]
    outcomes: Sequence[Outcome]
    seconds: float


class Shadow:
    """Asks the candidate and compares. ``offer`` and ``take`` are the loop's."""

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

    def offer(self, batch: Mirrored, share: float) -> None:
        """Have the candidate answer the batch, too, for a share of the batches."""
        if self._chance.random() >= share:
            return
        with self._lock:
            if self._pending >= MAX_PENDING:
                self._comparison(batch).skipped += len(batch.records)
                return
            self._pending += 1
        self._thread.submit(self._compare, batch)

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

    def _compare(self, batch: Mirrored) -> None:
        reply = self._ask(batch)
        with self._lock:
            self._pending -= 1
            comparison = self._comparison(batch)
            if reply is None:
                comparison.observe_loss(batch.outcomes)
                return
            comparison.observe_answers(batch.records, batch.outcomes, reply.outcomes)
            if not reply.retries:
                comparison.observe_calls(batch.seconds, reply.stats[0].seconds)

    def _ask(self, batch: Mirrored) -> Reply | None:
        values = [record.value or b"" for record in batch.records]
        try:
            return self._caller.answer(batch.candidate, values, batch.digest)
        except (ModelUnavailable, SystemFault) as exc:
            logger.info("the candidate %s did not answer: %s", batch.candidate, exc)
            return None

    def _comparison(self, batch: Mirrored) -> Comparison:
        return self._comparisons.setdefault((batch.live, batch.candidate), Comparison())
