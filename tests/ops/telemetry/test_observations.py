from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.analysis.evidence import PairedEvidence, ReleaseStep, StepEvidence, VersionEvidence
from ops.analysis.gathering import Gathered, Pair, records_of
from ops.telemetry import observations
from ops.telemetry.observations import LATE_MS, MAX_WINDOWS, Observations, ReadPosition
from serve.contract import Answer, Failure, FailureKind, Outcome
from stream.comparison import Comparison
from stream.records import Record
from stream.schema import ComparisonRecord, ConsumerRecord, TelemetryRecord
from stream.telemetry import QUANTILE_ERROR, TelemetryWindow, merge

PAIR = Pair(candidate="3", baseline="2")
DEADLINE_S = 30.0
BEGAN = 1_000_000
NOTHING = PairedEvidence(baseline_p99_ms=[], candidate_p99_ms=[])
GOOD = Answer(b'{"label":"good"}', None, "good", 0.9, 7, False)
BAD = Answer(b'{"label":"bad"}', None, "bad", 0.8, 7, False)
POISON = Failure(FailureKind.POISON, "nan")
TOO_LONG = Failure(FailureKind.TOO_LONG, "900 tokens")
NOT_JSON = Failure(FailureKind.NOT_JSON, "no object")


def window(
    version: str = "3",
    *,
    start: int = BEGAN,
    end: int | None = None,
    model: str = "sentiment",
    consumer: int = 0,
    answers: Sequence[Answer] = (),
    failures: Sequence[FailureKind] = (),
    rescued: int = 0,
) -> TelemetryRecord:
    seen = TelemetryWindow(pipeline="reviews", consumer=consumer, model=model, version=version)
    seen.observe_answers(answers, [12.0] * len(answers))
    seen.observe_failures(failures)
    if rescued:
        seen.observe_rescues("failed", rescued)
        seen.observe_rescues("late", 1)
    return seen.to_record(start, start + 5000 if end is None else end, replica=None)


def comparison(
    live: Sequence[Outcome] = (),
    candidate: Sequence[Outcome] = (),
    *,
    pair: tuple[str, str] = ("2", "3"),
    start: int = BEGAN,
    calls: Sequence[tuple[float, float]] = (),
) -> ComparisonRecord:
    seen = Comparison()
    records = [SimpleNamespace(topic="in", partition=0, offset=at) for at in range(len(live))]
    seen.observe_answers(cast("list[Record]", records), live, candidate)
    for live_s, candidate_s in calls:
        seen.observe_calls(live_s, candidate_s)
    return seen.to_record(
        pipeline="reviews",
        consumer=0,
        model="sentiment",
        live=pair[0],
        candidate=pair[1],
        start_ms=start,
        end_ms=start + 5000,
    )


def heartbeat(at_ms: int, *, consumer: int = 0, pipeline: str = "reviews") -> ConsumerRecord:
    return ConsumerRecord(
        pipeline=pipeline,
        consumer=consumer,
        model="sentiment",
        pid=1,
        at_ms=at_ms,
        epoch=4,
        versions=(),
        waiting=0,
        committed_ago_s=0.1,
        trouble=None,
        ended=False,
    )


def told(*records: TelemetryRecord | ComparisonRecord | ConsumerRecord) -> Observations:
    seen = Observations()
    seen.add(records)
    return seen


def evidence(
    step: ReleaseStep,
    *,
    windows: Sequence[TelemetryRecord] = (),
    comparisons: Sequence[ComparisonRecord] = (),
    pair: Pair = PAIR,
) -> StepEvidence:
    gathered = Gathered(step, pair, since_ms=0)
    gathered.add(windows, comparisons)
    return gathered.evidence(age_s=60.0)


def test_windows_that_began_before_are_left_out() -> None:
    before = window(start=BEGAN - 1, end=BEGAN + 4999)
    first, second = window(start=BEGAN), window(start=BEGAN + 5000)
    seen = told(before, first, second)
    assert seen.windows("sentiment", since_ms=BEGAN) == [first, second]
    assert seen.windows("sentiment", since_ms=BEGAN + 1) == [second]
    assert seen.windows("sentiment", since_ms=BEGAN + 5001) == []


def test_comparisons_that_began_before_are_left_out() -> None:
    before, after = comparison(start=BEGAN - 1), comparison(start=BEGAN)
    seen = told(before, after)
    assert seen.comparisons("sentiment", since_ms=BEGAN) == [after]
    assert seen.windows("sentiment", since_ms=BEGAN) == []


def test_models_are_kept_apart_and_a_window_of_none_is_nobodys() -> None:
    mine, other = window(), window(model="topics")
    nobodys = merge([mine, other])
    seen = told(mine, other, nobodys)
    assert seen.windows("sentiment", since_ms=0) == [mine]
    assert seen.windows("topics", since_ms=0) == [other]
    assert seen.windows("unknown", since_ms=0) == []
    assert seen.comparisons("unknown", since_ms=0) == []


def test_window_that_is_told_late_hides_none_that_was_told_before() -> None:
    slow = [window(start=start, consumer=1) for start in (BEGAN - LATE_MS, BEGAN - 6000)]
    found = [window(start=BEGAN + n * 5000) for n in range(3)]
    seen = told(window(start=BEGAN - 5000), found[0], slow[0], found[1], slow[1], found[2])
    assert seen.windows("sentiment", since_ms=BEGAN) == found


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30), st.integers(0, 90))
def test_windows_of_overlapping_consumers_are_all_found(
    spans: list[tuple[int, int]], since_s: int
) -> None:
    """Told in the order in which they ended."""
    spans = sorted(spans, key=lambda span: span[0] + span[1])
    windows = [
        window(start=1000 * start, end=1000 * (start + lasts), consumer=number)
        for number, (start, lasts) in enumerate(spans)
    ]
    found = told(*windows).windows("sentiment", since_ms=1000 * since_s)
    assert found == [window for window in windows if window.start_ms >= 1000 * since_s]


def test_memory_is_bounded_for_each_model() -> None:
    oldest, usual, other = window(start=1), window(), window(model="topics")
    compared = comparison()
    seen = told(oldest, other, comparison(start=1), *[usual, compared] * (MAX_WINDOWS - 1))
    assert seen.windows("sentiment", since_ms=0)[0] is oldest
    seen.add([usual, compared])
    found = seen.windows("sentiment", since_ms=0)
    assert (len(found), found[0]) == (MAX_WINDOWS, usual)
    assert len(seen.comparisons("sentiment", since_ms=0)) == MAX_WINDOWS
    assert seen.comparisons("sentiment", since_ms=0)[0] is compared
    assert seen.windows("topics", since_ms=0) == [other]


def test_consumers_are_known_by_what_they_told_last() -> None:
    seen = told(heartbeat(1), heartbeat(3, consumer=1), heartbeat(5, pipeline="tickets"))
    seen.add([heartbeat(4)])
    assert seen.consumers(since_ms=4) == [heartbeat(4), heartbeat(5, pipeline="tickets")]
    assert len(seen.consumers(since_ms=0)) == 3


def test_reading_beside_a_writer_sees_whole_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MAX_WINDOWS", 100)
    seen, usual, done = Observations(), window(), threading.Event()

    def write() -> None:
        for _ in range(20_000):
            seen.add([usual])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not done.is_set():
            assert len(seen.windows("sentiment", since_ms=0)) <= 100
    finally:
        writer.join(DEADLINE_S)
    assert not writer.is_alive()


def test_canary_counts_both_versions_by_their_windows() -> None:
    windows = [
        window("3", answers=[GOOD, GOOD, BAD], failures=[FailureKind.POISON], rescued=4),
        window("2", answers=[GOOD] * 5, failures=[FailureKind.TOO_LONG], consumer=1),
        window("3", answers=[BAD], consumer=1),
        window("1", answers=[GOOD] * 9),
    ]
    found = evidence(ReleaseStep.CANARY, windows=windows)
    assert found.candidate == VersionEvidence("3", 4, 6, {"good": 2, "bad": 2})
    assert found.baseline == VersionEvidence("2", 5, 1, {"good": 5})
    assert (found.paired, found.age_s) == (NOTHING, 60.0)


@pytest.mark.parametrize("kind", FailureKind)
def test_only_what_the_version_is_to_blame_for_counts_as_its_error(kind: FailureKind) -> None:
    blamed = kind in {FailureKind.POISON, FailureKind.TOO_LONG}
    found = evidence(ReleaseStep.CANARY, windows=[window(failures=[kind] * 3, answers=[GOOD])])
    assert found.candidate == VersionEvidence("3", 1, 3 if blamed else 0, {"good": 1})


@pytest.mark.parametrize("step", ReleaseStep)
def test_nothing_seen_is_nothing_counted(step: ReleaseStep) -> None:
    nothing = StepEvidence(VersionEvidence("3"), VersionEvidence("2"), NOTHING, 60.0)
    assert evidence(step) == nothing


def test_shadow_counts_by_the_comparison_alone() -> None:
    live = [GOOD, GOOD, BAD, GOOD, TOO_LONG, NOT_JSON, POISON]
    candidate = [GOOD, BAD, BAD, POISON, GOOD, NOT_JSON, POISON]
    windows = [window("2", answers=[GOOD] * 90), window("3", answers=[GOOD] * 80)]
    compared = [comparison(live, candidate), comparison([GOOD], [GOOD])]
    found = evidence(ReleaseStep.SHADOW, windows=windows, comparisons=compared)

    assert found.paired == NOTHING._replace(
        compared=4,
        agreed=3,
        failed=1,
        baseline_failed=1,
        matrix={("good", "good"): 2, ("good", "bad"): 1, ("bad", "bad"): 1},
    )
    assert found.candidate == VersionEvidence("3", 5, 1, {"good": 2, "bad": 2})
    assert found.baseline == VersionEvidence("2", 5, 1, {"good": 3, "bad": 1})


def test_calls_are_compared_window_by_window() -> None:
    compared = [
        comparison(calls=[(0.010, 0.020), (0.011, 0.021)]),
        comparison(),
        comparison(calls=[(0.010, 0.040)]),
    ]
    found = evidence(ReleaseStep.SHADOW, comparisons=compared).paired
    assert found.baseline_p99_ms == pytest.approx([11, 10], rel=QUANTILE_ERROR)
    assert found.candidate_p99_ms == pytest.approx([21, 40], rel=QUANTILE_ERROR)
    assert found.slowdowns == pytest.approx([2, 4], rel=2 * QUANTILE_ERROR)


def test_comparisons_with_other_versions_are_left_out() -> None:
    others = [
        comparison([GOOD], [GOOD], pair=pair) for pair in [("1", "3"), ("2", "4"), ("3.1", "2")]
    ]
    assert evidence(ReleaseStep.SHADOW, comparisons=others).paired == NOTHING


def test_bake_turns_the_comparison_round() -> None:
    """While it bakes, the candidate answers and the old version is the shadow."""
    live, shadow = [GOOD, GOOD, BAD, POISON, GOOD], [GOOD, BAD, BAD, GOOD, POISON]
    windows = [
        window("3", answers=[GOOD, GOOD, BAD, GOOD], failures=[FailureKind.POISON], rescued=1),
        window("2", answers=[GOOD]),
    ]
    compared = [comparison(live, shadow, pair=("3", "2"), calls=[(0.030, 0.010)])]
    found = evidence(ReleaseStep.BAKE, windows=windows, comparisons=compared)

    assert found.candidate == VersionEvidence("3", 4, 3, {"good": 3, "bad": 1})
    assert found.baseline == VersionEvidence("2", 1, 0, {"good": 1})
    assert found.paired._replace(baseline_p99_ms=[], candidate_p99_ms=[]) == NOTHING._replace(
        compared=3,
        agreed=2,
        failed=1,
        baseline_failed=1,
        matrix={("good", "good"): 1, ("bad", "good"): 1, ("bad", "bad"): 1},
    )
    assert found.paired.slowdowns == pytest.approx([3], rel=2 * QUANTILE_ERROR)


# What is wrong with the record itself, both versions say alike.
both = st.one_of(
    st.just((NOT_JSON, NOT_JSON)),
    st.tuples(*[st.sampled_from([GOOD, BAD, POISON, TOO_LONG])] * 2),
)
calls = st.lists(st.tuples(st.floats(0.0001, 10), st.floats(0.0001, 10)), max_size=5)


@given(st.lists(both, max_size=20), calls)
def test_either_side_of_a_comparison_tells_the_same(
    outcomes: list[tuple[Outcome, Outcome]], calls: list[tuple[float, float]]
) -> None:
    old, new = [a for a, _ in outcomes], [b for _, b in outcomes]
    ahead = comparison(old, new, pair=("2", "3"), calls=calls)
    behind = comparison(new, old, pair=("3", "2"), calls=[(b, a) for a, b in calls])
    assert evidence(ReleaseStep.SHADOW, comparisons=[ahead]) == evidence(
        ReleaseStep.SHADOW, comparisons=[behind]
    )


@given(st.lists(both, max_size=20), calls)
def test_turning_it_twice_changes_nothing(
    outcomes: list[tuple[Outcome, Outcome]], calls: list[tuple[float, float]]
) -> None:
    compared = comparison([a for a, _ in outcomes], [b for _, b in outcomes], calls=calls)
    straight = evidence(ReleaseStep.SHADOW, comparisons=[compared])
    turned = evidence(ReleaseStep.SHADOW, comparisons=[compared], pair=Pair("2", "3"))
    assert mirrored(turned) == straight


def mirrored(found: StepEvidence) -> StepEvidence:
    paired = found.paired
    turned: dict[str, Any] = {
        "failed": paired.baseline_failed,
        "baseline_failed": paired.failed,
        "matrix": {(b, a): count for (a, b), count in paired.matrix.items()},
        "baseline_p99_ms": paired.candidate_p99_ms,
        "candidate_p99_ms": paired.baseline_p99_ms,
    }
    return found._replace(
        candidate=found.baseline, baseline=found.candidate, paired=paired._replace(**turned)
    )


def test_news_go_on_from_where_somebody_looked() -> None:
    told, seen = Observations(), ReadPosition()
    for start in range(3):
        told.add([window(start=BEGAN + start), comparison([GOOD], [GOOD], start=BEGAN + start)])
        windows, comparisons, seen = told.news("sentiment", seen)
        assert [record.start_ms for record in windows] == [BEGAN + start]
        assert [record.start_ms for record in comparisons] == [BEGAN + start]
        assert told.news("sentiment", seen) == ([], [], seen)
    windows, comparisons, everything = told.news("sentiment", ReadPosition())
    assert (len(windows), len(comparisons), everything) == (3, 3, seen)
    assert told.news("unknown", ReadPosition()) == ([], [], ReadPosition())


@given(st.lists(st.sampled_from(["window", "rescued", "pair", "turned", "other"])), st.data())
def test_evidence_gathered_piece_by_piece_is_that_of_all_at_once(
    kinds: list[str], data: Any
) -> None:
    made: list[TelemetryRecord | ComparisonRecord] = []
    for number, kind in enumerate(kinds):
        start = BEGAN + number
        match kind:
            case "window":
                made.append(window("32"[number % 2], start=start, answers=[GOOD, BAD]))
            case "rescued":
                made.append(window("3", start=start, failures=[FailureKind.POISON], rescued=2))
            case "pair":
                calls = [(1.0, 2.0 + number)]
                made.append(comparison([GOOD, BAD], [BAD, POISON], start=start, calls=calls))
            case "turned":
                made.append(comparison([GOOD], [BAD], pair=("3", "2"), start=start))
            case _:
                made.append(comparison([GOOD], [BAD], pair=("3", "9"), start=start))
    windows = [record for record in made if isinstance(record, TelemetryRecord)]
    comparisons = [record for record in made if isinstance(record, ComparisonRecord)]
    for step in ReleaseStep:
        gathered, told, seen = Gathered(step, PAIR, since_ms=BEGAN), Observations(), ReadPosition()
        before = comparison([GOOD], [GOOD], start=BEGAN - 1)
        rest = [window("3", start=BEGAN - 1, answers=[GOOD]), before, *made]
        while rest:
            cut = data.draw(st.integers(1, len(rest)))
            told.add(rest[:cut])
            *news, seen = told.news("sentiment", seen)
            gathered.add(*news)
            rest = rest[cut:]
        found = gathered.evidence(age_s=7.0)
        whole = evidence(step, windows=windows, comparisons=comparisons)
        assert found == whole._replace(age_s=7.0)


def test_answers_are_counted_from_a_moment_on() -> None:
    told = Observations(counted_from_ms=BEGAN)
    told.add([window(start=BEGAN - 6000, end=BEGAN - 1, answers=[GOOD])])
    told.add([window(start=BEGAN - 6000, end=BEGAN, answers=[GOOD, BAD])])
    assert (told.answers("sentiment", "3"), told.answers("sentiment", "2")) == (2, 0)


def test_records_of_each_version_since_a_moment() -> None:
    model_failed = FailureKind.POISON
    seen = told(
        window("1", failures=[model_failed, model_failed]),
        window("1", start=BEGAN + 5000, failures=[model_failed]),
        window("2", start=BEGAN + 5000, failures=[model_failed]),
    )
    assert records_of(seen.windows("sentiment", since_ms=BEGAN)) == {"1": 3, "2": 1}
    assert records_of(seen.windows("sentiment", since_ms=BEGAN + 1)) == {"1": 1, "2": 1}
    assert records_of(seen.windows("another", since_ms=0)) == {}
