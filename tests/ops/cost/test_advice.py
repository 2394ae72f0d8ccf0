"""Advice names the numbers it goes by and what it saves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ops.config.prices import NodePrice, PriceTable
from ops.cost.advice import Measurement, advise, measured
from tests.ops.cost.loads import SIZE, workload

PRICES = PriceTable(cpu_hour=0.05, gpu_hour=2.0, node_types={"spot": NodePrice(cpu_hour=0.01)})
WELL = Measurement(
    model="sentiment",
    version="3",
    size=SIZE,
    observed_h=48.0,
    replicas=3.4,
    busy_at_min=0.7,
    at_min_share=0.5,
    lagging_share=0.0,
)


def changed(changes: dict[str, Any]) -> Measurement:
    size = {name: value for name, value in changes.items() if hasattr(SIZE, name)}
    others = {name: value for name, value in changes.items() if name not in size}
    return replace(WELL, size=replace(SIZE, **size), **others)


@pytest.mark.parametrize(
    ("change", "setting", "saving", "part"),
    [
        (
            {"precision": "f32"},
            "engine.precision",
            1.4 * 2.4,
            "2.0 instead of 3.4 replicas on average, 3.36 EUR a day less",
        ),
        (
            {"precision": "f32", "replicas": 1.0, "observed_h": 2.0},
            "engine.precision",
            0.0,
            "only latency improves",
        ),
        (
            {"busy_at_min": 0.2},
            "num_cpus",
            1.8,
            "busy 20% of the time at its minimum of 1: num_cpus 0.5 instead of 2",
        ),
        (
            {"busy_at_min": 0.2, "min_replicas": 4},
            "replicas",
            7.2,
            "at its minimum of 4: a minimum of 1 (replicas, or min_replicas) is enough, 7.20 EUR",
        ),
        (
            {"lagging_share": 0.25},
            "max_replicas",
            -2.4,
            "ran all its 6 replicas and lagged in 25% of 48 h: raise max_replicas",
        ),
        (
            {"at_min_share": 1.0},
            "max_replicas",
            None,
            "never ran more than its minimum of 1 in 48 h: a max_replicas below 6",
        ),
    ],
)
def test_each_rule_speaks_with_its_numbers(
    change: dict[str, Any], setting: str, saving: float | None, part: str
) -> None:
    (advice,) = advise([changed(change)], PRICES)
    assert advice.setting == setting
    assert advice.saving_per_day == (None if saving is None else pytest.approx(saving))
    assert advice.sentence.startswith("sentiment@3 ")
    assert part in advice.sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": "f32", "could_bf16": False},
        {"precision": "f32", "observed_h": 0.5},
        {"busy_at_min": 0.4},
        {"busy_at_min": None},
        {"busy_at_min": 0.2, "observed_h": 23.0},
        {"busy_at_min": 0.2, "num_gpus": 1.0},
        {"busy_at_min": 0.0, "num_cpus": 0.25},
        {"lagging_share": 0.05},
        {"lagging_share": 0.9, "observed_h": 0.5},
        {"at_min_share": 1.0, "observed_h": 23.0},
        {"at_min_share": 1.0, "max_replicas": 1},
    ],
)
def test_no_advice_without_reason_or_before_enough_was_seen(change: dict[str, Any]) -> None:
    assert advise([changed(change)], PRICES) == []


def test_largest_saving_comes_first_and_what_costs_more_last() -> None:
    measurements = [
        replace(WELL, version="1", lagging_share=0.5),
        replace(WELL, version="2", busy_at_min=0.2),
        changed({"version": "4", "precision": "f32"}),
        changed({"version": "5", "precision": "f32", "node_type": "spot"}),
    ]
    assert [advice.version for advice in advise(measurements, PRICES)] == ["4", "2", "5", "1"]


def test_without_prices_nothing_is_said_of_money() -> None:
    changes: list[dict[str, Any]] = [
        {"precision": "f32"},
        {"busy_at_min": 0.2},
        {"busy_at_min": 0.2, "min_replicas": 4},
        {"lagging_share": 0.25},
        {"at_min_share": 1.0},
    ]
    for one in changes:
        (advice,) = advise([changed(one)], None)
        assert advice.saving_per_day is None
        assert "EUR" not in advice.sentence
        assert " a day" not in advice.sentence


def test_hours_make_a_measurement() -> None:
    rows = [workload(0), workload(1, label="4"), workload(2, replica_s=3600.0)]
    third, fourth = measured(rows, {("sentiment", "3"): "spot"})
    assert third == Measurement("sentiment", "3", SIZE, 2.0, 1.5, 0.5, 0.5, 0.1, "spot")
    # Half an hour at the minimum is too little to say how busy it was.
    assert (fourth.version, fourth.busy_at_min, fourth.node_type) == ("4", None, None)
    assert measured([], {}) == []


def test_what_was_done_with_another_size_does_not_count() -> None:
    """Who follows advice is not given the same again by the hours before."""
    before = replace(SIZE, num_cpus=4.0)
    rows = [workload(0), workload(1, size=before), workload(2), workload(3)]
    (one,) = measured(rows, {})
    assert (one.size, one.observed_h) == (SIZE, 2.0)
