"""The judgement of one step of a release: shadow, canary or bake; pure.

``judge`` is called at every look with all counts since the step began. Each check has one of three
results: failed, passed, or not enough data yet. One failure fails the step; a step passes only
when every required check has passed; a check still undecided at the timeout is inconclusive and
waits for a person. ``_CHECKS``, at the end, lists the checks and the steps that require each.

    records, duration   has the step seen what the policy requires?
    error_rate, p99     absolute limits, whatever the baseline does
    errors              against the baseline: on different keys in a canary, else the same records
    latency             against the baseline, on the same micro-batches
    labels, agreement   against the baseline: how often each label; how often the same answer

The tests allow repeated looks: a check that may fail during a step uses evidence that stays valid
however often one looks (``log_evidence``), or bounds three standard errors away (``Interval``).
``ops.releases.state_machine`` decides what follows from a verdict; the arithmetic is in
``statistics``; ``power`` computes how small a difference a policy finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from statistics import median
from typing import Final

from ops.analysis.evidence import (
    CheckResult,
    Limits,
    ReleaseStep,
    StepEvidence,
    StepOutcome,
    Verdict,
)
from ops.analysis.statistics import log_evidence, mann_whitney, mix_distance, wilson

# Number of records, pairs or labels below which no fraction of them is judged.
MIN_RECORDS: Final = 50
# With 6 windows against 6, Mann-Whitney can just reach the level below.
MIN_WINDOWS: Final = 6
LATENCY_LEVEL: Final = 0.002
# Trials that the priors of each sequential test are worth, see log_evidence. Errors: few for a
# version that fails outright, many for doubled errors, which change the proportion only a little.
# Windows: very few, as nearly every window of a slow version is too slow.
ERRORS_PRIORS: Final = (10.0, 40.0)
_WINDOWS_PRIORS: Final = (2.0,)


def judge(evidence: StepEvidence, limits: Limits) -> Verdict:
    """Judge a step by the counts since it began.

    Returns:
        Failed as soon as one check fails. Passed when the step has its records and its duration
        and every required check passed; until then waiting, and inconclusive from the timeout on.
    """
    answers = ((check(evidence, limits), needed_in) for check, needed_in in _CHECKS)
    findings = [
        _at_timeout(found) if evidence.age_s >= limits.timeout_s else found
        for found, needed_in in answers
        if found and (limits.step in needed_in or found.outcome is not StepOutcome.WAITING)
    ]
    worst = reduce(StepOutcome.or_worse, (found.outcome for found in findings), StepOutcome.PASSED)
    return Verdict(worst, tuple(findings))


def _at_timeout(found: CheckResult) -> CheckResult:
    is_open = found.outcome is StepOutcome.WAITING
    return found._replace(outcome=StepOutcome.INCONCLUSIVE) if is_open else found


def _records(evidence: StepEvidence, limits: Limits) -> CheckResult:
    seen, wanted = evidence.candidate.records, limits.records
    sentence = (
        f"records: version {evidence.candidate.version} had {seen:,} of the {wanted:,} "
        f"that the step requires, in {evidence.age_s:,.0f} s"
    )
    both = seen + evidence.baseline.records
    if limits.step is ReleaseStep.CANARY and both:
        sentence += f"; of all records {_share(seen, both)}"
    outcome = StepOutcome.PASSED if _has_records(evidence, limits) else StepOutcome.WAITING
    return CheckResult("records", outcome, sentence, {"records": seen, "wanted": wanted})


def _duration(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    if limits.duration_s <= 0:
        return None
    age_s, wanted_s = evidence.age_s, limits.duration_s
    outcome = StepOutcome.PASSED if age_s >= wanted_s else StepOutcome.WAITING
    sentence = f"duration: {age_s:,.0f} s of the {wanted_s:,.0f} s that the step must last"
    return CheckResult("duration", outcome, sentence, {"age_s": age_s, "wanted_s": wanted_s})


def _error_rate(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    """Check the absolute limit, the fast path for a version that fails outright."""
    if limits.max_error_rate is None:
        return None
    candidate, errors = evidence.candidate, evidence.candidate.errors
    if candidate.records < MIN_RECORDS:
        return _too_few("error_rate", "records", candidate.records)
    found = log_evidence(
        errors, candidate.records, share=limits.max_error_rate, priors=ERRORS_PRIORS
    )
    within = errors <= limits.max_error_rate * candidate.records
    sentence = (
        f"error rate: {_share(errors, candidate.records)}, at most "
        f"{_percent(limits.max_error_rate)} allowed; {_strength(found, limits.alpha)}"
    )
    numbers = {"errors": errors, "records": candidate.records, "log_evidence": found}
    return CheckResult("error_rate", _by_evidence(found, limits.alpha, within), sentence, numbers)


def _errors(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    """Compare with the baseline: on different keys in a canary, else on the same records."""
    if not limits.compare_errors:
        return None
    return (_errors_beside if limits.step is ReleaseStep.CANARY else _errors_of_pairs)(
        evidence, limits
    )


def _errors_beside(evidence: StepEvidence, limits: Limits) -> CheckResult:
    """Test that the candidate's fraction of all errors is at most its fraction of the records.

    The observed fraction is used, not the weight: one busy key can move it far from the weight.
    """
    ours, theirs = evidence.candidate, evidence.baseline
    fewest = min(ours, theirs, key=lambda version: version.records)
    if fewest.records < MIN_RECORDS:
        return _too_few("errors", f"records of version {fewest.version}", fewest.records)
    found = log_evidence(
        ours.errors,
        ours.errors + theirs.errors,
        share=ours.records / (ours.records + theirs.records),
        priors=ERRORS_PRIORS,
    )
    sentence = (
        f"errors: {_share(ours.errors, ours.records)} against "
        f"{_share(theirs.errors, theirs.records)} of version {theirs.version}; "
        f"{_strength(found, limits.alpha)}"
    )
    numbers = {
        "errors": ours.errors,
        "records": ours.records,
        "baseline_errors": theirs.errors,
        "baseline_records": theirs.records,
        "log_evidence": found,
    }
    return CheckResult("errors", _by_evidence(found, limits.alpha, within=True), sentence, numbers)


def _errors_of_pairs(evidence: StepEvidence, limits: Limits) -> CheckResult:
    """Apply McNemar's test: of records that only one failed on, each should have half."""
    paired, theirs = evidence.paired, evidence.baseline.version
    pairs = paired.compared + paired.failed + paired.baseline_failed
    if pairs < MIN_RECORDS:
        return _too_few("errors", "records given to both versions", pairs)
    one_sided = paired.failed + paired.baseline_failed
    found = log_evidence(paired.failed, one_sided, share=0.5, priors=ERRORS_PRIORS)
    sentence = (
        f"errors: failed on {_share(paired.failed, pairs)} where version {theirs} answered, "
        f"answered {paired.baseline_failed:,} where it failed; {_strength(found, limits.alpha)}"
    )
    numbers = {
        "failed": paired.failed,
        "baseline_failed": paired.baseline_failed,
        "pairs": pairs,
        "log_evidence": found,
    }
    return CheckResult("errors", _by_evidence(found, limits.alpha, within=True), sentence, numbers)


def _latency(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    """Fail early if too many windows are too slow, else by Mann-Whitney at the step's end."""
    if limits.max_slowdown is None:
        return None
    paired, theirs = evidence.paired, evidence.baseline.version
    slowdowns = paired.slowdowns
    windows = len(slowdowns)
    if windows < MIN_WINDOWS:
        return _too_few("latency", f"windows alongside version {theirs}", windows, MIN_WINDOWS)
    slow = sum(slowdown >= limits.max_slowdown for slowdown in slowdowns)
    found = log_evidence(slow, windows, share=0.5, priors=_WINDOWS_PRIORS)
    typical = median(slowdowns)
    outcome = _by_evidence(found, limits.alpha, within=typical < limits.max_slowdown)
    by_chance = 1.0
    if outcome is StepOutcome.WAITING and _has_records(evidence, limits):
        by_chance = mann_whitney(paired.candidate_p99_ms, paired.baseline_p99_ms)
        outcome = StepOutcome.FAILED if by_chance <= LATENCY_LEVEL else outcome
    sentence = (
        f"latency: p99 of computing {typical:.2f} times that of version {theirs} (median of "
        f"{windows} windows, {slow} of them at {limits.max_slowdown:g} or more); "
        f"{_strength(found, limits.alpha)}"
    )
    if by_chance < 1:
        sentence += f", {by_chance:.2g} by chance (fails at {LATENCY_LEVEL:g})"
    numbers = {"slowdown": typical, "windows": windows, "slow": slow, "log_evidence": found}
    return CheckResult("latency", outcome, sentence, numbers | {"mann_whitney_p": by_chance})


def _p99(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    """Check the absolute limit of latency."""
    if limits.max_p99_ms is None:
        return None
    values = evidence.paired.candidate_p99_ms
    if len(values) < MIN_WINDOWS:
        return _too_few("p99", "windows", len(values), MIN_WINDOWS)
    over = sum(value > limits.max_p99_ms for value in values)
    found = log_evidence(over, len(values), share=0.5, priors=_WINDOWS_PRIORS)
    typical = median(values)
    sentence = (
        f"p99: {typical:,.1f} ms (median of {len(values)} windows, {over} of them above "
        f"{limits.max_p99_ms:,g} ms); {_strength(found, limits.alpha)}"
    )
    outcome = _by_evidence(found, limits.alpha, within=typical <= limits.max_p99_ms)
    numbers = {"p99_ms": typical, "windows": len(values), "over": over, "log_evidence": found}
    return CheckResult("p99", outcome, sentence, numbers)


def _labels(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    ours, theirs = evidence.candidate.labels, evidence.baseline.labels
    n, m = sum(ours.values()), sum(theirs.values())
    if limits.max_distance is None or n == m == 0:
        return None
    if min(n, m) < MIN_RECORDS:
        return _too_few("labels", "labelled answers of one version", min(n, m))
    distance = mix_distance(ours, theirs)
    sentence = (
        f"labels: distance {distance.estimate:.3f} ({distance.low:.3f} to {distance.high:.3f}) "
        f"between {n:,} answers and {m:,} of version {evidence.baseline.version}, at most "
        f"{limits.max_distance:g} allowed"
    )
    too_far, near = distance.low > limits.max_distance, distance.estimate <= limits.max_distance
    numbers = {**distance._asdict(), "labels": n, "baseline": m}
    return CheckResult("labels", _by_bounds(too_far, near), sentence, numbers)


def _agreement(evidence: StepEvidence, limits: Limits) -> CheckResult | None:
    if limits.min_agreement is None:
        return None
    paired = evidence.paired
    if paired.compared < MIN_RECORDS:
        return _too_few("agreement", "answers of both versions to compare", paired.compared)
    agreed = wilson(min(paired.agreed, paired.compared), paired.compared)
    sentence = (
        f"agreement: {_share(paired.agreed, paired.compared)} ({_percent(agreed.low)} to "
        f"{_percent(agreed.high)}) with version {evidence.baseline.version}, "
        f"{_percent(limits.min_agreement)} required"
    )
    apart = {pair: n for pair, n in paired.matrix.items() if pair[0] != pair[1]}
    if apart:
        theirs, ours = max(apart, key=apart.__getitem__)
        sentence += f"; most often {ours} instead of {theirs}, {apart[theirs, ours]:,} times"
    outcome = _by_bounds(agreed.high < limits.min_agreement, agreed.low >= limits.min_agreement)
    return CheckResult(
        "agreement", outcome, sentence, {**agreed._asdict(), "pairs": paired.compared}
    )


def _has_records(evidence: StepEvidence, limits: Limits) -> bool:
    return evidence.candidate.records >= max(1, limits.records)


def _by_evidence(found: float, alpha: float, within: bool) -> StepOutcome:
    """Fail when the evidence, a logarithm, has reached 1 / alpha."""
    return _by_bounds(found >= -math.log(alpha), within)


def _by_bounds(failed: bool, passed: bool) -> StepOutcome:
    """Wait if the data is beyond a limit, but might be so by chance."""
    return StepOutcome.FAILED if failed else StepOutcome.PASSED if passed else StepOutcome.WAITING


def _too_few(check: str, what: str, seen: int, wanted: int = MIN_RECORDS) -> CheckResult:
    sentence = f"{check.replace('_', ' ')}: {seen:,} of {wanted} {what}, too few to judge"
    return CheckResult(check, StepOutcome.WAITING, sentence, {"seen": seen, "wanted": wanted})


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({_percent(part / whole)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _strength(found: float, alpha: float) -> str:
    """Format the evidence as a number; as a power of ten if it would overflow a float."""
    power = found / math.log(10)
    number = f"{10**power:.2g}" if power < 300 else f"1e{power:.0f}"
    return f"evidence {number} (fails at {1 / alpha:g})"


_EVERYWHERE: Final = frozenset(ReleaseStep)
_BEFORE_BAKE: Final = frozenset({ReleaseStep.SHADOW, ReleaseStep.CANARY})
_Check = Callable[[StepEvidence, Limits], CheckResult | None]

# Each check, and the steps in which it needs enough data before the step passes. In other steps
# it can still fail the step, but is omitted while it has too little data.
_CHECKS: Final[tuple[tuple[_Check, frozenset[ReleaseStep]], ...]] = (
    (_records, _EVERYWHERE),
    (_duration, _EVERYWHERE),
    (_error_rate, _EVERYWHERE),
    (_errors, _BEFORE_BAKE),
    (_latency, _BEFORE_BAKE),
    (_p99, _EVERYWHERE),
    (_labels, _BEFORE_BAKE),
    (_agreement, frozenset({ReleaseStep.SHADOW})),
)
