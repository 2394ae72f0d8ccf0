"""What the steps of a policy want: everything of the policy, and alpha shared among them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.analysis.evidence import Limits, ReleaseStep
from ops.analysis.limits import judged_steps, limits_of
from ops.policy.file import load
from ops.policy.policy import Policy

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def policy(text: str = "") -> Policy:
    return load("model: sentiment\n" + text, now=NOW)


def test_steps_of_the_default_policy() -> None:
    steps = judged_steps(policy())
    assert [(step.limits.step, step.weight, step.limits.records) for step in steps] == [
        (ReleaseStep.SHADOW, 0.0, 12_000),
        (ReleaseStep.CANARY, 0.05, 500),
        (ReleaseStep.CANARY, 0.25, 500),
        (ReleaseStep.BAKE, 1.0, 1000),
    ]
    assert [step.limits.duration_s for step in steps] == [0.0, 0.0, 0.0, 600.0]
    hours = [step.limits.timeout_s / 3600 for step in steps]
    assert hours == [6, 6, 6, 1]


def test_defaults_of_limits_are_those_of_the_default_policy() -> None:
    found = limits_of(policy(), ReleaseStep.SHADOW)
    assert found == Limits(ReleaseStep.SHADOW, records=found.records, timeout_s=found.timeout_s)


@pytest.mark.parametrize(
    ("rollout", "alpha"),
    [
        ("{}", 0.01),
        ("{shadow: null}", 0.04 / 3),
        ("{shadow: null, bake: null, canary: [{weight: 0.5}]}", 0.04),
        ("{canary: [{weight: 0.1}, {weight: 0.2}, {weight: 0.3}]}", 0.008),
    ],
)
def test_alpha_is_shared_by_the_steps_of_a_release(rollout: str, alpha: float) -> None:
    steps = judged_steps(policy(f"rollout: {rollout}\nanalysis: {{errors: {{alpha: 0.04}}}}\n"))
    assert {step.limits.alpha for step in steps} == {alpha}


def test_check_that_is_null_is_off() -> None:
    off = Policy.model_validate(
        {"model": "m", "analysis": dict.fromkeys(("errors", "latency", "labels", "agreement"))}
    )
    found = limits_of(off, ReleaseStep.SHADOW)
    assert not found.compare_errors
    assert found[6:] == (None,) * 5
