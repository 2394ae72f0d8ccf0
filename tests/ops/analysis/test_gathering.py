"""Evidence of a step is gathered from what pipelines report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.analysis.evidence import PairedEvidence, ReleaseStep, StepEvidence, VersionEvidence
from ops.analysis.gathering import Gathered, Pair, records_of
from ops.telemetry.observations import Observations, ReadPosition
from serve.contract import FailureKind, Outcome
from stream.schema import ComparisonRecord, TelemetryRecord
from stream.telemetry import QUANTILE_ERROR
from tests.ops.telemetry.reports import (
    BAD,
    BEGAN,
    GOOD,
    NOT_JSON,
    POISON,
    TOO_LONG,
    comparison,
    told,
    window,
)

PAIR = Pair(candidate="3", baseline="2")


NOTHING = PairedEvidence(baseline_p99_ms=[], candidate_p99_ms=[])


def evidence(
    step: ReleaseStep,
    *,
    windows: Sequence[TelemetryRecord] = (),
    comparisons: Sequence[ComparisonRecord] = (),
    pair: Pair = PAIR,
) -> StepEvidence:
    gathered = Gathered(step, pair, since_ms=0)
    gathered.add(windows, comparisons)
    return gathered.evidence(age_s=60.0)


def test_canary_counts_both_versions_by_their_windows() -> None:
    windows = [
        window("3", answers=[GOOD, GOOD, BAD], failures=[FailureKind.POISON], rescued=4),
        window("2", answers=[GOOD] * 5, failures=[FailureKind.TOO_LONG], consumer=1),
        window("3", answers=[BAD], consumer=1),
        window("1", answers=[GOOD] * 9),
    ]
    found = evidence(ReleaseStep.CANARY, windows=windows)
    assert found.candidate == VersionEvidence("3", 4, 6, {"good": 2, "bad": 2})
    assert found.baseline == VersionEvidence("2", 5, 1, {"good": 5})
    assert (found.paired, found.age_s) == (NOTHING, 60.0)


@pytest.mark.parametrize("kind", FailureKind)
def test_only_what_the_version_is_to_blame_for_counts_as_its_error(kind: FailureKind) -> None:
    blamed = kind in {FailureKind.POISON, FailureKind.TOO_LONG, FailureKind.WRONG_INPUT}
    found = evidence(ReleaseStep.CANARY, windows=[window(failures=[kind] * 3, answers=[GOOD])])
    assert found.candidate == VersionEvidence("3", 1, 3 if blamed else 0, {"good": 1})


@pytest.mark.parametrize("step", ReleaseStep)
def test_nothing_seen_is_nothing_counted(step: ReleaseStep) -> None:
    nothing = StepEvidence(VersionEvidence("3"), VersionEvidence("2"), NOTHING, 60.0)
    assert evidence(step) == nothing


def test_shadow_counts_by_the_comparison_alone() -> None:
    live = [GOOD, GOOD, BAD, GOOD, TOO_LONG, NOT_JSON, POISON]
    candidate = [GOOD, BAD, BAD, POISON, GOOD, NOT_JSON, POISON]
    windows = [window("2", answers=[GOOD] * 90), window("3", answers=[GOOD] * 80)]
    compared = [comparison(live, candidate), comparison([GOOD], [GOOD])]
    found = evidence(ReleaseStep.SHADOW, windows=windows, comparisons=compared)

    assert found.paired == NOTHING._replace(
        compared=4,
        agreed=3,
        failed=1,
        baseline_failed=1,
        matrix={("good", "good"): 2, ("good", "bad"): 1, ("bad", "bad"): 1},
    )
    assert found.candidate == VersionEvidence("3", 5, 1, {"good": 2, "bad": 2})
    assert found.baseline == VersionEvidence("2", 5, 1, {"good": 3, "bad": 1})


def test_calls_are_compared_window_by_window() -> None:
    compared = [
        comparison(calls=[(0.010, 0.020), (0.011, 0.021)]),
        comparison(),
        comparison(calls=[(0.010, 0.040)]),
    ]
    found = evidence(ReleaseStep.SHADOW, comparisons=compared).paired
    assert found.baseline_p99_ms == pytest.approx([11, 10], rel=QUANTILE_ERROR)
    assert found.candidate_p99_ms == pytest.approx([21, 40], rel=QUANTILE_ERROR)
    assert found.slowdowns == pytest.approx([2, 4], rel=2 * QUANTILE_ERROR)


def test_comparisons_with_other_versions_are_left_out() -> None:
    others = [
        comparison([GOOD], [GOOD], pair=pair) for pair in [("1", "3"), ("2", "4"), ("3.1", "2")]
    ]
    assert evidence(ReleaseStep.SHADOW, comparisons=others).paired == NOTHING


def test_bake_turns_the_comparison_round() -> None:
    """While it bakes, the candidate answers and the old version is the shadow."""
    live, shadow = [GOOD, GOOD, BAD, POISON, GOOD], [GOOD, BAD, BAD, GOOD, POISON]
    windows = [
        window("3", answers=[GOOD, GOOD, BAD, GOOD], failures=[FailureKind.POISON], rescued=1),
        window("2", answers=[GOOD]),
    ]
    compared = [comparison(live, shadow, pair=("3", "2"), calls=[(0.030, 0.010)])]
    found = evidence(ReleaseStep.BAKE, windows=windows, comparisons=compared)

    assert found.candidate == VersionEvidence("3", 4, 3, {"good": 3, "bad": 1})
    assert found.baseline == VersionEvidence("2", 1, 0, {"good": 1})
    assert found.paired._replace(baseline_p99_ms=[], candidate_p99_ms=[]) == NOTHING._replace(
        compared=3,
        agreed=2,
        failed=1,
        baseline_failed=1,
        matrix={("good", "good"): 1, ("bad", "good"): 1, ("bad", "bad"): 1},
    )
    assert found.paired.slowdowns == pytest.approx([3], rel=2 * QUANTILE_ERROR)


# What is wrong with the record itself, both versions say alike.
both = st.one_of(
    st.just((NOT_JSON, NOT_JSON)),
    st.tuples(*[st.sampled_from([GOOD, BAD, POISON, TOO_LONG])] * 2),
)


calls = st.lists(st.tuples(st.floats(0.0001, 10), st.floats(0.0001, 10)), max_size=5)


@given(st.lists(both, max_size=20), calls)
def test_either_side_of_a_comparison_tells_the_same(
    outcomes: list[tuple[Outcome, Outcome]], calls: list[tuple[float, float]]
) -> None:
    old, new = [a for a, _ in outcomes], [b for _, b in outcomes]
    ahead = comparison(old, new, pair=("2", "3"), calls=calls)
    behind = comparison(new, old, pair=("3", "2"), calls=[(b, a) for a, b in calls])
    assert evidence(ReleaseStep.SHADOW, comparisons=[ahead]) == evidence(
        ReleaseStep.SHADOW, comparisons=[behind]
    )


@given(st.lists(both, max_size=20), calls)
def test_turning_it_twice_changes_nothing(
    outcomes: list[tuple[Outcome, Outcome]], calls: list[tuple[float, float]]
) -> None:
    compared = comparison([a for a, _ in outcomes], [b for _, b in outcomes], calls=calls)
    straight = evidence(ReleaseStep.SHADOW, comparisons=[compared])
    turned = evidence(ReleaseStep.SHADOW, comparisons=[compared], pair=Pair("2", "3"))
    assert mirrored(turned) == straight


def mirrored(found: StepEvidence) -> StepEvidence:
    paired = found.paired
    turned: dict[str, Any] = {
        "failed": paired.baseline_failed,
        "baseline_failed": paired.failed,
        "matrix": {(b, a): count for (a, b), count in paired.matrix.items()},
        "baseline_p99_ms": paired.candidate_p99_ms,
        "candidate_p99_ms": paired.baseline_p99_ms,
    }
    return found._replace(
        candidate=found.baseline, baseline=found.candidate, paired=paired._replace(**turned)
    )


@given(st.lists(st.sampled_from(["window", "rescued", "pair", "turned", "other"])), st.data())
def test_evidence_gathered_piece_by_piece_is_that_of_all_at_once(
    kinds: list[str], data: Any
) -> None:
    made: list[TelemetryRecord | ComparisonRecord] = []
    for number, kind in enumerate(kinds):
        start = BEGAN + number
        match kind:
            case "window":
                made.append(window("32"[number % 2], start=start, answers=[GOOD, BAD]))
            case "rescued":
                made.append(window("3", start=start, failures=[FailureKind.POISON], rescued=2))
            case "pair":
                calls = [(1.0, 2.0 + number)]
                made.append(comparison([GOOD, BAD], [BAD, POISON], start=start, calls=calls))
            case "turned":
                made.append(comparison([GOOD], [BAD], pair=("3", "2"), start=start))
            case _:
                made.append(comparison([GOOD], [BAD], pair=("3", "9"), start=start))
    windows = [record for record in made if isinstance(record, TelemetryRecord)]
    comparisons = [record for record in made if isinstance(record, ComparisonRecord)]
    for step in ReleaseStep:
        gathered, told, seen = Gathered(step, PAIR, since_ms=BEGAN), Observations(), ReadPosition()
        before = comparison([GOOD], [GOOD], start=BEGAN - 1)
        rest = [window("3", start=BEGAN - 1, answers=[GOOD]), before, *made]
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            told.add(rest[:cut])
            *news, seen = told.news("sentiment", seen)
            gathered.add(*news)
            rest = rest[cut:]
        found = gathered.evidence(age_s=7.0)
        whole = evidence(step, windows=windows, comparisons=comparisons)
        assert found == whole._replace(age_s=7.0)


def test_records_of_each_version_since_a_moment() -> None:
    model_failed = FailureKind.POISON
    seen = told(
        window("1", failures=[model_failed, model_failed]),
        window("1", start=BEGAN + 5000, failures=[model_failed]),
        window("2", start=BEGAN + 5000, failures=[model_failed]),
    )
    assert records_of(seen.windows("sentiment", since_ms=BEGAN)) == {"1": 3, "2": 1}
    assert records_of(seen.windows("sentiment", since_ms=BEGAN + 1)) == {"1": 1, "2": 1}
    assert records_of(seen.windows("another", since_ms=0)) == {}
