from __future__ import annotations

import pytest

from bench.disturbance import QUIET_CORES, Sample, quietest
from bench.report import POSSIBLE_RATIO, Target, Verdict, targets_for, with_ratios

RATES: dict[str, float | str] = {
    "precision": "f32",
    "st_texts_per_s": 100.0,
    "engine_texts_per_s": 400.0,
    "engine_f32_texts_per_s": 200.0,
    "replica_texts_per_s": 380.0,
    "two_models_texts_per_s": 190.0,
    "two_heads_texts_per_s": 361.0,
    "exactly_once_texts_per_s": 360.0,
    "at_least_once_texts_per_s": 372.0,
}
TARGET = Target("ratio", "ratio", 0.85, True, ("a",), ("b",), POSSIBLE_RATIO)


@pytest.mark.parametrize(
    ("ratio", "a", "b", "verdict"),
    [
        (0.85, 0.0, QUIET_CORES, Verdict.MET),
        (0.84, 0.0, 0.0, Verdict.MISSED),
        (0.90, 1.0, 0.0, Verdict.MET),
        (0.90, 0.0, 1.0, Verdict.DISTURBED),
        (0.10, 1.0, 0.0, Verdict.DISTURBED),
        (0.10, 0.0, 1.0, Verdict.MISSED),
        (3.40, 0.0, 0.0, Verdict.IMPOSSIBLE),
    ],
)
def test_a_disturbance_that_may_have_decided_withholds_the_verdict(
    ratio: float, a: float, b: float, verdict: Verdict
) -> None:
    figures = {"ratio": ratio, "a_others_cores": a, "b_others_cores": b}
    assert TARGET.judge(figures) is verdict


def test_an_upper_bound_is_kept_from_below() -> None:
    target = Target("ms", "ms", 60.0, False)
    assert target.judge({"ms": 60.0}) is Verdict.MET
    assert target.judge({"ms": 60.1}) is Verdict.MISSED


def test_ratios() -> None:
    figures = with_ratios(RATES)
    assert figures["engine_ratio"] == 4.0
    assert figures["engine_f32_ratio"] == 2.0
    assert figures["exactly_once_ratio"] == 0.9
    assert figures["two_heads_ratio"] == 1.9


def test_bf16_has_a_target_only_where_it_was_measured() -> None:
    assert not any(t.figure == "engine_ratio" for t in targets_for(RATES))
    assert any(t.figure == "engine_ratio" for t in targets_for(RATES | {"precision": "bf16"}))


def test_samples_are_chosen_by_disturbance_and_not_by_value() -> None:
    samples = [Sample(1.0, 0.9), Sample(5.0, 0.1), Sample(7.0, 0.0), Sample(6.0, 0.15)]
    assert quietest(samples, 3) == Sample(6.0, 0.15)
