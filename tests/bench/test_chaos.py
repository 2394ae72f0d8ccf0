from __future__ import annotations

import random

import pytest

from bench.chaos import Blow, Outcome, Recovery, plan_blows, summary
from bench.counting import Tally


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_before_any_comes_a_third_time(seed: int) -> None:
    blows = plan_blows(12, random.Random(seed))
    assert len(blows) == 12
    assert set(blows[:5]) == set(Blow)
    assert blows[:5].count(Blow.CONSUMER) == 2


def test_recovery_is_the_consumers() -> None:
    seconds = [(Blow.CONSUMER, 4.0), (Blow.CONSUMER, 8.0), (Blow.REPLICA, 30.0)]
    outcome = Outcome(Tally(9, 0, 0, 0), 0, [Recovery(*each) for each in seconds])
    line = summary(outcome)
    assert (line["kills"], line["recovery_p50_s"], line["recovery_max_s"]) == (3, 6.0, 8.0)
    assert line["replica_recovery_max_s"] == 30.0
    assert summary(outcome._replace(recoveries=[]))["recovery_p50_s"] is None


@pytest.mark.parametrize("field", ["lost", "duplicated", "reordered"])
def test_any_record_astray_is_a_failure(field: str) -> None:
    exact = Outcome(Tally(9, 0, 0, 0), 0, [])
    assert exact.is_exact
    assert not exact._replace(counted=exact.counted._replace(**{field: 1})).is_exact
    assert not exact._replace(dead_letters=1).is_exact
