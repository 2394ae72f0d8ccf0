"""Advice names the numbers it goes by and what it saves."""

from __future__ import annotations

from typing import Any

import pytest

from ops.advice import Measurement, advise
from ops.cost import NodePrice, PriceTable

PRICES = PriceTable(cpu_hour=0.05, gpu_hour=2.0, node_types={"spot": NodePrice(cpu_hour=0.01)})
# Nothing to say about this one.
WELL = Measurement(
    model="sentiment",
    version="3",
    observed_h=48.0,
    precision="bf16",
    native_bf16=True,
    num_cpus=2.0,
    num_gpus=0.0,
    replicas=3.4,
    highest=4,
    min_replicas=1,
    max_replicas=6,
    busy_at_min=0.7,
    lagging_share=0.0,
)


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
            "only latency gains",
        ),
        (
            {"busy_at_min": 0.2},
            "num_cpus",
            1.8,
            "busy 20% of the time at its minimum of 1: num_cpus 0.5 instead of 2",
        ),
        (
            {"busy_at_min": 0.2, "min_replicas": 4, "highest": 5},
            "min_replicas",
            7.2,
            "busy 20% of the time at its minimum of 4: min_replicas 1 instead of 4",
        ),
        (
            {"lagging_share": 0.25, "highest": 6},
            "max_replicas",
            -2.4,
            "ran all its 6 replicas and lagged in 25% of 48 h: raise max_replicas",
        ),
        (
            {"highest": 1},
            "max_replicas",
            None,
            "never ran more than its minimum of 1 in 48 h: a max_replicas below 6",
        ),
    ],
)
def test_each_rule_speaks_with_its_numbers(
    change: dict[str, Any], setting: str, saving: float | None, part: str
) -> None:
    (advice,) = advise([WELL._replace(**change)], PRICES)
    assert advice.setting == setting
    assert advice.saving_per_day == (None if saving is None else pytest.approx(saving))
    assert advice.sentence.startswith("sentiment@3 ")
    assert part in advice.sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": "f32", "native_bf16": False},
        {"busy_at_min": 0.4},
        {"busy_at_min": None},
        {"busy_at_min": 0.2, "observed_h": 23.0},
        {"busy_at_min": 0.2, "num_gpus": 1.0},
        {"busy_at_min": 0.0, "num_cpus": 0.25},
        {"lagging_share": 0.05},
        {"lagging_share": 0.9, "observed_h": 0.5},
        {"highest": 1, "observed_h": 23.0},
        {"highest": 1, "max_replicas": 1},
    ],
)
def test_no_advice_without_reason_or_before_enough_was_seen(change: dict[str, Any]) -> None:
    assert advise([WELL._replace(**change)], PRICES) == []


def test_largest_saving_comes_first_and_what_costs_more_last() -> None:
    measurements = [
        WELL._replace(version="1", lagging_share=0.5),
        WELL._replace(version="2", busy_at_min=0.2),
        WELL._replace(version="4", precision="f32"),
        WELL._replace(version="5", precision="f32", node_type="spot"),
    ]
    assert [advice.version for advice in advise(measurements, PRICES)] == ["4", "2", "5", "1"]
