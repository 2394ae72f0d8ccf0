"""Simulate whole releases with the real verdicts: false alarms, detection, records needed.

Simulated records are independent of each other, so these metrics do not cover the effect of
bursts of errors or of differences between keys.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ops.analysis.evidence import (
    Limits,
    PairedEvidence,
    ReleaseStep,
    StepEvidence,
    StepOutcome,
    VersionEvidence,
)
from ops.analysis.limits import MIRROR_SHARE, judged_steps
from ops.analysis.verdict import judge
from ops.policy.policy import ErrorAnalysis, Policy

SEED: Final = 20260101
WINDOW_S: Final = 10.0
WINDOW_RECORDS: Final = 200
WINDOW_CALLS: Final = 20
CALL_MS: Final = 20.0
CALL_SIGMA: Final = 0.4
LABELS: Final = ("negative", "neutral", "positive")
MIX: Final = np.array([0.3, 0.1, 0.6])
# SIMILAR keeps the mix and 97% of the answers, DEGRADED keeps 60% of the answers.
SIMILAR: Final = 0.95 * np.eye(3) + 0.05 * MIX
DEGRADED: Final = 0.6 * np.eye(3) + 0.2 * (1 - np.eye(3))
ERROR_RATE: Final = 0.01
CANARY_WEIGHTS: Final = (0.05, 0.1, 0.25, 0.5)

_Counts = NDArray[np.int64]


class Candidate(NamedTuple):
    """How a simulated version differs from the baseline.

    Args:
        error_rate: Fraction of records that it fails on.
        slowdown: Duration of its calls over that of the baseline's.
        confusion: Probability of its label given the baseline's label; shape (C, C).
    """

    error_rate: float = ERROR_RATE
    slowdown: float = 1.0
    confusion: NDArray[np.float64] = SIMILAR


class Plan(NamedTuple):
    """A step and its traffic; ``weight`` is the candidate's fraction of the records."""

    limits: Limits
    weight: float
    window_records: int = WINDOW_RECORDS


class Release(NamedTuple):
    """Outcome of a simulated release and the number of live records until then."""

    outcome: StepOutcome
    records: int


DEFAULT_POLICY: Final = tuple(Plan(*step) for step in judged_steps(Policy(model="simulated")))
SAME: Final = Candidate()
DOUBLED: Final = Candidate(error_rate=2 * ERROR_RATE)
SLOW: Final = Candidate(slowdown=3.0)
FAILING: Final = Candidate(error_rate=0.05)
WORSE: Final = Candidate(confusion=DEGRADED)


def long_canary(weight: float, *, windows: int, window_records: int) -> tuple[Plan]:
    """Return a canary step that is judged by errors alone and ends at its timeout."""
    limits = Limits(
        ReleaseStep.CANARY,
        records=windows * window_records,
        timeout_s=windows * WINDOW_S,
        alpha=ErrorAnalysis().alpha,
        max_slowdown=None,
        max_distance=None,
    )
    return (Plan(limits, weight, window_records),)


def release(rng: np.random.Generator, plans: Sequence[Plan], candidate: Candidate) -> Release:
    """Run a version through the steps until one of them does not pass."""
    records = 0
    for plan in plans:
        outcome = StepOutcome.INCONCLUSIVE
        for evidence in looks(rng, plan, candidate):
            records += plan.window_records
            outcome = judge(evidence, plan.limits).outcome
            if outcome is not StepOutcome.WAITING:
                break
        if outcome is not StepOutcome.PASSED:
            return Release(outcome, records)
    return Release(StepOutcome.PASSED, records)


def looks(rng: np.random.Generator, plan: Plan, candidate: Candidate) -> Iterator[StepEvidence]:
    """Yield the evidence after each window of a step, up to its timeout."""
    windows = int(plan.limits.timeout_s / WINDOW_S)
    counted = _shadow if plan.limits.step is ReleaseStep.SHADOW else _beside
    ours_ms, theirs_ms = _p99s(rng, windows, candidate.slowdown), _p99s(rng, windows, 1.0)
    for look, evidence in enumerate(counted(rng, plan, candidate, windows), start=1):
        paired = evidence.paired._replace(
            baseline_p99_ms=theirs_ms[:look], candidate_p99_ms=ours_ms[:look]
        )
        yield evidence._replace(paired=paired, age_s=look * WINDOW_S)


def _shadow(
    rng: np.random.Generator, plan: Plan, candidate: Candidate, windows: int
) -> Iterator[StepEvidence]:
    """Yield evidence: versions fail independently and answer according to the confusion matrix."""
    fate = _fates(rng, np.full(windows, plan.window_records), candidate)
    cells = rng.multinomial(fate[:, 0], (MIX[:, None] * candidate.confusion).ravel())
    for counts, (compared, failed, baseline_failed, both) in zip(
        cells.cumsum(axis=0).reshape(windows, *candidate.confusion.shape),
        fate.cumsum(axis=0).tolist(),
        strict=True,
    ):
        agreed = int(np.trace(counts))
        matrix = {(LABELS[x], LABELS[y]): int(n) for (x, y), n in np.ndenumerate(counts)}
        yield StepEvidence(
            _version("2", compared + baseline_failed, failed + both, counts.sum(axis=0)),
            _version("1", compared + failed, baseline_failed + both, counts.sum(axis=1)),
            PairedEvidence(compared, agreed, failed, baseline_failed, matrix),
            age_s=0.0,
        )


def _beside(
    rng: np.random.Generator, plan: Plan, candidate: Candidate, windows: int
) -> Iterator[StepEvidence]:
    """Yield evidence: one version per record; bake mirrors some to both to compare errors."""
    ours = rng.binomial(plan.window_records, plan.weight, size=windows)
    mirrored = rng.binomial(ours, MIRROR_SHARE if plan.limits.step is ReleaseStep.BAKE else 0.0)
    rows = zip(
        _answered(rng, "2", ours, candidate.error_rate, MIX @ candidate.confusion),
        _answered(rng, "1", plan.window_records - ours, ERROR_RATE, MIX),
        _fates(rng, mirrored, candidate).cumsum(axis=0).tolist(),
        strict=True,
    )
    for two, one, (compared, failed, baseline_failed, _) in rows:
        paired = PairedEvidence(compared, compared, failed, baseline_failed)
        yield StepEvidence(two, one, paired, age_s=0.0)


def _fates(rng: np.random.Generator, pairs: _Counts, candidate: Candidate) -> _Counts:
    """Count records by failure: none, candidate only, baseline only, both; (N,) to (N, 4)."""
    ours, theirs = candidate.error_rate, ERROR_RATE
    shares = [(1 - ours) * (1 - theirs), ours * (1 - theirs), (1 - ours) * theirs, ours * theirs]
    return rng.multinomial(pairs, shares)


def _answered(
    rng: np.random.Generator,
    version: str,
    records: _Counts,
    error_rate: float,
    mix: NDArray[np.float64],
) -> Iterator[VersionEvidence]:
    errors = rng.binomial(records, error_rate)
    labels = rng.multinomial(records - errors, mix).cumsum(axis=0)
    for failed, counts in zip(errors.cumsum().tolist(), labels, strict=True):
        yield _version(version, int(counts.sum()), failed, counts)


def _version(version: str, answers: int, errors: int, labels: _Counts) -> VersionEvidence:
    named = dict(zip(LABELS, labels.tolist(), strict=True))
    return VersionEvidence(version, answers, errors, named)


def _p99s(rng: np.random.Generator, windows: int, slowdown: float) -> list[float]:
    calls = rng.lognormal(np.log(CALL_MS * slowdown), CALL_SIGMA, size=(windows, WINDOW_CALLS))
    p99s: list[float] = np.quantile(calls, 0.99, axis=1).tolist()
    return p99s


class Row(NamedTuple):
    """Statistics of many releases of one kind."""

    releases: int
    failed: float
    inconclusive: float
    median_records: float | None
    records_for_99: float | None

    @classmethod
    def of(cls, ended: Sequence[Release]) -> Row:
        """Return outcome fractions, median records to failure, and records by which 99% failed."""
        found = sorted(one.records for one in ended if one.outcome is StepOutcome.FAILED)
        needed = math.ceil(0.99 * len(ended))
        open_ended = sum(one.outcome is StepOutcome.INCONCLUSIVE for one in ended)
        return cls(
            len(ended),
            len(found) / len(ended),
            open_ended / len(ended),
            median(found) if found else None,
            found[needed - 1] if len(found) >= needed else None,
        )


def measure(name: str, plans: Sequence[Plan], candidate: Candidate, releases: int) -> Row:
    """Simulate releases of one kind; every kind uses the same seed."""
    started = time.perf_counter()
    rng = np.random.default_rng(SEED)
    row = Row.of([release(rng, plans, candidate) for _ in range(releases)])
    print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return row


def table(rows: Mapping[str, Row]) -> Table:
    """Return all rows as a printable table."""
    made = Table("version", "releases", "rolled back", "inconclusive", "median", "99% by")
    for name, row in rows.items():
        records = ("-" if n is None else f"{n:,.0f}" for n in row[3:])
        made.add_row(
            name, f"{row.releases:,}", f"{row.failed:.2%}", f"{row.inconclusive:.2%}", *records
        )
    made.caption = (
        "median, 99% by: live records until the rollback; rows with looks or a canary never pass"
    )
    return made


def main() -> None:
    """Simulate, print a table to stderr and one line of JSON to stdout."""
    parser = argparse.ArgumentParser(prog="python -m bench.verdicts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="simulate a tenth of the releases")
    many, some = (200, 50) if parser.parse_args().quick else (2000, 500)
    design = long_canary(0.1, windows=24, window_records=2000)
    rows = {
        "same": measure("same", DEFAULT_POLICY, SAME, many),
        "same, 24 looks of 2,000": measure("same, 24 looks", design, SAME, many),
        "doubled, 24 looks of 2,000": measure("doubled, 24 looks", design, DOUBLED, many),
        "doubled": measure("doubled", DEFAULT_POLICY, DOUBLED, some),
        "slow": measure("slow", DEFAULT_POLICY, SLOW, some),
        "failing": measure("failing", DEFAULT_POLICY, FAILING, some),
        "worse answers": measure("worse answers", DEFAULT_POLICY, WORSE, some),
    }
    for weight in CANARY_WEIGHTS:
        name = f"doubled, canary of {weight:.0%}"
        plans = long_canary(weight, windows=100, window_records=1000)
        rows[name] = measure(name, plans, DOUBLED, some)
    Console(stderr=True).print(table(rows))
    sys.stdout.write(json.dumps(figures(rows)) + "\n")


def figures(rows: Mapping[str, Row]) -> dict[str, float | None]:
    """Return the line of JSON: fractions of releases, and numbers of records."""
    doubled = rows["doubled, 24 looks of 2,000"]
    return {
        "releases": rows["same"].releases,
        "false_rollbacks": rows["same"].failed,
        "false_rollbacks_24_looks": rows["same, 24 looks of 2,000"].failed,
        "inconclusive": rows["same"].inconclusive,
        "doubled_errors_found": doubled.failed,
        "doubled_errors_median_records": doubled.median_records,
        "doubled_errors_found_by_default_policy": rows["doubled"].failed,
        "slow_found": rows["slow"].failed,
        "failing_found": rows["failing"].failed,
        "worse_found": rows["worse answers"].failed,
    }


if __name__ == "__main__":
    main()
