from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from ops.catalogue.diff import Described, Diff, Figure, compare
from serve.artifact import GoldenRecord, Metric, ModelCard
from serve.tasks.text_classification import ClassificationHead

LABELS = ("bad", "good")


def card(*labels: str, **more: Any) -> ModelCard:
    head = ClassificationHead(labels=labels or LABELS, problem_type="single_label")
    return ModelCard.model_validate(
        {"task": "text-classification", "head": head, "max_length": 64} | more
    )


def described(
    *,
    config: dict[str, Any] | None = None,
    golden: dict[str, list[Any]] | None = None,
    size_bytes: int = 1,
    labels: tuple[str, ...] = (),
    **more: Any,
) -> Described:
    records = [
        GoldenRecord(record={"text": text}, result=result)
        for text, result in (golden or {}).items()
    ]
    return Described(card(*labels, **more), config or {}, records, size_bytes)


def metrics(**values: float) -> tuple[Metric, ...]:
    return tuple(
        Metric(name=name, value=value, direction="lower" if name == "loss" else "higher")
        for name, value in values.items()
    )


def scores(good: float) -> list[Any]:
    return [{"label": "good", "score": good}, {"label": "bad", "score": 1 - good}]


def test_equal_versions_differ_in_nothing() -> None:
    same = described(golden={"a": scores(0.9)}, metrics=metrics(accuracy=0.9))
    diff = compare(same, same)

    assert (diff.labels, diff.config, diff.golden.differing) == (None, (), ())
    assert diff.metrics[0].gain == 0
    assert not diff.metrics[0].is_clear


def test_metrics_carry_their_intervals_and_direction() -> None:
    before = described(
        metrics=metrics(accuracy=0.8, accuracy_low=0.78, accuracy_high=0.82, loss=0.5, old=1)
    )
    after = described(
        metrics=metrics(accuracy=0.9, accuracy_low=0.88, accuracy_high=0.92, loss=0.6, new=1)
    )
    changes = {change.name: change for change in compare(before, after).metrics}

    assert list(changes) == ["accuracy", "loss", "old", "new"]
    assert changes["accuracy"].before == Figure(0.8, (0.78, 0.82))
    assert changes["accuracy"].gain == pytest.approx(0.1)
    assert changes["accuracy"].is_clear
    assert changes["loss"].gain == pytest.approx(-0.1)
    assert not changes["loss"].is_clear
    assert (changes["old"].after, changes["new"].before, changes["new"].gain) == (None, None, None)


@pytest.mark.parametrize(
    ("low", "high", "clear"), [(0.83, 0.95, True), (0.82, 0.95, False), (0.7, 0.77, True)]
)
def test_change_is_clear_when_intervals_are_apart(low: float, high: float, clear: bool) -> None:
    before = described(metrics=metrics(f1=0.8, f1_low=0.78, f1_high=0.82))
    after = described(metrics=metrics(f1=0.9, f1_low=low, f1_high=high))

    assert compare(before, after).metrics[0].is_clear is clear
    assert compare(after, before).metrics[0].is_clear is clear


def test_name_that_only_looks_like_an_end_is_a_metric() -> None:
    changes = compare(described(metrics=metrics(recall_low=0.5)), described()).metrics

    assert [change.name for change in changes] == ["recall_low"]


def test_labels_that_came_went_or_moved_are_reported() -> None:
    diff = compare(described(), described(labels=("bad", "mixed"))).labels
    assert diff is not None
    assert (diff.added, diff.removed) == (("mixed",), ("good",))

    moved = compare(described(), described(labels=("good", "bad"))).labels
    assert moved is not None
    assert (moved.added, moved.removed) == ((), ())


def test_keys_of_config_and_card_are_reported_by_their_path() -> None:
    before = described(config={"hidden_size": 32, "rope": {"theta": 1, "kind": "a"}, "gone": 1})
    after = described(
        config={"hidden_size": 32, "rope": {"theta": 2, "kind": "a"}, "id2label": {"0": "x"}},
        max_length=128,
    )

    assert tuple(map(astuple, compare(before, after).config)) == (
        ("card.max_length", 64, 128),
        ("gone", 1, None),
        ("rope.theta", 1, 2),
    )


def test_size_is_reported() -> None:
    assert compare(described(size_bytes=5), described(size_bytes=7)).size_bytes == (5, 7)


def test_fields_of_the_head_are_reported_but_not_its_labels_again() -> None:
    pooled = [
        described(task="feature-extraction", head={"pooling": {"mode": mode}})
        for mode in ("mean", "cls")
    ]
    found = tuple(map(astuple, compare(*pooled).config))
    assert found == (("card.head.pooling.mode", "mean", "cls"),)

    assert compare(described(), described(labels=("good", "bad"))).config == ()


def of_shape(result: Any) -> dict[str, Any]:
    """Card fields of a task whose results have this shape."""
    if isinstance(result, list) and isinstance(result[0], dict):
        return {}
    return {"task": "feature-extraction", "head": {"pooling": {}}}


def differing(before: Any, after: Any) -> Diff:
    return compare(
        described(golden={"t": before}, **of_shape(before)),
        described(golden={"t": after}, **of_shape(after)),
    )


@pytest.mark.parametrize(
    ("before", "after", "differ"),
    [
        (scores(0.9), scores(0.85), False),
        (scores(0.9), scores(0.79), True),
        (scores(0.52), scores(0.48), True),
        ([{"label": "a", "score": 0.52}, {"label": "b", "score": 0.9}], scores(0.9), True),
        (
            [{"label": "a", "score": 0.52}, {"label": "b", "score": 0.9}],
            [{"label": "a", "score": 0.48}, {"label": "b", "score": 0.9}],
            True,
        ),
        ([1.0, 0.0], [0.999, 0.01], False),
        ([1.0, 0.0], [0.9, 0.4], True),
        ([1.0, 0.0], [1.0, 0.0, 0.0], True),
        ([0.0, 0.0], [0.0, 0.0], False),
        ([1.0, 0.0], scores(0.9), True),
        (scores(0.9), [1.0, 0.0], True),
    ],
)
def test_golden_answers_differ_by_more_than_training_again_makes(
    before: list[Any], after: list[Any], differ: bool
) -> None:
    golden = differing(before, after).golden

    assert golden.compared == 1
    found = tuple(map(astuple, golden.differing))
    assert found == ((("t", before, after),) if differ else ())


def test_golden_texts_of_one_side_are_counted() -> None:
    before = described(golden={"a": scores(0.9), "b": scores(0.9), "c": scores(0.9)})
    after = described(golden={"c": scores(0.1), "d": scores(0.9)})
    golden = compare(before, after).golden

    assert (golden.compared, golden.only_before, golden.only_after) == (1, 2, 1)
    assert [change.text for change in golden.differing] == ["c"]
