from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.analysis.evidence import (
    CheckResult,
    Limits,
    PairedEvidence,
    ReleaseStep,
    StepEvidence,
    StepOutcome,
    Verdict,
    VersionEvidence,
)
from ops.analysis.verdict import MIN_WINDOWS, judge

USUAL_MS = [19.0, 20.0, 21.0, 20.5, 19.5, 20.2, 19.8, 20.1]
LABELS = {"good": 240, "bad": 260}
CANARY = StepEvidence(
    VersionEvidence("2", 500, 5, LABELS),
    VersionEvidence("1", 9500, 95, {"good": 4600, "bad": 4900}),
    PairedEvidence(baseline_p99_ms=USUAL_MS, candidate_p99_ms=USUAL_MS),
    age_s=300.0,
)
PAIRED = PairedEvidence(490, 470, 3, 4, {}, USUAL_MS, USUAL_MS)
SHADOW = StepEvidence(
    VersionEvidence("2", 494, 6, LABELS), VersionEvidence("1", 493, 7, LABELS), PAIRED, 300.0
)
BAKE = StepEvidence(
    VersionEvidence("2", 990, 10, LABELS), VersionEvidence("1"), PairedEvidence(), 300.0
)
GOOD = {ReleaseStep.SHADOW: SHADOW, ReleaseStep.CANARY: CANARY, ReleaseStep.BAKE: BAKE}

COUNTS = st.integers(0, 10**6) | st.integers(0, 200)
TIMES = st.lists(st.floats(0, 1e9), max_size=12)
MIXES = st.dictionaries(st.sampled_from(["good", "bad", "neither"]), COUNTS)
VERSIONS = st.builds(VersionEvidence, st.sampled_from("12"), COUNTS, COUNTS, MIXES)
MATRICES = st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), COUNTS)
PAIRS = st.builds(PairedEvidence, COUNTS, COUNTS, COUNTS, COUNTS, MATRICES, TIMES, TIMES)
EVIDENCE = st.builds(StepEvidence, VERSIONS, VERSIONS, PAIRS, st.floats(0, 1e6))


def or_none(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | values


LIMITS = st.builds(
    Limits,
    step=st.sampled_from(ReleaseStep),
    records=st.integers(0, 2000),
    timeout_s=st.floats(0, 1e6),
    duration_s=st.floats(0, 1e6),
    alpha=st.floats(0.001, 0.5),
    compare_errors=st.booleans(),
    max_error_rate=or_none(st.floats(0.001, 0.999)),
    max_slowdown=or_none(st.floats(0.1, 10)),
    max_p99_ms=or_none(st.floats(0.1, 1e4)),
    max_distance=or_none(st.floats(0, 1)),
    min_agreement=or_none(st.floats(0, 1)),
)


def limits_of(step: ReleaseStep, **changed: float | bool | None) -> Limits:
    return Limits(step, records=500, timeout_s=1800)._replace(**changed)


def finding(verdict: Verdict, check: str) -> CheckResult:
    (found,) = (found for found in verdict.findings if found.check == check)
    return found


@pytest.mark.parametrize("step", ReleaseStep)
def test_a_version_like_the_other_passes(step: ReleaseStep) -> None:
    assert judge(GOOD[step], limits_of(step)).outcome is StepOutcome.PASSED


@pytest.mark.parametrize(
    ("check", "step", "evidence", "limits", "sentence"),
    [
        (
            "errors",
            ReleaseStep.CANARY,
            CANARY._replace(
                candidate=VersionEvidence("2", 381, 21), baseline=VersionEvidence("1", 7881, 30)
            ),
            {},
            "errors: 21 of 402 (5.2%) against 30 of 7,911 (0.4%) of version 1; evidence",
        ),
        (
            "errors",
            ReleaseStep.SHADOW,
            SHADOW._replace(paired=PAIRED._replace(compared=475, failed=25, baseline_failed=0)),
            {},
            "errors: failed on 25 of 500 (5.0%) where version 1 answered, answered 0",
        ),
        (
            "error_rate",
            ReleaseStep.BAKE,
            BAKE._replace(candidate=VersionEvidence("2", 45, 15)),
            {},
            "error rate: 15 of 60 (25.0%), at most 5.0% allowed; evidence",
        ),
        (
            "latency",
            ReleaseStep.SHADOW,
            SHADOW._replace(
                paired=PAIRED._replace(
                    baseline_p99_ms=USUAL_MS * 2, candidate_p99_ms=[3 * p for p in USUAL_MS * 2]
                )
            ),
            {},
            "latency: p99 of computing 3.00 times that of version 1 (median of 16 windows, 16",
        ),
        (
            "p99",
            ReleaseStep.BAKE,
            BAKE._replace(paired=PairedEvidence(candidate_p99_ms=[1250.0] * 12)),
            {"max_p99_ms": 900.0},
            "p99: 1,250.0 ms (median of 12 windows, 12 of them above 900 ms); evidence",
        ),
        (
            "labels",
            ReleaseStep.CANARY,
            CANARY._replace(candidate=VersionEvidence("2", 500, 5, {"good": 480, "bad": 20})),
            {},
            "between 500 answers and 9,500 of version 1, at most 0.15 allowed",
        ),
        (
            "agreement",
            ReleaseStep.SHADOW,
            SHADOW._replace(
                paired=PAIRED._replace(
                    agreed=294, matrix={("a", "a"): 294, ("a", "b"): 120, ("b", "a"): 76}
                )
            ),
            {},
            "agreement: 294 of 490 (60.0%) (53.2% to 66.4%) with version 1, 80.0% required; "
            "most often b instead of a, 120 times",
        ),
    ],
)
def test_each_check_fails_at_once_and_says_why(
    check: str,
    step: ReleaseStep,
    evidence: StepEvidence,
    limits: Mapping[str, float],
    sentence: str,
) -> None:
    verdict = judge(evidence, limits_of(step, records=10**6, **limits))
    assert verdict.outcome is StepOutcome.FAILED
    failed = [found for found in verdict.findings if found.outcome is StepOutcome.FAILED]
    assert [found.check for found in failed] == [check]
    assert sentence in failed[0].sentence
    assert verdict.reasons == (failed[0].sentence,)


@pytest.mark.parametrize("step", ReleaseStep)
def test_a_step_without_a_record_never_passes(step: ReleaseStep) -> None:
    nothing = StepEvidence(
        VersionEvidence("2"), VersionEvidence("1"), PairedEvidence(), age_s=1799.0
    )
    for records in (0, 500):
        limits = limits_of(step, records=records)
        assert judge(nothing, limits).outcome is StepOutcome.WAITING
        verdict = judge(nothing._replace(age_s=1800.0), limits)
        assert verdict.outcome is StepOutcome.INCONCLUSIVE
        wanted = f"records: version 2 had 0 of the {records} that the step requires, in 1,800 s"
        assert wanted in verdict.reasons


FEW = 49


@pytest.mark.parametrize(
    ("check", "step", "evidence"),
    [
        (
            "records",
            ReleaseStep.CANARY,
            CANARY._replace(candidate=VersionEvidence("2", 490, 5, LABELS)),
        ),
        (
            "errors",
            ReleaseStep.CANARY,
            CANARY._replace(baseline=VersionEvidence("1", FEW, 0, LABELS)),
        ),
        (
            "errors",
            ReleaseStep.SHADOW,
            SHADOW._replace(paired=PAIRED._replace(compared=FEW - 7, agreed=FEW - 7)),
        ),
        (
            "latency",
            ReleaseStep.CANARY,
            CANARY._replace(
                paired=PairedEvidence(
                    baseline_p99_ms=USUAL_MS, candidate_p99_ms=USUAL_MS[: MIN_WINDOWS - 1]
                )
            ),
        ),
        ("labels", ReleaseStep.CANARY, CANARY._replace(baseline=VersionEvidence("1", 9500, 95))),
        ("agreement", ReleaseStep.SHADOW, SHADOW._replace(paired=PAIRED._replace(compared=FEW))),
        # On the right side of the limit, and on the wrong one, but not by enough to know.
        ("agreement", ReleaseStep.SHADOW, SHADOW._replace(paired=PAIRED._replace(agreed=400))),
        ("agreement", ReleaseStep.SHADOW, SHADOW._replace(paired=PAIRED._replace(agreed=385))),
    ],
)
def test_too_little_seen_waits_and_is_inconclusive_in_the_end(
    check: str, step: ReleaseStep, evidence: StepEvidence
) -> None:
    found = judge(evidence, limits_of(step))
    assert found.outcome is StepOutcome.WAITING
    assert finding(found, check).outcome is StepOutcome.WAITING
    assert finding(found, check).sentence in found.reasons
    assert judge(evidence, limits_of(step, timeout_s=300.0)).outcome is StepOutcome.INCONCLUSIVE


def test_a_rate_above_its_limit_that_might_be_chance_waits() -> None:
    evidence = BAKE._replace(candidate=VersionEvidence("2", 470, 30))
    found = finding(judge(evidence, limits_of(ReleaseStep.BAKE)), "error_rate")
    assert found.outcome is StepOutcome.WAITING


def test_a_slow_version_with_few_windows_fails_at_the_end_of_the_step() -> None:
    windows = PAIRED._replace(
        baseline_p99_ms=USUAL_MS[:MIN_WINDOWS],
        candidate_p99_ms=[2 * p for p in USUAL_MS[:MIN_WINDOWS]],
    )
    evidence = SHADOW._replace(paired=windows)
    before = judge(evidence, limits_of(ReleaseStep.SHADOW, records=501))
    after = judge(evidence, limits_of(ReleaseStep.SHADOW))
    assert (before.outcome, after.outcome) == (StepOutcome.WAITING, StepOutcome.FAILED)
    assert "0.0011 by chance (fails at 0.002)" in finding(after, "latency").sentence


def test_a_slowdown_below_the_limit_passes_however_sure_it_is() -> None:
    windows = PAIRED._replace(
        baseline_p99_ms=USUAL_MS * 10, candidate_p99_ms=[1.4 * p for p in USUAL_MS * 10]
    )
    assert (
        judge(SHADOW._replace(paired=windows), limits_of(ReleaseStep.SHADOW)).outcome
        is StepOutcome.PASSED
    )


def test_in_a_bake_what_was_not_measured_is_left_out_and_what_was_can_fail() -> None:
    checks = [found.check for found in judge(BAKE, limits_of(ReleaseStep.BAKE)).findings]
    assert checks == ["records", "error_rate"]
    pairs = PairedEvidence(compared=170, agreed=168, failed=30)
    verdict = judge(BAKE._replace(paired=pairs), limits_of(ReleaseStep.BAKE))
    assert finding(verdict, "errors").outcome is StepOutcome.FAILED


@pytest.mark.parametrize("step", ReleaseStep)
def test_errors_that_are_not_to_be_compared_are_not(step: ReleaseStep) -> None:
    pairs = PAIRED._replace(failed=200, baseline_failed=0)
    worse = GOOD[step]._replace(candidate=VersionEvidence("2", 400, 100, LABELS), paired=pairs)
    assert finding(judge(worse, limits_of(step)), "errors").outcome is StepOutcome.FAILED
    limits = limits_of(step, compare_errors=False, max_error_rate=None)
    verdict = judge(worse, limits)
    assert {"errors", "error_rate"}.isdisjoint(found.check for found in verdict.findings)
    assert verdict.outcome is StepOutcome.PASSED


def test_the_share_that_was_observed_counts_not_the_weight() -> None:
    # A busy key moved half of the records to the candidate of a canary.
    even = CANARY._replace(
        candidate=VersionEvidence("2", 4950, 50, LABELS),
        baseline=VersionEvidence("1", 4950, 50, LABELS),
    )
    assert judge(even, limits_of(ReleaseStep.CANARY)).outcome is StepOutcome.PASSED


def test_a_bake_lasts() -> None:
    limits = limits_of(ReleaseStep.BAKE, duration_s=600.0)
    young = judge(BAKE, limits)
    assert young.outcome is StepOutcome.WAITING
    assert young.reasons == ("duration: 300 s of the 600 s that the step must last",)
    assert judge(BAKE._replace(age_s=600.0), limits).outcome is StepOutcome.PASSED


def test_a_model_without_labels_is_not_asked_for_them() -> None:
    evidence = CANARY._replace(
        candidate=CANARY.candidate._replace(labels={}),
        baseline=CANARY.baseline._replace(labels={}),
    )
    assert judge(evidence, limits_of(ReleaseStep.CANARY)).outcome is StepOutcome.PASSED


def test_evidence_beyond_a_float_is_still_told() -> None:
    everything = VersionEvidence("2", 0, 10**6)
    found = finding(
        judge(BAKE._replace(candidate=everything), limits_of(ReleaseStep.BAKE)), "error_rate"
    )
    assert "evidence 1e1300" in found.sentence


@given(EVIDENCE, LIMITS)
def test_every_evidence_has_a_verdict(evidence: StepEvidence, limits: Limits) -> None:
    verdict = judge(evidence, limits)
    for found in verdict.findings:
        assert found.sentence.startswith(found.check.replace("_", " ") + ":")
        json.dumps(found.evidence)
    assert verdict.reasons
    assert verdict.outcome is max(
        (found.outcome for found in verdict.findings), key=list(StepOutcome).index
    )
    if verdict.outcome is StepOutcome.PASSED:
        assert evidence.candidate.records >= max(1, limits.records)
        assert evidence.age_s >= limits.duration_s
    if verdict.outcome is StepOutcome.WAITING:
        assert evidence.age_s < limits.timeout_s
    if verdict.outcome is StepOutcome.INCONCLUSIVE:
        assert evidence.age_s >= limits.timeout_s


@given(EVIDENCE, LIMITS, st.integers(1, 1000), st.booleans())
def test_more_errors_never_rescue_a_failed_version(
    evidence: StepEvidence, limits: Limits, more: int, instead: bool
) -> None:
    if judge(evidence, limits).outcome is not StepOutcome.FAILED:
        return
    ours = evidence.candidate
    more = min(more, ours.answers) if instead else more
    answers = ours.answers - more if instead else ours.answers
    worse = ours._replace(errors=ours.errors + more, answers=answers)
    paired = evidence.paired._replace(failed=evidence.paired.failed + more)
    after = judge(evidence._replace(candidate=worse, paired=paired), limits)
    assert after.outcome is StepOutcome.FAILED


@given(
    st.integers(0, 3000),
    st.integers(0, 300),
    MIXES,
    st.integers(1, 40),
    st.sampled_from([ReleaseStep.SHADOW, ReleaseStep.CANARY]),
)
def test_versions_that_do_the_same_never_fail(
    answers: int, errors: int, mix: Mapping[str, int], times: int, step: ReleaseStep
) -> None:
    evidence = StepEvidence(
        VersionEvidence("2", answers, errors, mix),
        VersionEvidence(
            "1", times * answers, times * errors, {label: times * n for label, n in mix.items()}
        ),
        PairedEvidence(answers, answers, errors, errors, {}, USUAL_MS, USUAL_MS),
        age_s=0.0,
    )
    assert judge(evidence, limits_of(step, max_error_rate=None)).outcome is not StepOutcome.FAILED


@given(st.integers(0, FEW), st.integers(0, 10**6), st.sampled_from(ReleaseStep))
def test_a_handful_of_records_decides_nothing(errors: int, usual: int, step: ReleaseStep) -> None:
    evidence = StepEvidence(
        VersionEvidence("2", FEW - errors, errors, {"odd": FEW - errors}),
        VersionEvidence("1", usual, 0, {"usual": usual}),
        PairedEvidence(FEW - errors, 0, errors),
        age_s=0.0,
    )
    assert judge(evidence, limits_of(step)).outcome is StepOutcome.WAITING


def test_an_exact_threshold() -> None:
    """The evidence of the sentence is what decides."""
    outcomes = []
    for errors in range(5, 30):
        ours = VersionEvidence("2", 500 - errors, errors, LABELS)
        found = finding(
            judge(CANARY._replace(candidate=ours), limits_of(ReleaseStep.CANARY)), "errors"
        )
        decisive = found.evidence["log_evidence"] >= math.log(80)
        outcomes.append(found.outcome)
        assert (found.outcome is StepOutcome.FAILED) == decisive
    assert outcomes == sorted(outcomes, key=list(StepOutcome).index)
    assert set(outcomes) == {StepOutcome.PASSED, StepOutcome.FAILED}


def test_a_canary_that_waits_says_what_share_of_the_records_it_had() -> None:
    few = CANARY._replace(candidate=VersionEvidence("2", 0, 0), age_s=1800.0)
    verdict = judge(few, limits_of(ReleaseStep.CANARY, records=500))
    total = CANARY.baseline.records
    assert any(f"; of all records 0 of {total:,}" in reason for reason in verdict.reasons)
