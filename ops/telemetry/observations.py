"""What the pipelines told lately, kept in memory, and made into the evidence of a step.

Everything here can be read again from Kafka: an operator that takes over starts with nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from ops.analysis.evidence import PairedEvidence, Step, StepEvidence, VersionEvidence
from serve.contract import OF_THE_VERSION
from stream.schema import ComparisonRecord, ConsumerRecord, Disagreement, TelemetryRecord
from stream.telemetry import quantile

# Windows kept of one model. At 5 s a window, two versions and two consumers, over three hours.
MAX_WINDOWS = 10_000
MAX_LOSSES = 1_000
SHOWN_PAIRS = 20
SHOWN_SAMPLES = 8
# A window may be told later than others that began after it ended: its consumer was busy or had
# to tell it again, or the clock of its machine is behind.
LATE_MS = 60_000

# A heartbeat older than that is of a consumer that is gone.
CONSUMER_SILENCE_S = 30.0

Item = TypeVar("Item")
Window = TypeVar("Window", TelemetryRecord, ComparisonRecord)
NO_WINDOWS: Sequence[TelemetryRecord] = ()
NO_COMPARISONS: Sequence[ComparisonRecord] = ()
Told = TelemetryRecord | ComparisonRecord | ConsumerRecord


class Seen(NamedTuple):
    """How much of a model's windows and comparisons somebody has looked at."""

    windows: int = 0
    comparisons: int = 0


NOTHING = Seen()


class Loss(NamedTuple):
    """Records that were deleted before a pipeline read them.

    Attributes:
        place: Of the first: ``topic/partition/offset``.
        records: How many at most: offsets may have had no record.
        at_ms: When it was told, in ms since 1970.
    """

    pipeline: str
    place: str
    records: int
    at_ms: int

    def sentence(self) -> str:
        """What happened, for people."""
        partition, _, first = self.place.rpartition("/")
        last = int(first) + self.records - 1
        return (
            f"{self.records:,} records of {partition}, offsets {first} to {last}, were deleted "
            f"before pipeline {self.pipeline} read them"
        )


class Observations:
    """Telemetry, comparisons and heartbeats by model; for several threads."""

    def __init__(self, *, counted_from_ms: int = 0, is_current: bool = True) -> None:
        """Nothing was told yet.

        Args:
            counted_from_ms: Windows that ended before are not among ``answers``: whoever was
                there before has counted them.
            is_current: Nothing is still to be read that was told before; whoever reads sets it.
                Until then a consumer that is not heard of may be at work all the same.
        """
        self.is_current = is_current
        self._lock = threading.Lock()
        self._counted_from_ms = counted_from_ms
        self._counted: dict[str, Seen] = {}
        self._answers: Counter[tuple[str, str]] = Counter()
        self._windows: dict[str, deque[TelemetryRecord]] = {}
        self._comparisons: dict[str, deque[ComparisonRecord]] = {}
        self._consumers: dict[tuple[str, int], ConsumerRecord] = {}
        self._newest_ms: dict[str, int] = {}
        self._deleted: dict[tuple[str, str], Loss] = {}

    def add(self, told: Iterable[Told]) -> None:
        """Take in what was read, in the order of the topics."""
        with self._lock:
            for record in told:
                match record:
                    case TelemetryRecord(model=str(model)):
                        name = record.pipeline or ""
                        for place, count in record.deleted.items():
                            self._lose(Loss(name, place, count, record.end_ms))
                        newest_ms = self._newest_ms.get(name, record.end_ms)
                        self._newest_ms[name] = max(record.end_ms, newest_ms)
                        self._windows.setdefault(model, deque(maxlen=MAX_WINDOWS)).append(record)
                        windows, comparisons = self._counted.get(model, NOTHING)
                        self._counted[model] = Seen(windows + 1, comparisons)
                        if record.end_ms >= self._counted_from_ms:
                            self._answers[model, record.version or ""] += record.answers
                    case ComparisonRecord():
                        kept = self._comparisons.setdefault(record.model, deque(maxlen=MAX_WINDOWS))
                        kept.append(record)
                        windows, comparisons = self._counted.get(record.model, NOTHING)
                        self._counted[record.model] = Seen(windows, comparisons + 1)
                    case ConsumerRecord():
                        self._consumers[(record.pipeline, record.consumer)] = record
                    case _:
                        pass  # a window of no model is nobody's

    def _lose(self, loss: Loss) -> None:
        self._deleted.pop((loss.pipeline, loss.place), None)
        self._deleted[loss.pipeline, loss.place] = loss
        if len(self._deleted) > MAX_LOSSES:
            del self._deleted[next(iter(self._deleted))]

    def losses(self) -> list[Loss]:
        """Records that were deleted before they were read; the latest last."""
        with self._lock:
            return [*self._deleted.values()]

    def windows(self, model: str, *, since_ms: int) -> list[TelemetryRecord]:
        """Those that began at a moment or later."""
        with self._lock:
            return _since(self._windows.get(model, ()), since_ms)

    def comparisons(self, model: str, *, since_ms: int) -> list[ComparisonRecord]:
        """Those that began at a moment or later."""
        with self._lock:
            return _since(self._comparisons.get(model, ()), since_ms)

    def news(
        self, model: str, seen: Seen
    ) -> tuple[list[TelemetryRecord], list[ComparisonRecord], Seen]:
        """What came since somebody looked, and where to go on from."""
        with self._lock:
            counted = self._counted.get(model, NOTHING)
            windows = _last(self._windows.get(model, NO_WINDOWS), counted.windows - seen.windows)
            fresh = counted.comparisons - seen.comparisons
            return windows, _last(self._comparisons.get(model, NO_COMPARISONS), fresh), counted

    def answers(self, model: str, version: str) -> int:
        """Records that a version has answered, of all windows that are counted."""
        with self._lock:
            return self._answers[model, version]

    def records(self, model: str, *, since_ms: int) -> dict[str, int]:
        """Records that each version had, answered or not, in windows that began since a moment."""
        windows = self.windows(model, since_ms=since_ms)
        by_version: dict[str, list[TelemetryRecord]] = {}
        for window in windows:
            by_version.setdefault(window.version or "", []).append(window)
        return {name: _more(VersionEvidence(name), own).records for name, own in by_version.items()}

    def newest_ms(self) -> dict[str, int]:
        """When the newest window of each pipeline ended, however long ago that is."""
        with self._lock:
            return dict(self._newest_ms)

    def consumers(self, *, since_ms: int) -> list[ConsumerRecord]:
        """How each consumer stood last, of those that told so since a moment."""
        with self._lock:
            return [told for told in self._consumers.values() if told.at_ms >= since_ms]


def _since(windows: Sequence[Window], since_ms: int) -> list[Window]:
    """From the right: the newest stand there, and few are asked for."""
    found = []
    for window in reversed(windows):
        # Consumers' windows overlap: further left may stand one that began later.
        if window.end_ms < since_ms - LATE_MS:
            break
        if window.start_ms >= since_ms:
            found.append(window)
    return found[::-1]


def _last(windows: Sequence[Item], count: int) -> list[Item]:
    newest = [*islice(reversed(windows), count)]
    return newest[::-1]


class Pair(NamedTuple):
    """The two versions that a step is about, as they are called on the wire."""

    candidate: str
    baseline: str


def evidence_of(
    step: Step,
    pair: Pair,
    windows: Iterable[TelemetryRecord],
    comparisons: Iterable[ComparisonRecord],
    *,
    age_s: float,
) -> StepEvidence:
    """What was counted since a step began."""
    gathered = Gathered(step, pair, since_ms=0)
    gathered.add(windows, comparisons)
    return gathered.evidence(age_s=age_s)


class Gathered:
    """The evidence of one step, to which what comes is added.

    In shadow the candidate's answers are nobody's results: what is known of them comes from the
    comparison alone.
    """

    def __init__(self, step: Step, pair: Pair, *, since_ms: int) -> None:
        """Nothing yet.

        Args:
            since_ms: Windows that began before are of another step.
        """
        self._step, self._pair, self._since_ms = step, pair, since_ms
        self._paired = PairedEvidence(baseline_p99_ms=[], candidate_p99_ms=[])
        self._versions = {label: VersionEvidence(label) for label in pair}

    def add(
        self, windows: Iterable[TelemetryRecord], comparisons: Iterable[ComparisonRecord]
    ) -> None:
        """Count what came."""
        if self._step is not Step.SHADOW:
            self._add_windows(windows)
        of_pair = _of_pair(comparisons, self._pair)
        found = [compared for compared in of_pair if compared.start_ms >= self._since_ms]
        if found:
            self._paired = _more_paired(self._paired, found)

    def _add_windows(self, windows: Iterable[TelemetryRecord]) -> None:
        own: dict[str | None, list[TelemetryRecord]] = {label: [] for label in self._pair}
        for window in windows:
            if window.start_ms >= self._since_ms and window.version in own:
                own[window.version].append(window)
        for label, before in self._versions.items():
            if own[label]:
                self._versions[label] = _more(before, own[label])

    def evidence(self, *, age_s: float) -> StepEvidence:
        """All of it."""
        if self._step is Step.SHADOW:
            candidate, baseline = _shadowed(self._pair, self._paired)
        else:
            candidate, baseline = (self._versions[label] for label in self._pair)
        return StepEvidence(candidate, baseline, self._paired, age_s)


def _of_pair(comparisons: Iterable[ComparisonRecord], pair: Pair) -> list[ComparisonRecord]:
    """Those of two versions, as seen from the candidate."""
    return [
        compared if compared.candidate == pair.candidate else _turned(compared)
        for compared in comparisons
        if {compared.live, compared.candidate} == set(pair)
    ]


def disagreements(comparisons: Iterable[ComparisonRecord], pair: Pair) -> dict[str, Any]:
    """Where two versions answered differently, for people: how often, and a few records.

    Returns:
        Nothing where they never did. ``labels`` counts pairs of the baseline's and the
        candidate's label; a record is told by its place, as its text stays where it is.
    """
    found = _of_pair(comparisons, pair)
    pairs = {
        f"{live} -> {candidate}": count
        for (live, candidate), count in Counter(
            _more_paired(PairedEvidence(), found).matrix
        ).most_common(SHOWN_PAIRS)
        if live != candidate
    }
    samples = [
        f"{s.topic}/{s.partition}/{s.offset}: {_scored(s.live, s.live_score)} -> "
        f"{_scored(s.candidate, s.candidate_score)}"
        for s in [sample for c in found for sample in c.samples][-SHOWN_SAMPLES:]
    ]
    return {"labels": pairs, "records": samples} if pairs or samples else {}


def _scored(label: str, score: float | None) -> str:
    return label if score is None else f"{label} {score:.2f}"


def _more(before: VersionEvidence, own: Sequence[TelemetryRecord]) -> VersionEvidence:
    labels = dict(before.labels)
    answers, errors = before.answers, before.errors
    # An operator that takes over adds hours of windows in one round: a Counter takes twice as long.
    for window in own:
        answers += window.answers
        if window.rescued:
            errors += sum(window.rescued.values())
        for kind, count in window.failures.items():
            if kind in OF_THE_VERSION:
                errors += count
        for label, count in window.labels.items():
            labels[label] = labels.get(label, 0) + count
    return VersionEvidence(before.version, answers, errors, Counter(labels))


def _more_paired(before: PairedEvidence, found: Sequence[ComparisonRecord]) -> PairedEvidence:
    rows: dict[str, dict[str, int]] = {}
    for compared in found:
        for live, row in compared.matrix.items():
            sums = rows.setdefault(live, {})
            for candidate, count in row.items():
                sums[candidate] = sums.get(candidate, 0) + count
    matrix = Counter(before.matrix)
    for live, sums in rows.items():
        for candidate, count in sums.items():
            matrix[live, candidate] += count
    timed = [c for c in found if c.live_calls and c.candidate_calls]
    live_p99 = [quantile(c.live_calls, 0.99) or 0.0 for c in timed]
    candidate_p99 = [quantile(c.candidate_calls, 0.99) or 0.0 for c in timed]
    return PairedEvidence(
        compared=before.compared + sum(c.compared - c.failed for c in found),
        agreed=before.agreed + sum(c.agreed for c in found),
        failed=before.failed + sum(c.failed for c in found),
        baseline_failed=before.baseline_failed + sum(c.live_failed for c in found),
        matrix=matrix,
        baseline_p99_ms=[*before.baseline_p99_ms, *live_p99],
        candidate_p99_ms=[*before.candidate_p99_ms, *candidate_p99],
    )


def _shadowed(pair: Pair, paired: PairedEvidence) -> tuple[VersionEvidence, VersionEvidence]:
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for (live, candidate), count in paired.matrix.items():
        theirs[live] += count
        ours[candidate] += count
    return (
        VersionEvidence(
            pair.candidate, paired.compared + paired.baseline_failed, paired.failed, ours
        ),
        VersionEvidence(
            pair.baseline, paired.compared + paired.failed, paired.baseline_failed, theirs
        ),
    )


def _turned(compared: ComparisonRecord) -> ComparisonRecord:
    """The same comparison from the other side: while it bakes, the old version is the shadow."""
    matrix: dict[str, dict[str, int]] = {}
    for live, row in compared.matrix.items():
        for candidate, count in row.items():
            matrix.setdefault(candidate, {})[live] = count
    both = compared.compared - compared.failed
    return compared.model_copy(
        update={
            "live": compared.candidate,
            "candidate": compared.live,
            "compared": both + compared.live_failed,
            "failed": compared.live_failed,
            "live_failed": compared.failed,
            "matrix": matrix,
            "samples": tuple(_turned_sample(sample) for sample in compared.samples),
            "live_calls": compared.candidate_calls,
            "candidate_calls": compared.live_calls,
        }
    )


def _turned_sample(sample: Disagreement) -> Disagreement:
    return sample.model_copy(
        update={
            "live": sample.candidate,
            "live_score": sample.candidate_score,
            "candidate": sample.live,
            "candidate_score": sample.live_score,
        }
    )
