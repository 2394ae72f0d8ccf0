"""The policy: defaults, digest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from ops.policy.file import load
from ops.policy.policy import Policy

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_name_alone_is_a_policy_with_all_steps() -> None:
    policy = load("model: sentiment", now=NOW)
    assert policy == Policy(model="sentiment")
    assert policy.rollout.shadow is not None
    assert policy.rollout.shadow.records == 12_000
    assert [step.weight for step in policy.rollout.canary] == [0.05, 0.25]
    assert policy.rollout.bake is not None
    assert policy.analysis.errors is not None
    assert policy.approvals == policy.windows.allow == ()


def test_digest_is_of_the_meaning() -> None:
    digest = load("model: sentiment\ncadence: {min_interval: 24h}", now=NOW).digest()
    laid_out = "# ours\ncadence:\n  min_interval: 1d\n\nmodel: sentiment\nlabels: same\n"
    assert load(laid_out, now=NOW).digest() == digest
    assert load("model: sentiment\ncadence: {min_interval: 25h}", now=NOW).digest() != digest
    assert len(digest) == 64


def test_canonical_form_gives_the_policy_back() -> None:
    text = """
model: sentiment
windows: {allow: [{cron: "0 9 * * 1-5", duration: 8h, time_zone: Europe/Berlin}]}
gates: [{metric: accuracy, direction: higher, at_least: 1}]
rollout: {shadow: null, bake: {duration: 90s}}
"""
    policy = load(text, now=NOW)
    again = Policy.model_validate_json(policy.canonical())
    assert again == policy
    assert again.digest() == policy.digest()
    assert again.rollout.bake is not None
    assert again.rollout.bake.duration == timedelta(seconds=90)


def test_policy_is_frozen() -> None:
    policy = Policy(model="sentiment")
    with pytest.raises(ValidationError, match="frozen"):
        policy.labels = "may-change"
