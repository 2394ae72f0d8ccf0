"""Agreement of a candidate's answers with the live version's, on the same records. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import orjson

from serve.contract import OF_THE_VERSION, Answer, Failure, Outcome
from serve.registry import task_type
from stream.records import Record
from stream.schema import ComparisonRecord, Disagreement
from stream.telemetry import latency_bucket

MAX_SAMPLES: Final = 8
MAX_LABELS: Final = 64
OTHER_LABELS: Final = "(other)"
_NO_LABEL: Final = "(none)"


class Comparison:
    """Counts of one consumer that compare a candidate with the live version.

    Attributes:
        skipped: Records not sent to the candidate because it was behind.
    """

    def __init__(self) -> None:
        self._compared = self._agreed = self._failed = self._live_failed = self.skipped = 0
        self._matrix: dict[str, Counter[str]] = {}
        self._live_calls: Counter[int] = Counter()
        self._candidate_calls: Counter[int] = Counter()
        self._samples: list[Disagreement] = []

    def observe_answers(
        self,
        records: Sequence[Record],
        live: Sequence[Outcome],
        candidate: Sequence[Outcome],
        *,
        task: str,
    ) -> None:
        """Compare the outcomes of two versions of a model for a task, shape (N,) each.

        A fault of the record itself counts for neither version.
        """
        for record, a, b in zip(records, live, candidate, strict=True):
            if not isinstance(a, Answer):
                self._live_failed += a.kind in OF_THE_VERSION and isinstance(b, Answer)
                continue
            self._compared += 1
            if isinstance(b, Failure):
                self._failed += 1
                continue
            agrees = _agree(a, b, task)
            self._agreed += agrees
            if a.label is not None and b.label is not None:
                self._count_pair(a.label, b.label)
            if not agrees and len(self._samples) < MAX_SAMPLES:
                self._samples.append(_sample(record, a, b))

    def observe_calls(self, live_s: float, candidate_s: float) -> None:
        """Count one micro-batch that both versions answered, by their compute times."""
        self._live_calls[latency_bucket(live_s * 1000)] += 1
        self._candidate_calls[latency_bucket(candidate_s * 1000)] += 1

    def observe_loss(self, live: Sequence[Outcome]) -> None:
        """Count a micro-batch that the candidate did not answer at all."""
        lost = sum(isinstance(outcome, Answer) for outcome in live)
        self._compared += lost
        self._failed += lost

    def to_record(
        self,
        *,
        pipeline: str,
        consumer: int,
        model: str,
        live: str,
        candidate: str,
        start_ms: int,
        end_ms: int,
    ) -> ComparisonRecord:
        """Return the comparison as a record; times are ms since 1970."""
        return ComparisonRecord(
            pipeline=pipeline,
            consumer=consumer,
            model=model,
            live=live,
            candidate=candidate,
            start_ms=start_ms,
            end_ms=end_ms,
            compared=self._compared,
            agreed=self._agreed,
            failed=self._failed,
            live_failed=self._live_failed,
            skipped=self.skipped,
            matrix={label: dict(row) for label, row in self._matrix.items()},
            live_calls=dict(self._live_calls),
            candidate_calls=dict(self._candidate_calls),
            samples=tuple(self._samples),
        )

    def _count_pair(self, live: str, candidate: str) -> None:
        row = self._matrix.setdefault(_known(live, self._matrix), Counter())
        row[_known(candidate, row)] += 1


def _known(label: str, among: dict[str, Counter[str]] | Counter[str]) -> str:
    # A model with a label per customer must not produce a record that every broker refuses.
    return label if label in among or len(among) < MAX_LABELS else OTHER_LABELS


def _agree(a: Answer, b: Answer, task: str) -> bool:
    if a.label is not None or b.label is not None:
        return a.label == b.label
    if a.result == b.result:
        return True
    agreement = task_type(task).agreement
    return agreement.same_for_people(orjson.loads(a.result), orjson.loads(b.result))


def _sample(record: Record, live: Answer, candidate: Answer) -> Disagreement:
    return Disagreement(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        live=live.label or _NO_LABEL,
        live_score=live.confidence,
        candidate=candidate.label or _NO_LABEL,
        candidate_score=candidate.confidence,
    )
