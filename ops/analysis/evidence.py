"""Data types for judging a step of a release: evidence, limits and verdict; pure.

Types only, so that modules that create or read them load no statistics; the judgement itself is
in ``ops/analysis/verdict.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class ReleaseStep(StrEnum):
    """Step to judge; it decides the checks and what the candidate is compared with."""

    SHADOW = "shadow"  # both versions see the same records; candidate answers are discarded
    CANARY = "canary"  # both answer, each the records of different keys
    BAKE = "bake"  # the candidate answers all; the baseline some again, discarded


class VersionEvidence(NamedTuple):
    """Results of one version since the step began.

    Args:
        version: Label of the version.
        answers: Records with a prediction.
        errors: Records without one where the version is to blame, unlike for invalid input.
        labels: Label -> answers; empty for tasks without labels.
    """

    version: str
    answers: int = 0
    errors: int = 0
    labels: Mapping[str, int] = {}

    @property
    def records(self) -> int:
        """Return the number of answers and errors."""
        return self.answers + self.errors


class PairedEvidence(NamedTuple):
    """Results of both versions on the same micro-batches since the step began.

    Args:
        compared: Records that both answered.
        agreed: Records with the same answer.
        failed: Records where the candidate failed and the baseline answered.
        baseline_failed: Records where the baseline failed and the candidate answered.
        matrix: (baseline's label, candidate's label) -> records.
        baseline_p99_ms: p99 of the time to compute a micro-batch, one per window.
        candidate_p99_ms: The same in the same windows.
    """

    compared: int = 0
    agreed: int = 0
    failed: int = 0
    baseline_failed: int = 0
    matrix: Mapping[tuple[str, str], int] = {}
    baseline_p99_ms: Sequence[float] = ()
    candidate_p99_ms: Sequence[float] = ()

    @property
    def slowdowns(self) -> list[float]:
        """Return the candidate's p99 over the baseline's, for each window that has both."""
        windows = zip(self.candidate_p99_ms, self.baseline_p99_ms, strict=False)
        return [ours / theirs for ours, theirs in windows if theirs > 0]


class StepEvidence(NamedTuple):
    """All counts since the step began; no number is negative or infinite."""

    candidate: VersionEvidence
    baseline: VersionEvidence
    paired: PairedEvidence
    age_s: float


class Limits(NamedTuple):
    """Limits of a step; a limit that is None is not checked.

    Args:
        step: Kind of step.
        records: Records that the candidate needs before the step can pass.
        timeout_s: Age at which an undecided check becomes inconclusive.
        duration_s: Age before which the step cannot pass.
        alpha: Probability that a candidate no worse than the baseline fails a sequential test at
            any look of the step; 0 < alpha < 1. The default is the policy's 0.05 over four steps.
        compare_errors: Whether its errors are compared with the baseline's.
        max_error_rate: Fraction of the candidate's records; 0 < rate < 1.
        max_slowdown: The candidate's p99 over the baseline's.
        max_p99_ms: p99 of the candidate's calls.
        max_distance: Jensen-Shannon distance between the label distributions, 0 to 1.
        min_agreement: Fraction of the compared records, 0 to 1.
    """

    step: ReleaseStep
    records: int
    timeout_s: float
    duration_s: float = 0.0
    alpha: float = 0.0125
    compare_errors: bool = True
    max_error_rate: float | None = 0.05
    max_slowdown: float | None = 1.5
    max_p99_ms: float | None = None
    max_distance: float | None = 0.15
    min_agreement: float | None = 0.8


class StepOutcome(StrEnum):
    """Outcomes from best to worst; the worst of several is the outcome of all."""

    PASSED = "passed"
    WAITING = "waiting"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"

    def or_worse(self, other: StepOutcome) -> StepOutcome:
        """Return the worse of two outcomes."""
        return max(self, other, key=list(StepOutcome).index)


class CheckResult(NamedTuple):
    """Result of one check.

    Args:
        check: Name of the check.
        outcome: Outcome of the check.
        sentence: The outcome for people, with the numbers that decided.
        evidence: The numbers for the ledger.
    """

    check: str
    outcome: StepOutcome
    sentence: str
    evidence: Mapping[str, float]


class Verdict(NamedTuple):
    """The worst outcome of all findings, with the findings."""

    outcome: StepOutcome
    findings: tuple[CheckResult, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the sentences of the findings that decided the outcome."""
        return tuple(found.sentence for found in self.findings if found.outcome is self.outcome)
