"""Limits of each step of a policy, for ``ops/analysis/verdict.py``; pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from ops.analysis.evidence import Limits, ReleaseStep
from ops.policy.policy import ErrorAnalysis, Policy

# In canary and bake this fraction of the micro-batches goes to both versions, so that their
# speed is compared on the same work.
MIRROR_SHARE: Final = 0.2


class JudgedStep(NamedTuple):
    """A step of a policy, and the fraction of records that the new version answers in it."""

    limits: Limits
    weight: float


def judged_steps(policy: Policy) -> list[JudgedStep]:
    """Return the steps of a policy in order."""
    rollout = policy.rollout
    steps = [JudgedStep(limits_of(policy, ReleaseStep.SHADOW), 0.0)] if rollout.shadow else []
    steps += [
        JudgedStep(limits_of(policy, ReleaseStep.CANARY, index), step.weight)
        for index, step in enumerate(rollout.canary)
    ]
    return [
        *steps,
        *([JudgedStep(limits_of(policy, ReleaseStep.BAKE), 1.0)] if rollout.bake else []),
    ]


def limits_of(policy: Policy, step: ReleaseStep, canary_step: int = 0) -> Limits:
    """Return the limits of a step under a policy.

    The policy's alpha applies to a whole release, so each of its steps gets an equal part.
    """
    rollout, analysis = policy.rollout, policy.analysis
    duration_s = 0.0
    if step is ReleaseStep.SHADOW:
        assert rollout.shadow is not None  # the plan has the step
        records, timeout = rollout.shadow.records, rollout.shadow.timeout
    elif step is ReleaseStep.CANARY:
        records, timeout = rollout.canary[canary_step].records, rollout.canary[canary_step].timeout
    else:
        assert rollout.bake is not None  # the plan has the step
        records, timeout = rollout.bake.records, rollout.bake.timeout
        duration_s = rollout.bake.duration.total_seconds()
    errors, latency = analysis.errors, analysis.latency
    steps = bool(rollout.shadow) + len(rollout.canary) + bool(rollout.bake)
    return Limits(
        step=step,
        records=records,
        timeout_s=timeout.total_seconds(),
        duration_s=duration_s,
        # Also used by the latency tests, which run even when errors are switched off.
        alpha=(errors or ErrorAnalysis()).alpha / steps,
        compare_errors=errors is not None,
        max_error_rate=errors.max_rate if errors else None,
        max_slowdown=latency.max_ratio if latency else None,
        max_p99_ms=latency.max_p99_ms if latency else None,
        max_distance=analysis.labels.max_distance if analysis.labels else None,
        min_agreement=analysis.agreement.min if analysis.agreement else None,
    )
