"""What a step of a release is judged by, and what the judgement says; pure.

Shapes only, so that those who fill or read them load no statistics; the judgement itself is in
``ops/analysis/verdict.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple


class ReleaseStep(StrEnum):
    """What is judged: it decides against what the candidate is compared, and by which checks."""

    SHADOW = "shadow"  # both versions see the same records; the candidate's answers are dropped
    CANARY = "canary"  # both answer, each the records of other keys
    BAKE = "bake"  # the candidate answers everything; the baseline some of it again, unseen


class VersionEvidence(NamedTuple):
    """What one version did since the step began.

    Args:
        version: As people call it.
        answers: Records with a prediction.
        errors: Records without one where the version is to blame; invalid input is not.
        labels: Label -> answers; empty for tasks without labels.
    """

    version: str
    answers: int = 0
    errors: int = 0
    labels: Mapping[str, int] = {}

    @property
    def records(self) -> int:
        """Answers and errors."""
        return self.answers + self.errors


class PairedEvidence(NamedTuple):
    """What both versions did with the same micro-batches since the step began.

    Args:
        compared: Records that both answered.
        agreed: Those with the same answer.
        failed: Records where the candidate failed and the baseline answered.
        baseline_failed: Records where the baseline failed and the candidate answered.
        matrix: (baseline's label, candidate's label) -> records.
        baseline_p99_ms: Of what a micro-batch took to compute, one a window.
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
        """The candidate's p99 over the baseline's, one for each window that has both."""
        windows = zip(self.candidate_p99_ms, self.baseline_p99_ms, strict=False)
        return [ours / theirs for ours, theirs in windows if theirs > 0]


class StepEvidence(NamedTuple):
    """All that was counted since the step began; no number is negative or infinite."""

    candidate: VersionEvidence
    baseline: VersionEvidence
    paired: PairedEvidence
    age_s: float


class Limits(NamedTuple):
    """What a step wants; a limit that is None is not checked.

    Args:
        step: Which kind of step.
        records: Records of the candidate before the step can pass.
        timeout_s: Age at which an open question becomes inconclusive.
        duration_s: Age before the step can pass.
        alpha: Chance that a candidate no worse than the baseline fails a sequential test, over
            all looks of the step; 0 < alpha < 1. The default policy's 0.05 over its four steps.
        compare_errors: Whether its errors are compared with the baseline's.
        max_error_rate: Share of the candidate's records; 0 < rate < 1.
        max_slowdown: The candidate's p99 over the baseline's.
        max_p99_ms: Of the candidate's calls.
        max_distance: Jensen-Shannon distance between the label mixes, 0 to 1.
        min_agreement: Share of the compared records, 0 to 1.
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
    """From best to worst, so that the worst of several is the outcome of all."""

    PASSED = "passed"
    WAITING = "waiting"
    INCONCLUSIVE = "inconclusive"
    FAILED = "failed"

    def or_worse(self, other: StepOutcome) -> StepOutcome:
        """The worse of two."""
        return max(self, other, key=list(StepOutcome).index)


class CheckResult(NamedTuple):
    """What one check says.

    Args:
        check: The check's name.
        outcome: Its answer.
        sentence: The same for people, with the numbers that decided.
        evidence: The numbers for the ledger.
    """

    check: str
    outcome: StepOutcome
    sentence: str
    evidence: Mapping[str, float]


class Verdict(NamedTuple):
    """The worst outcome of all findings, and the findings."""

    outcome: StepOutcome
    findings: tuple[CheckResult, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences that made the outcome what it is."""
        return tuple(found.sentence for found in self.findings if found.outcome is self.outcome)
