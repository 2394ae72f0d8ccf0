"""Replicas follow the backlog: single decisions, any numbers, and a queue that is simulated."""

from __future__ import annotations

import math
import random
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ops.config.scaling import ScalingSettings
from ops.scaling.decision import ScalingDecision, ScalingState, decide
from ops.scaling.need import Memory, ScalingReading, need_of
from ops.scaling.rates import BACKLOG_SHARE, OffsetSample, Rates, follow, measure
from tests.ops.scaling.numbers import ANY_NUMBER

AT_ONCE = ScalingSettings(max_replicas=20, up_delay_s=0, down_delay_s=0)
# 3,000 records and 60 s of 250/s are 18,000; two do 80/s each for 60 s, and
# others, which take 10 s to start, for 50 s: 2 + (18,000 - 9,600) / 4,000 = 4.1.
BUSY = ScalingReading(0.0, True, 2, 3_000, 250, 200, 100, 1.0)
QUIET = BUSY._replace(lag=0, arrival_per_s=190)


def now(reading: ScalingReading, target: int | None = None, **settings: Any) -> ScalingDecision:
    return decide(reading, AT_ONCE.model_copy(update=settings), ScalingState(target), 0.0)


def test_backlog_and_arrivals_decide() -> None:
    decision = now(BUSY)
    assert decision.target == 5
    assert decision.reason == (
        "5 replicas instead of 2: lag 3,000, 250/s arriving, 100/s per replica: 4.1 needed"
    )


def test_version_is_sized_for_its_share() -> None:
    reading = BUSY._replace(lag=30_000, arrival_per_s=2_500, weight=0.1)
    assert now(reading).target == now(BUSY).target


def test_share_that_is_announced_is_prepared_without_a_backlog() -> None:
    canary = ScalingReading(0.0, True, 1, 0, 1_000, 1_000, 100, 0.5, weight=0.05)
    assert now(canary).target == 1
    assert now(canary._replace(weight=0.25)).target == 4


def test_need_within_the_dead_band_changes_nothing() -> None:
    assert now(BUSY._replace(current=3, arrival_per_s=206)).target == 3  # 3.24 is below 3 * 1.1
    assert now(BUSY._replace(current=3, arrival_per_s=212)).target == 4  # 3.33 is above
    quiet = QUIET._replace(current=4)
    assert now(quiet._replace(arrival_per_s=222)).target == 4  # 2.78 * 1.1 is above 3
    assert now(quiet._replace(arrival_per_s=216)).target == 3  # 2.7 * 1.1 is below


def test_bounds_hold_and_are_told() -> None:
    decision = now(BUSY, max_replicas=3)
    assert decision.target == 3
    assert decision.reason.endswith("4.1 needed, limited to 3")
    quiet = QUIET._replace(arrival_per_s=10)
    assert now(quiet, min_replicas=2, target=5).target == 3
    assert now(quiet, min_replicas=2, target=3).target == 2


def test_partitions_or_a_ceiling_limit_at_once() -> None:
    consumers = BUSY._replace(noun="consumer", limit=1, reachable=False)
    decision = now(consumers, target=4)
    assert decision.target == 1
    assert decision.reason == "stays at 1 consumer: the broker is unreachable"


def test_limit_below_the_minimum_wins_and_never_stops_all() -> None:
    assert now(BUSY._replace(limit=2), min_replicas=3).target == 2
    assert now(BUSY._replace(limit=0), min_replicas=3).target == 1


def test_room_of_the_cluster_limits_what_is_added() -> None:
    one = now(BUSY._replace(room=1))
    assert (one.target, "no capacity for more" in one.reason) == (3, True)
    none = now(BUSY._replace(room=0))
    assert (none.target, "no capacity for more" in none.reason) == (2, True)


def test_large_steps_are_divided() -> None:
    flood = BUSY._replace(current=1, lag=100_000)
    assert now(flood, max_step_up=3.0).target == 3
    assert now(flood, max_step_up=1.1).target == 2


def test_more_must_be_wished_for_without_a_break() -> None:
    settings = AT_ONCE.model_copy(update={"up_delay_s": 10.0})
    state = ScalingState()
    targets = []
    more, enough = BUSY._replace(current=3), QUIET._replace(current=3)
    for at_s, reading in [(0, more), (8, more), (9, enough), (12, more), (21, more), (22, more)]:
        target, _, state = decide(reading, settings, state, at_s)
        targets.append(target)
    assert targets == [3, 3, 3, 3, 3, 5]


def test_backlog_that_takes_twice_as_many_waits_for_nothing() -> None:
    patient = AT_ONCE.model_copy(update={"up_delay_s": 10.0})
    assert decide(BUSY, patient, ScalingState(), 0.0).target == 5
    announced = QUIET._replace(arrival_per_s=1_000)
    assert decide(announced, AT_ONCE, ScalingState(), 0.0).target == 8  # in steps
    assert decide(announced, patient, ScalingState(), 0.0).target == 2


def test_steps_follow_each_other_without_another_delay() -> None:
    settings = AT_ONCE.model_copy(update={"up_delay_s": 10.0, "max_step_up": 1.5})
    state, targets = ScalingState(), []
    for at_s, current in [(0, 3), (10, 3), (11, 3), (12, 4)]:
        # 4.5 are needed, of which one more at a time is allowed.
        reading = BUSY._replace(current=current, arrival_per_s=285)
        target, _, state = decide(reading, settings, state, at_s)
        targets.append(target)
    assert targets == [3, 4, 5, 5]


def test_less_time_takes_more_and_what_starts_already_counts() -> None:
    def need(age_s: float = 0.0, **known: Any) -> float:
        reading = BUSY._replace(age_s=age_s)
        found = need_of(reading, AT_ONCE, Memory(**known), held=held, now_s=100.0)
        assert found is not None
        return found.replicas

    held = 2
    # In 60 s, of which others have 50.
    assert need() == need(kept_up_at_s=100.0) == pytest.approx(2 + (18_000 - 9_600) / 4_000)
    # In 40 s, of which others have 30.
    assert need(kept_up_at_s=80.0) == pytest.approx(2 + (13_000 - 6_400) / 2_400)
    assert need(kept_up_at_s=80.0, start_s=20.0) == pytest.approx(2 + (13_000 - 6_400) / 1_600)
    # Too late: in what they take to start and a quarter of 60 s.
    assert need(kept_up_at_s=0.0) == pytest.approx(2 + (9_250 - 4_000) / 1_200)
    # In 50 s, with what has arrived since 10 s ago.
    assert need(age_s=10.0) == pytest.approx(2 + (18_000 - 8_000) / 3_200)
    held = 4  # of which two will run in 5 s
    started = need(kept_up_at_s=80.0, raised_at_s=95.0)
    assert started == pytest.approx(4 + (13_000 - 6_400 - 2 * 35 * 80) / 2_400)


def test_start_of_replicas_is_measured() -> None:
    starts = []
    _, _, state = decide(BUSY, AT_ONCE, ScalingState(), 0.0)
    for at_s, current in [(5.0, 2), (15.0, 4), (18.0, 5)]:
        enough = QUIET._replace(current=current, arrival_per_s=320)
        _, _, state = decide(enough, AT_ONCE, state, at_s)
        starts.append((state.memory.start_s, state.memory.raised_at_s))
    assert starts == [(10.0, 0.0), (15.0, 0.0), (18.0, None)]


def test_time_in_which_nothing_could_be_read_does_not_count() -> None:
    _, _, state = decide(QUIET, AT_ONCE, ScalingState(2), 0.0)
    _, _, state = decide(BUSY._replace(reachable=False), AT_ONCE, state, 50.0)
    assert decide(BUSY, AT_ONCE, state, 100.0).target == now(BUSY).target


def test_replicas_that_are_idle_in_spite_of_a_backlog_go_after_the_delay() -> None:
    settings = AT_ONCE.model_copy(update={"down_delay_s": 60.0})
    idle = BUSY._replace(current=10, busy=0.1)
    state, targets = ScalingState(10), []
    for at_s, current in [(0, 10), (60, 10), (61, 5), (121, 5), (122, 3)]:
        target, reason, state = decide(idle._replace(current=current), settings, state, at_s)
        targets.append(target)
    assert targets == [10, 5, 5, 3, 3]
    assert "busy 10% of the time: something else is slow" in reason
    # Fewer would be busy for half of the time, and then not be fewer than of use.
    assert decide(BUSY._replace(busy=0.34), AT_ONCE, ScalingState(3), 0.0).target == 2


def test_fewer_goes_by_the_highest_wish_of_the_delay() -> None:
    settings = AT_ONCE.model_copy(update={"down_delay_s": 60.0})
    state = ScalingState(8)
    quiet = QUIET._replace(current=8)
    targets = []
    for at_s, arrival in [(0, 10), (30, 440), (60, 10), (61, 10), (121, 10), (182, 10)]:
        reading = quiet._replace(arrival_per_s=arrival)
        target, _, state = decide(reading, settings, state, at_s)
        targets.append(target)
    assert targets == [8, 8, 7, 7, 4, 4]


def test_fewer_waits_until_the_backlog_is_drained() -> None:
    draining = BUSY._replace(current=10, lag=10_000, arrival_per_s=10)
    assert now(draining).target == 10
    assert now(draining._replace(lag=2_500)).target == 5


def test_idle_goes_to_the_minimum_though_no_rate_is_known() -> None:
    idle = ScalingReading(0.0, True, 2, 0, 0.0, 0.0)
    assert now(idle).target == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reachable": False}, "broker is unreachable"),
        ({"age_s": 31.0}, "31 s old"),
        ({"age_s": None}, "age of the reading"),
        ({"lag": None}, "lag or the arrival rate"),
        ({"arrival_per_s": math.nan}, "lag or the arrival rate"),
        ({"weight": None}, "fraction of the traffic"),
        ({"rate_per_replica": None}, "one of them is not known yet"),
        ({"busy": 0.49}, "something else is slow"),
        ({"busy": 0.1, "announced": True}, "something else is slow"),
        ({"busy": None, "drain_per_s": 0.0}, "something else is slow"),
    ],
)
def test_last_target_holds_where_a_decision_would_be_a_guess(
    change: dict[str, Any], why: str
) -> None:
    decision = now(BUSY._replace(**change), target=3)
    assert decision.target == 3
    assert why in decision.reason


def test_light_load_in_small_batches_is_no_reason_for_more() -> None:
    slow = QUIET._replace(rate_per_replica=20)  # would need 11.9
    assert now(slow._replace(current=8)).target == 8
    assert now(slow._replace(current=4)).target == 12  # 4 * 20/s cannot have carried 190/s


def test_rate_under_load_is_remembered_for_quiet_times() -> None:
    loaded = now(BUSY)
    quiet = QUIET._replace(rate_per_replica=20, current=8)
    assert now(quiet, target=8).target == 8
    after = decide(quiet, AT_ONCE, loaded.state._replace(target=8), 1.0)
    assert after.target == 4  # at most half at a time; 190 / (100 * 0.8) is 2.4
    assert decide(quiet, AT_ONCE, after.state, 2.0).target == 3


def test_backlog_is_met_with_the_rate_of_now_and_not_with_the_remembered_one() -> None:
    slower = BUSY._replace(rate_per_replica=50)
    assert decide(slower, AT_ONCE, ScalingState(2, Memory(100.0)), 0.0).target == 8


REASONABLE = st.builds(
    ScalingSettings,
    min_replicas=st.integers(1, 5),
    max_replicas=st.integers(5, 10_000),
    target_drain_s=st.floats(1e-300, 1e300),
    utilisation=st.floats(0.01, 0.5),
    dead_band=st.floats(0, 0.9),
    up_delay_s=st.floats(0, 1e300),
    down_delay_s=st.floats(0, 1e300),
    max_step_up=st.floats(1.01, 1e300),
)
READINGS = st.builds(
    ScalingReading,
    age_s=ANY_NUMBER,
    reachable=st.sampled_from([True, True, True, False]),
    current=ANY_NUMBER,
    lag=ANY_NUMBER,
    arrival_per_s=ANY_NUMBER,
    drain_per_s=ANY_NUMBER,
    rate_per_replica=ANY_NUMBER,
    busy=ANY_NUMBER,
    weight=st.one_of(st.floats(0, 1), ANY_NUMBER),
    room=ANY_NUMBER,
    limit=ANY_NUMBER,
)
STATES = st.builds(
    ScalingState,
    target=st.none() | st.integers(),
    memory=st.builds(
        Memory,
        rate_at_load=ANY_NUMBER,
        kept_up_at_s=st.none() | st.floats(),
        raised_at_s=st.none() | st.floats(),
        start_s=ANY_NUMBER,
    ),
    rising_since_s=st.none() | st.floats(),
    falling_since_s=st.none() | st.floats(),
    highest_target=st.integers(),
)


@given(READINGS, REASONABLE, STATES, st.floats())
def test_any_numbers_give_a_target_within_the_bounds(
    reading: ScalingReading, settings: ScalingSettings, state: ScalingState, now_s: float
) -> None:
    target, reason, after = decide(reading, settings, state, now_s)
    assert isinstance(target, int)
    assert 1 <= target <= settings.max_replicas
    if reading.limit is None:
        assert target >= settings.min_replicas
    assert after.target == target
    assert reason


@given(READINGS, REASONABLE, st.integers(1, 5), st.floats(0, 1e6))
def test_more_behind_never_means_fewer(
    reading: ScalingReading, settings: ScalingSettings, target: int, more: float
) -> None:
    at_once = settings.model_copy(update={"up_delay_s": 0.0, "down_delay_s": 0.0})
    reading = reading._replace(age_s=0.0, reachable=True, lag=100.0, busy=1.0, weight=1.0)
    less = decide(reading, at_once, ScalingState(target), 0.0).target
    behind = reading._replace(lag=100.0 + more)
    assert decide(behind, at_once, ScalingState(target), 0.0).target >= less


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"min_replicas": 5}, "min_replicas 5 is above max_replicas 4"),
        ({"utilisation": 0.95}, "uses up the reserve"),
        ({"target_drain_s": math.inf}, "finite"),
        ({"max_step_up": 1.0}, "greater than 1"),
        ({"models": {"m": {"max_replicas": 2, "min_replicas": 3}}}, "m: min_replicas 3 is above"),
        ({"models": {"m": {"min_replicas": 5}}}, "m: min_replicas 5 is above max_replicas 4"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ScalingSettings(**settings)


TICK_S = 5
READ_S = 2
WINDOW_S = 30
RATE = 100.0
# Less than this much of the arrivals of a second is in flight, not behind.
IN_FLIGHT_S = 2


class Queue:
    """Records that wait for replicas, second by second.

    Offsets are read every READ_S, telemetry is of the last WINDOW_S, and every TICK_S it is
    decided. A replica takes ``start_s`` to start and answers ``rate`` records/s. Without a backlog
    micro-batches are small and cost up to twice as much. The more there is to do, the more calls
    overlap, and their seconds add up to more than there are. Arrivals and measured rates are
    noisy, and rates are ``bias`` times what they should be.
    """

    def __init__(
        self,
        settings: ScalingSettings,
        *,
        seed: int,
        start_s: int = 10,
        noise: float = 0.1,
        bias: float = 1.0,
    ) -> None:
        self.settings, self.start_s, self.noise, self.bias = settings, start_s, noise, bias
        self.random = random.Random(seed)
        self.ready_at = [0]
        self.now = 0
        self.end = self.committed = 0.0
        self.rates: Rates | None = None
        self.state = ScalingState()
        self.seconds: deque[tuple[float, float, int]] = deque(maxlen=WINDOW_S)
        self.rate = RATE
        self.served = math.inf
        self.targets: list[int] = []
        self.lags: list[float] = []
        self.reasons: list[str] = []

    @property
    def running(self) -> int:
        return sum(at <= self.now for at in self.ready_at)

    def run(self, seconds: int, load: float, *, reachable: bool = True) -> None:
        """``load`` in records/s."""
        for _ in range(seconds):
            self._second(load)
            if self.now % READ_S == 0 and reachable:
                sample = OffsetSample(self.now, self.end, self.committed)
                self.rates = follow(self.rates, sample, half_life_s=self.settings.smoothing_s)
            if self.now % TICK_S == 0:
                self._tick(reachable)
            self.targets.append(len(self.ready_at))
            self.lags.append(self.end - self.committed)

    def drained_after_s(self, since: int, load: float) -> int:
        """From a moment until, after the most of it, no more was behind than is in flight."""
        lags = self.lags[since:]
        most = lags.index(max(lags))
        return next(at for at in range(most, len(lags)) if lags[at] < IN_FLIGHT_S * load)

    def _second(self, load: float) -> None:
        self.now += 1
        self.end += load * self.random.uniform(1 - 3 * self.noise, 1 + 3 * self.noise)
        most = min(self.running * self.rate, self.served)
        done = min(self.end - self.committed, most)
        fullness = done / (self.running * self.rate)
        self.committed += done
        waits = self.end - self.committed > most
        efficiency = 1.0 if waits else 0.5 + 0.5 * fullness
        busy_s = done / (self.rate * efficiency) * (1 + fullness)
        self.seconds.append((done, busy_s, self.running))

    def _tick(self, reachable: bool) -> None:
        assert self.rates is not None
        answers, busy_s, replica_s = (sum(column) for column in zip(*self.seconds, strict=True))
        wrong = self.bias * self.random.uniform(1 - self.noise, 1 + self.noise)
        load = measure(answers * wrong, busy_s=busy_s, replica_s=replica_s)
        reading = ScalingReading(
            age_s=self.now - self.rates.sample.at_s,
            reachable=reachable,
            current=self.running,
            lag=self.rates.lag,
            arrival_per_s=self.rates.arrival_per_s,
            drain_per_s=self.rates.drain_per_s,
            rate_per_replica=load.rate_per_replica,
            busy=load.busy,
        )
        target, reason, self.state = decide(reading, self.settings, self.state, self.now)
        self.reasons.append(reason)
        self.ready_at = sorted(self.ready_at)[:target]
        self.ready_at += [self.now + self.start_s] * (target - len(self.ready_at))


def turns(targets: list[int]) -> int:
    """How often the direction changed."""
    moves = [b - a for a, b in pairwise(targets) if a != b]
    return sum((a > 0) != (b > 0) for a, b in pairwise(moves))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("target_drain_s", "start_s", "drained_s"),
    [
        (20.0, 5, 20),
        (60.0, 5, 60),
        (60.0, 10, 60),
        (60.0, 20, 60),
        (120.0, 20, 120),
        # Not to be had: starting leaves too little of the target.
        (20.0, 10, 30),
        (20.0, 20, 45),
    ],
)
@pytest.mark.parametrize(("bias", "noise"), [(1.0, 0.1), (1.1, 0.1), (0.7, 0.1), (1.0, 0.3)])
def test_step_of_ten_times_the_load_is_drained_in_time(
    target_drain_s: float, start_s: int, drained_s: int, bias: float, noise: float, seed: int
) -> None:
    settings = ScalingSettings(max_replicas=100, target_drain_s=target_drain_s)
    queue = Queue(settings, seed=seed, start_s=start_s, bias=bias, noise=noise)
    step = 200 + seed  # anywhere between two decisions
    queue.run(step, 50.0)
    queue.run(300, 500.0)
    assert queue.drained_after_s(step, 500.0) <= drained_s


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target_drain_s", [20.0, 60.0, 120.0])
def test_replicas_go_back_when_the_load_does(target_drain_s: float, seed: int) -> None:
    queue = Queue(ScalingSettings(max_replicas=100, target_drain_s=target_drain_s), seed=seed)
    queue.run(300, 50.0)
    queue.run(600, 500.0)
    assert 6 <= queue.targets[-1] <= 10
    queue.run(1_200, 50.0)
    assert queue.targets[-1] <= 2
    assert turns(queue.targets) == 1
    assert max(queue.lags[600:]) < max(IN_FLIGHT_S, BACKLOG_SHARE * target_drain_s) * 500.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("load", [40.0, 79.0, 81.0, 95.0, 160.0, 240.0, 333.0, 1_000.0])
def test_constant_noisy_load_does_not_flap(load: float, seed: int) -> None:
    queue = Queue(ScalingSettings(max_replicas=40), seed=seed)
    queue.run(600, load)
    settled = len(queue.targets)
    queue.run(3_600, load)
    assert turns(queue.targets) <= 1
    assert turns(queue.targets[settled:]) == 0
    assert max(queue.lags[settled:]) < 10 * load


def test_target_holds_while_the_broker_is_away_and_recovers_after() -> None:
    queue = Queue(ScalingSettings(max_replicas=40), seed=1)
    queue.run(60, 50.0)
    queue.run(12, 500.0)
    before = queue.targets[-1]
    assert before > 1
    queue.run(300, 500.0, reachable=False)
    assert set(queue.targets[72:372]) == {before}
    assert queue.reasons[-1].endswith("the broker is unreachable")
    queue.run(300, 500.0)
    assert queue.lags[-1] < 2 * 500.0


@pytest.mark.parametrize(("served", "of_use"), [(150.0, 5), (250.0, 8)])
def test_slow_consumer_does_not_keep_the_cluster_full_of_replicas(
    served: float, of_use: int
) -> None:
    queue = Queue(ScalingSettings(max_replicas=40), seed=1)
    queue.served = served
    queue.run(1_800, 500.0)
    assert max(queue.targets) <= 20  # 40 would follow from the backlog alone
    assert queue.targets[-1] <= of_use
    assert "something else is slow" in queue.reasons[-1]
    assert turns(queue.targets) == 1
    queue.served = math.inf
    queue.run(300, 500.0)
    assert queue.lags[-1] < IN_FLIGHT_S * 500.0


def test_texts_that_become_three_times_longer_are_met_with_more() -> None:
    queue = Queue(ScalingSettings(max_replicas=40), seed=1)
    queue.run(600, 500.0)
    queue.rate /= 3
    queue.run(900, 500.0)
    assert 16 <= queue.targets[-1] <= 24
    assert queue.lags[-1] < IN_FLIGHT_S * 500.0
    assert turns(queue.targets) <= 3  # up and settled, twice
