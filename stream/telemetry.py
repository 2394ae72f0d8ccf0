"""Telemetry: metrics of a pipeline and model version, collected in windows that can be summed.

Uses neither a clock nor a Kafka client; the loop passes the times and sends the records.

Buckets. ``latency``: bucket 0 is up to 0.1 ms, bucket i up to 0.1 * 2**(i/4) ms, the last one
everything above 10 minutes. ``confidence``: 20 buckets of equal width over 0..1. ``lengths``:
bucket b holds 2**(b-1) to 2**b - 1 tokens.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Final, TypeVar

from serve.contract import Answer, BatchStats, FailureKind, ReplicaInfo
from stream.records import Deleted
from stream.schema import TelemetryRecord

MAX_LABELS: Final = 256
OTHER_LABELS: Final = "(other)"
CONFIDENCE_BINS: Final = 20
LATENCY_EDGES_MS: Final = [0.1 * 2 ** (i / 4) for i in range(92)]
QUANTILE_ERROR: Final = 2 ** (1 / 8) - 1

_CONFIDENCE_EDGES: Final = [i / CONFIDENCE_BINS for i in range(1, CONFIDENCE_BINS)]
latency_bucket = partial(bisect_left, LATENCY_EDGES_MS)
_confidence_bucket = partial(bisect_right, _CONFIDENCE_EDGES)

_Key = TypeVar("_Key", bound=Hashable)
_Fact = TypeVar("_Fact", str, int)


class TelemetryWindow:
    """Metrics of one consumer and one model version; not thread-safe.

    Observe what is committed, not what is attempted: a batch that is processed again after an
    aborted transaction would count twice.
    """

    def __init__(self, *, pipeline: str, consumer: int, model: str, version: str | None) -> None:
        self._pipeline = pipeline
        self._consumer = consumer
        self._model = model
        self._version = version
        self.reset()

    def reset(self) -> None:
        """Begin the next window with all counts at zero."""
        self._answers = self._truncated = self._retries = self._calls = 0
        self._tokens = self._padded_tokens = self._distinct_texts = self._replica_us = 0
        self._latency: Counter[int] = Counter()
        self._confidence: Counter[int] = Counter()
        self._lengths: Counter[int] = Counter()
        self._labels: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._rescued: Counter[str] = Counter()
        self._deleted: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was observed since the start of the window."""
        return not (
            self._answers
            or self._calls
            or self._retries
            or self._failures
            or self._rescued
            or self._deleted
        )

    def observe_answers(self, answers: Sequence[Answer], latencies_ms: Iterable[float]) -> None:
        """Count predictions.

        Args:
            answers: Shape (N,).
            latencies_ms: Time from the input's timestamp to now, where it is known; at most N
                values, each >= 0.
        """
        self._answers += len(answers)
        self._truncated += sum(answer.truncated for answer in answers)
        self._latency.update(map(latency_bucket, latencies_ms))
        self._lengths.update([answer.tokens.bit_length() for answer in answers])
        scores = [answer.confidence for answer in answers if answer.confidence is not None]
        self._confidence.update(map(_confidence_bucket, scores))
        self._add_labels(Counter([a.label for a in answers if a.label is not None]))

    def observe_failures(self, kinds: Iterable[FailureKind]) -> None:
        """Count records that became dead letters."""
        self._failures.update(kind.value for kind in kinds)

    def observe_rescues(self, reason: str, count: int) -> None:
        """Count records that this version did not answer and that its fallback must answer."""
        self._rescued[reason] += count

    def observe_deleted(self, gone: Deleted) -> None:
        """Count records that were deleted before they were read, by the place of the first."""
        topic, partition = gone.partition
        self._deleted[f"{topic}/{partition}/{gone.first}"] += gone.records

    def observe_call(self, stats: BatchStats) -> None:
        """Count one call that returned."""
        self._calls += 1
        self._tokens += stats.tokens
        self._padded_tokens += stats.padded_tokens
        self._distinct_texts += stats.distinct_texts
        self._replica_us += round(stats.seconds * 1e6)

    def observe_retry(self) -> None:
        """Count one call that is repeated."""
        self._retries += 1

    def to_record(
        self, start_ms: int, end_ms: int, *, replica: ReplicaInfo | None
    ) -> TelemetryRecord:
        """Return the observations since the last ``reset``.

        Args:
            start_ms: Start of the window, in ms since 1970.
            end_ms: End of the window, in ms since 1970.
            replica: The replica that answers; None while it is unknown.
        """
        return TelemetryRecord(
            pipeline=self._pipeline,
            consumer=self._consumer,
            model=self._model,
            version=self._version,
            engine=replica.engine if replica else None,
            precision=replica.precision if replica else None,
            digest=replica.digest if replica else None,
            start_ms=start_ms,
            end_ms=end_ms,
            answers=self._answers,
            failures=dict(self._failures),
            rescued=dict(self._rescued),
            deleted=dict(self._deleted),
            retries=self._retries,
            calls=self._calls,
            tokens=self._tokens,
            padded_tokens=self._padded_tokens,
            distinct_texts=self._distinct_texts,
            truncated=self._truncated,
            replica_us=self._replica_us,
            latency=dict(self._latency),
            confidence=dict(self._confidence),
            lengths=dict(self._lengths),
            labels=dict(self._labels),
        )

    def _add_labels(self, labels: Counter[str]) -> None:
        for label, count in labels.items():
            # A model with a label per customer must not produce a record that every broker refuses.
            full = len(self._labels) >= MAX_LABELS and label not in self._labels
            self._labels[OTHER_LABELS if full else label] += count


def merge(records: Iterable[TelemetryRecord]) -> TelemetryRecord:
    """Add up windows; neither order nor grouping matters.

    A name that differs becomes None. Labels are not limited again: windows of one version have
    the same labels.

    Raises:
        ValueError: ``records`` is empty.
    """
    windows = list(records)
    if not windows:
        raise ValueError("nothing to merge: give at least one telemetry record")
    return reduce(_merge_two, windows)


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """Return the latency in ms that a fraction ``q`` of the answers did not exceed.

    The error is at most ``QUANTILE_ERROR`` (9.1%) of the value between 0.1 ms and 10 minutes;
    below, the result is 0.1, and above, the last edge, which is a lower bound.

    Args:
        histogram: ``latency`` of a telemetry record.
        q: Fraction, 0..1.
    Returns:
        The latency, or None if the histogram is empty.
    """
    total = sum(histogram.values())
    if total == 0:
        return None
    rank = max(1, math.ceil(q * total))
    seen = 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            break
    if bucket == 0 or bucket >= len(LATENCY_EDGES_MS):
        return LATENCY_EDGES_MS[min(bucket, len(LATENCY_EDGES_MS) - 1)]
    # The geometric mean has the same relative error in both directions.
    return math.sqrt(LATENCY_EDGES_MS[bucket - 1] * LATENCY_EDGES_MS[bucket])


def _merge_two(a: TelemetryRecord, b: TelemetryRecord) -> TelemetryRecord:
    return TelemetryRecord(
        pipeline=_common(a.pipeline, b.pipeline),
        consumer=_common(a.consumer, b.consumer),
        model=_common(a.model, b.model),
        version=_common(a.version, b.version),
        engine=_common(a.engine, b.engine),
        precision=_common(a.precision, b.precision),
        digest=_common(a.digest, b.digest),
        start_ms=min(a.start_ms, b.start_ms),
        end_ms=max(a.end_ms, b.end_ms),
        answers=a.answers + b.answers,
        failures=add_counts(a.failures, b.failures),
        rescued=add_counts(a.rescued, b.rescued),
        deleted=add_counts(a.deleted, b.deleted),
        retries=a.retries + b.retries,
        calls=a.calls + b.calls,
        tokens=a.tokens + b.tokens,
        padded_tokens=a.padded_tokens + b.padded_tokens,
        distinct_texts=a.distinct_texts + b.distinct_texts,
        truncated=a.truncated + b.truncated,
        replica_us=a.replica_us + b.replica_us,
        latency=add_counts(a.latency, b.latency),
        confidence=add_counts(a.confidence, b.confidence),
        lengths=add_counts(a.lengths, b.lengths),
        labels=add_counts(a.labels, b.labels),
    )


def _common(a: _Fact | None, b: _Fact | None) -> _Fact | None:
    return a if a == b else None


def add_counts(a: Mapping[_Key, int], b: Mapping[_Key, int]) -> dict[_Key, int]:
    """Return the sum of two histograms."""
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}
