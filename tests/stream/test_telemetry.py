from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.contract import Answer, BatchStats, FailureKind, ReplicaInfo
from stream.schema import TelemetryRecord
from stream.telemetry import (
    CONFIDENCE_BINS,
    LATENCY_EDGES_MS,
    MAX_LABELS,
    OTHER_LABELS,
    QUANTILE_ERROR,
    TelemetryWindow,
    merge,
    quantile,
)

REPLICA = ReplicaInfo("sentiment", "4", "sha256:ab", "text-classification", "echo", "f32", "cpu")
IN_RANGE = st.lists(st.floats(0.1, 600_000), min_size=1, max_size=50)
ANSWERS = st.builds(
    Answer,
    result=st.just(b"[]"),
    id=st.none(),
    label=st.none() | st.sampled_from(["positive", "negative"]),
    confidence=st.none() | st.floats(0, 1),
    tokens=st.integers(0, 10_000),
    truncated=st.booleans(),
)
CALLS = st.builds(
    BatchStats,
    tokens=st.integers(0, 9_999),
    padded_tokens=st.integers(0, 9_999),
    distinct_texts=st.integers(0, 99),
    seconds=st.floats(0, 100),
)


def window(*, consumer: int = 0, version: str = "4") -> TelemetryWindow:
    return TelemetryWindow(
        pipeline="reviews", consumer=consumer, model="sentiment", version=version
    )


def answer(label: str | None = "positive", confidence: float | None = 0.9) -> Answer:
    return Answer(b"[]", None, label, confidence, 12, False)


@st.composite
def records(draw: st.DrawFn) -> TelemetryRecord:
    gathered = window(consumer=draw(st.integers(0, 2)), version=draw(st.sampled_from("45")))
    seen = draw(st.lists(st.tuples(ANSWERS, st.floats(-10, 700_000)), max_size=5))
    gathered.observe_answers([a for a, _ in seen], [ms for _, ms in seen])
    gathered.observe_failures(draw(st.lists(st.sampled_from(FailureKind), max_size=3)))
    for call in draw(st.lists(CALLS, max_size=3)):
        gathered.observe_call(call)
    start_ms = draw(st.integers(0, 10**6))
    replica = draw(st.sampled_from([REPLICA, None]))
    return gathered.to_record(start_ms, start_ms + 5_000, replica=replica)


def latency_histogram(values: list[float]) -> dict[int, int]:
    gathered = window()
    gathered.observe_answers([answer()] * len(values), values)
    return gathered.to_record(0, 1, replica=None).latency


def test_a_window_counts_what_it_saw() -> None:
    gathered = window(consumer=2)
    assert gathered.is_empty
    gathered.observe_answers(
        [
            Answer(b"[]", None, "positive", 1.0, 1, False),
            Answer(b"[]", None, "negative", 0.5, 4, True),
            Answer(b"[]", None, None, None, 7, False),
        ],
        [0.05, 0.1, 0.11],
    )
    gathered.observe_failures([FailureKind.NOT_JSON, FailureKind.POISON, FailureKind.POISON])
    gathered.observe_call(BatchStats(12, 14, 3, 0.25, 0.2))
    gathered.observe_call(BatchStats(1, 1, 1, 0.000001, 0.0))
    gathered.observe_retry()
    gathered.observe_rescues("late", 3)
    gathered.observe_rescues("failed", 2)
    record = gathered.to_record(1_000, 6_000, replica=REPLICA)
    assert record == TelemetryRecord(
        pipeline="reviews",
        consumer=2,
        model="sentiment",
        version="4",
        engine="echo",
        precision="f32",
        digest="sha256:ab",
        start_ms=1_000,
        end_ms=6_000,
        answers=3,
        failures={"not-json": 1, "poison": 2},
        rescued={"late": 3, "failed": 2},
        deleted={},
        retries=1,
        calls=2,
        tokens=13,
        padded_tokens=15,
        distinct_texts=4,
        truncated=1,
        replica_us=250_001,
        latency={0: 2, 1: 1},
        confidence={19: 1, 10: 1},
        lengths={1: 1, 3: 2},
        labels={"positive": 1, "negative": 1},
    )
    assert TelemetryRecord.model_validate_json(record.to_bytes()) == record


def test_a_window_begins_again_at_zero() -> None:
    fresh, used = window(), window()
    used.observe_answers([answer()], [1.0])
    used.observe_failures([FailureKind.POISON])
    used.observe_call(BatchStats(12, 14, 3, 0.25, 0.2))
    used.observe_retry()
    assert not used.is_empty
    used.reset()
    assert used.is_empty
    assert used.to_record(0, 1, replica=None) == fresh.to_record(0, 1, replica=None)


@pytest.mark.parametrize("kind", ["answers", "failures", "call", "retry"])
def test_a_window_with_anything_in_it_is_not_empty(kind: str) -> None:
    gathered = window()
    if kind == "answers":
        gathered.observe_answers([answer()], [1.0])
    elif kind == "failures":
        gathered.observe_failures([FailureKind.POISON])
    elif kind == "call":
        gathered.observe_call(BatchStats(0, 0, 0, 0.0, 0.0))
    else:
        gathered.observe_retry()
    assert not gathered.is_empty


def test_labels_are_bounded() -> None:
    gathered = window()
    labels = [f"customer-{i}" for i in range(MAX_LABELS + 50)]
    gathered.observe_answers([answer(label) for label in labels], [1.0] * len(labels))
    gathered.observe_answers([answer("customer-0"), answer("late")], [1.0, 1.0])
    counted = gathered.to_record(0, 1, replica=None).labels
    assert len(counted) == MAX_LABELS + 1
    assert counted[OTHER_LABELS] == 51
    assert counted["customer-0"] == 2


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_confidence_falls_into_the_bin_of_its_width(confidence: float) -> None:
    gathered = window()
    gathered.observe_answers([answer(confidence=confidence)], [1.0])
    ((bin_, count),) = gathered.to_record(0, 1, replica=None).confidence.items()
    assert count == 1
    assert bin_ / CONFIDENCE_BINS <= confidence
    assert confidence < (bin_ + 1) / CONFIDENCE_BINS or (confidence == 1.0 and bin_ == 19)


@settings(deadline=None)
@given(st.integers(1, 1_000_000))
def test_a_length_falls_into_the_bucket_of_its_power_of_two(tokens: int) -> None:
    gathered = window()
    gathered.observe_answers([answer()._replace(tokens=tokens)], [1.0])
    ((bucket, _),) = gathered.to_record(0, 1, replica=None).lengths.items()
    assert 2 ** (bucket - 1) <= tokens < 2**bucket


@settings(deadline=None)
@given(records(), records(), records())
def test_windows_add_up_in_any_order_and_grouping(
    a: TelemetryRecord, b: TelemetryRecord, c: TelemetryRecord
) -> None:
    total = merge([a, b, c])
    assert all(merge(order) == total for order in permutations([a, b, c]))
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == total
    assert total.answers == a.answers + b.answers + c.answers
    assert sum(total.latency.values()) == total.answers
    assert total.replica_us == a.replica_us + b.replica_us + c.replica_us


@settings(deadline=None)
@given(records())
def test_one_window_is_its_own_sum(record: TelemetryRecord) -> None:
    assert merge([record]) == record


@settings(deadline=None)
@given(st.lists(st.tuples(ANSWERS, st.floats(0, 1_000)), max_size=20), st.integers(0, 20))
def test_two_windows_say_what_one_would_have_said(
    seen: list[tuple[Answer, float]], cut: int
) -> None:
    whole, first, second = window(), window(), window()
    for gathered, part in ((whole, seen), (first, seen[:cut]), (second, seen[cut:])):
        gathered.observe_answers([a for a, _ in part], [ms for _, ms in part])
    halves = [
        first.to_record(0, 1, replica=REPLICA),
        second.to_record(1, 2, replica=REPLICA),
    ]
    assert merge(halves) == whole.to_record(0, 2, replica=REPLICA)


def test_a_name_that_differs_is_dropped_and_times_widen() -> None:
    first = window(consumer=0).to_record(10, 20, replica=REPLICA)
    second = window(consumer=1).to_record(5, 15, replica=REPLICA)
    total = merge([first, second])
    assert (total.consumer, total.pipeline, total.engine) == (None, "reviews", "echo")
    assert (total.start_ms, total.end_ms) == (5, 20)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="at least one"):
        merge([])


@settings(deadline=None)
@given(IN_RANGE, st.floats(0, 1))
def test_a_quantile_is_within_its_error(values: list[float], q: float) -> None:
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    estimate = quantile(latency_histogram(values), q)
    assert estimate is not None
    if exact <= LATENCY_EDGES_MS[0]:
        assert estimate == LATENCY_EDGES_MS[0]
    else:
        assert abs(estimate - exact) <= exact * QUANTILE_ERROR * (1 + 1e-9)


def test_quantiles_beyond_the_edges() -> None:
    assert quantile({}, 0.5) is None
    assert quantile(latency_histogram([-5.0, 0.0]), 0.99) == 0.1
    assert quantile(latency_histogram([10_000_000.0]), 0.5) == LATENCY_EDGES_MS[-1]
    assert LATENCY_EDGES_MS[-1] >= 600_000


def test_a_quantile_reads_what_came_over_the_wire() -> None:
    gathered = window()
    gathered.observe_answers([answer()] * 100, [*[10.0] * 90, *[1_000.0] * 10])
    sent = gathered.to_record(0, 1, replica=REPLICA).to_bytes()
    histogram = TelemetryRecord.model_validate_json(sent).latency
    assert quantile(histogram, 0.9) == pytest.approx(10.0, rel=QUANTILE_ERROR)
    assert quantile(histogram, 0.91) == pytest.approx(1_000.0, rel=QUANTILE_ERROR)
