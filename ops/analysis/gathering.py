"""Adds up telemetry of a step's two versions to the evidence of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ops.analysis.evidence import PairedEvidence, ReleaseStep, StepEvidence, VersionEvidence
from serve.contract import OF_THE_VERSION
from stream.schema import ComparisonRecord, Disagreement, TelemetryRecord
from stream.telemetry import quantile

SHOWN_PAIRS = 20
SHOWN_SAMPLES = 8


class Pair(NamedTuple):
    """The two versions that a step compares, by their labels."""

    candidate: str
    baseline: str


class Gathered:
    """Accumulated evidence of one step.

    In shadow the candidate's answers are discarded, so they are known only from the comparison
    records.
    """

    def __init__(self, step: ReleaseStep, pair: Pair, *, since_ms: int) -> None:
        """Start without evidence.

        Args:
            since_ms: Start of the step; windows that began earlier are ignored.
        """
        self._step, self._pair, self._since_ms = step, pair, since_ms
        self._paired = PairedEvidence(baseline_p99_ms=[], candidate_p99_ms=[])
        self._versions = {label: VersionEvidence(label) for label in pair}

    def add(
        self, windows: Iterable[TelemetryRecord], comparisons: Iterable[ComparisonRecord]
    ) -> None:
        """Add new windows and comparisons."""
        if self._step is not ReleaseStep.SHADOW:
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
        """Return all evidence so far."""
        if self._step is ReleaseStep.SHADOW:
            candidate, baseline = _shadowed(self._pair, self._paired)
        else:
            candidate, baseline = (self._versions[label] for label in self._pair)
        return StepEvidence(candidate, baseline, self._paired, age_s)


def _of_pair(comparisons: Iterable[ComparisonRecord], pair: Pair) -> list[ComparisonRecord]:
    """Return the comparisons of two versions, from the candidate's side."""
    return [
        compared if compared.candidate == pair.candidate else _turned(compared)
        for compared in comparisons
        if {compared.live, compared.candidate} == set(pair)
    ]


def disagreements(comparisons: Iterable[ComparisonRecord], pair: Pair) -> dict[str, Any]:
    """Report where two versions answered differently: how often, and a few records.

    Returns:
        An empty dict if they never did. ``labels`` counts pairs of the baseline's and the
        candidate's label; a record is given by its place, as its text is not copied.
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
    # An operator that takes over adds hours of windows in one round; a Counter is half as fast.
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
    """Swap the sides of a comparison: during bake, the old version is the shadow."""
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


def records_of(windows: Iterable[TelemetryRecord]) -> dict[str, int]:
    """Return the number of records that each version had, answered or not."""
    by_version: dict[str, list[TelemetryRecord]] = {}
    for window in windows:
        by_version.setdefault(window.version or "", []).append(window)
    return {name: _more(VersionEvidence(name), own).records for name, own in by_version.items()}
