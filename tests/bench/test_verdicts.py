"""A short run of the simulation; ``python -m bench.verdicts`` is the long one."""

from __future__ import annotations

import numpy as np
import pytest

from bench.verdicts import (
    DEFAULT_POLICY,
    DOUBLED,
    FAILING,
    SAME,
    SLOW,
    WORSE,
    Candidate,
    Release,
    Row,
    figures,
    long_canary,
    release,
)
from ops.analysis.evidence import StepOutcome

pytestmark = pytest.mark.slow


def ended(candidate: Candidate, releases: int) -> list[Release]:
    rng = np.random.default_rng(1)
    return [release(rng, DEFAULT_POLICY, candidate) for _ in range(releases)]


def test_releases_without_a_difference_go_live() -> None:
    row = Row.of(ended(SAME, 50))
    assert row.inconclusive == 0
    assert row.failed <= 1 / 50


def test_doubled_errors_are_found_by_the_default_policy() -> None:
    row = Row.of(ended(DOUBLED, 100))
    assert row.failed >= 0.98
    assert row.median_records is not None
    # In shadow, before any of their answers counts.
    assert row.median_records <= 6000


@pytest.mark.parametrize("candidate", [SLOW, FAILING, WORSE])
def test_bad_versions_are_found(candidate: Candidate) -> None:
    found = ended(candidate, 30)
    assert {one.outcome for one in found} == {StepOutcome.FAILED}
    # Most of them in shadow, before any of their answers counts.
    assert np.median([one.records for one in found]) <= 2000


def test_doubled_errors_are_found_in_a_long_canary() -> None:
    rng = np.random.default_rng(2)
    plans = long_canary(0.1, windows=24, window_records=2000)
    row = Row.of([release(rng, plans, DOUBLED) for _ in range(200)])
    assert row.failed >= 0.97
    assert row.median_records is not None
    assert row.median_records <= 24_000


def test_a_row_counts_what_ended_how() -> None:
    many = [Release(StepOutcome.FAILED, records) for records in range(1, 100)]
    row = Row.of([*many, Release(StepOutcome.INCONCLUSIVE, 5)])
    assert row == Row(100, 0.99, 0.01, 50, 99)
    assert Row.of([Release(StepOutcome.PASSED, 5)]) == Row(1, 0.0, 0.0, None, None)


def test_the_line_has_what_is_asked_for() -> None:
    row = Row(10, 0.5, 0.25, 7.0, None)
    names = ["same", "same, 24 looks of 2,000", "doubled, 24 looks of 2,000", "doubled"]
    line = figures(dict.fromkeys([*names, "slow", "failing", "worse answers"], row))
    assert line["releases"] == 10
    assert line["inconclusive"] == 0.25
    assert line["doubled_errors_median_records"] == 7.0
