"""What a policy is said to find is what its verdicts find when they are simulated."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from bench.verdicts import ERROR_RATE, Candidate, Plan, Row, release
from ops.analysis.evidence import Limits, ReleaseStep
from ops.analysis.limits import JudgedStep
from ops.analysis.power import chance, found, in_words
from ops.policy.file import load
from ops.policy.policy import Policy

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEAD = (
    "Where the live version fails on 1% of the records independently, a version that fails "
    "twice as often is found in "
)


def policy(rollout: str = "{}", analysis: str = "{}") -> Policy:
    return load(f"model: m\nrollout: {rollout}\nanalysis: {analysis}\n", now=NOW)


def step(kind: ReleaseStep, records: int, weight: float = 0.0) -> JudgedStep:
    errors_alone = {"max_slowdown": None, "max_distance": None, "min_agreement": None}
    limits = Limits(kind, records, timeout_s=1e5, max_error_rate=None)
    return JudgedStep(limits._replace(**errors_alone), weight)


@pytest.mark.parametrize(
    ("judged", "factor"),
    [
        (step(ReleaseStep.SHADOW, 10_000), 2.0),
        (step(ReleaseStep.SHADOW, 4_000), 2.0),
        (step(ReleaseStep.SHADOW, 1_000), 4.0),
        (step(ReleaseStep.CANARY, 500, 0.05), 3.0),
        (step(ReleaseStep.CANARY, 3_000, 0.25), 2.0),
    ],
)
def test_chance_is_that_of_the_simulated_verdicts(judged: JudgedStep, factor: float) -> None:
    rng = np.random.default_rng(4)
    # As many windows as the step takes, of any length; none after it has its records.
    per_window = 200 if judged.limits.step is ReleaseStep.SHADOW else 1000
    windows = -(-judged.limits.records // (per_window * (judged.weight or 1)))
    plan = Plan(judged.limits._replace(timeout_s=10 * windows), judged.weight, int(per_window))
    candidate = Candidate(error_rate=factor * ERROR_RATE)
    simulated = Row.of([release(rng, (plan,), candidate) for _ in range(250)]).failed
    expected = chance(judged, factor=factor)
    # The simulation looks after every window, and with 250 releases is itself within 0.08.
    assert expected - 0.08 <= simulated <= expected + 0.16


def test_more_records_and_more_errors_are_found_more_surely() -> None:
    sizes = [chance(step(ReleaseStep.SHADOW, records)) for records in (500, 3_000, 6_000, 12_000)]
    factors = [chance(step(ReleaseStep.CANARY, 500, 0.05), factor=n) for n in (1.5, 2, 3, 5)]
    assert sizes == sorted(sizes)
    assert factors == sorted(factors)
    assert chance(step(ReleaseStep.SHADOW, 49), factor=50) == 0.0


def test_steps_add_up() -> None:
    one, both = "{weight: 0.25, records: 2000}", "{weight: 0.5, records: 3000}"
    alone = policy(f"{{shadow: null, canary: [{one}], bake: {{records: 0}}}}")
    together = policy(f"{{shadow: null, canary: [{one}, {both}], bake: null}}")
    assert found(together) > found(alone) > 0.2


def test_default_policy_is_said_to_find_doubled_errors() -> None:
    assert found(policy()) >= 0.99
    assert in_words(policy()) == f"{HEAD}99 of 100 releases."


@pytest.mark.parametrize(
    ("rollout", "words"),
    [
        ("{shadow: {records: 5000}}", "; with 10,000 records instead of 5,000 the shadow alone"),
        ("{shadow: null}", "; with 6,600 records instead of 500 the canary of 25% alone would"),
        ("{shadow: null, canary: []}", "records instead of 1,000 the bake alone would find"),
        ("{shadow: null, canary: []}", f"{HEAD}at least 0 of 100 releases, one that fails"),
    ],
)
def test_policy_that_does_not_is_told_what_it_would_take(rollout: str, words: str) -> None:
    assert words in in_words(policy(rollout)), in_words(policy(rollout))


def test_what_it_would_take_is_enough() -> None:
    """The number of the sentence, put into the policy, does it."""
    assert found(policy("{shadow: {records: 9800}}")) >= 0.99
    canary = policy("{shadow: null, canary: [{weight: 0.05}, {weight: 0.25, records: 6600}]}")
    assert found(canary) >= 0.99


def test_errors_that_are_switched_off() -> None:
    assert "analysis.errors is null" in in_words(policy(analysis="{errors: null}"))
    assert found(policy(analysis="{errors: null}")) == 0.0
