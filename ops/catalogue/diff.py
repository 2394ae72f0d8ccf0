"""Differences between two versions: metrics, labels, config, size, golden answers. Pure.

Gates and people decide which of them is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from serve.artifact import GoldenRecord, Metric, ModelCard
from serve.registry import task_type

LOW, HIGH = "_low", "_high"
# Reported as labels already, or repeated for each class.
LABEL_KEYS = frozenset(("id2label", "label2id"))
CARD_KEYS = (
    "task",
    "head",
    "max_length",
    "tokenizer",
    "base",
    "training_data_sha256",
    "code_version",
)


class Described(NamedTuple):
    """The parts of a version that are compared.

    Attributes:
        config: Content of ``config.json``.
        golden: Golden records; empty if it has none.
    """

    card: ModelCard
    config: Mapping[str, Any]
    golden: Sequence[GoldenRecord]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value and its 95% confidence interval; None if unknown."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class MetricChange:
    """One metric before and after; None on the side that did not measure it.

    Attributes:
        gain: Improvement; negative if it became worse.
        is_clear: Whether the intervals are known and disjoint; else it may be due to chance.
    """

    name: str
    direction: Literal["higher", "lower"]
    before: Figure | None
    after: Figure | None
    gain: float | None
    is_clear: bool


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The labels before and after, and those on one side only."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key of ``config.json``, or of the card with prefix ``card.``; None if absent."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """A golden text that the two versions answer differently."""

    text: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class GoldenChange:
    """Differences in the answers to golden texts.

    Attributes:
        compared: Number of texts that both have.
        only_before: Number of texts that the later one lacks.
        only_after: Number of texts that the earlier one lacks.
    """

    compared: int
    only_before: int
    only_after: int
    differing: tuple[AnswerChange, ...]


@dataclass(frozen=True, slots=True)
class Diff:
    """Differences from one version to another.

    Attributes:
        metrics: All metrics, changed or not.
        labels: None if the labels and their order are the same.
        config: Keys that differ.
        size_bytes: Sizes before and after.
    """

    metrics: tuple[MetricChange, ...]
    labels: LabelChange | None
    config: tuple[KeyChange, ...]
    size_bytes: tuple[int, int]
    golden: GoldenChange


def compare(before: Described, after: Described) -> Diff:
    """Return everything that differs between two versions."""
    return Diff(
        metrics=_metrics(before.card.metrics, after.card.metrics),
        labels=_labels(before.card.labels, after.card.labels),
        config=_keys(before, after),
        size_bytes=(before.size_bytes, after.size_bytes),
        golden=_golden(before, after),
    )


def figures(metrics: Sequence[Metric]) -> dict[str, Figure]:
    """Return metrics by name, each with its interval if the card has one."""
    values = {metric.name: metric.value for metric in metrics}
    intervals = {
        name: (values[name + LOW], values[name + HIGH])
        for name in values
        if name + LOW in values and name + HIGH in values
    }
    ends = {name + end for name in intervals for end in (LOW, HIGH)}
    return {
        name: Figure(value, intervals.get(name))
        for name, value in values.items()
        if name not in ends
    }


def _metrics(before: Sequence[Metric], after: Sequence[Metric]) -> tuple[MetricChange, ...]:
    first, second = figures(before), figures(after)
    directions = {metric.name: metric.direction for metric in (*before, *after)}
    names = dict.fromkeys((*first, *second))  # an ordered set, in the order of the card
    return tuple(
        _change(name, directions[name], first.get(name), second.get(name)) for name in names
    )


def _change(
    name: str, direction: Literal["higher", "lower"], before: Figure | None, after: Figure | None
) -> MetricChange:
    gain, is_clear = None, False
    if before is not None and after is not None:
        change = after.value - before.value
        gain = change if direction == "higher" else -change
        if before.interval is not None and after.interval is not None:
            is_clear = (
                before.interval[1] < after.interval[0] or after.interval[1] < before.interval[0]
            )
    return MetricChange(name, direction, before, after, gain, is_clear)


def _labels(before: tuple[str, ...], after: tuple[str, ...]) -> LabelChange | None:
    if before == after:
        return None
    added = tuple(label for label in after if label not in before)
    removed = tuple(label for label in before if label not in after)
    return LabelChange(before, after, added, removed)


def _keys(before: Described, after: Described) -> tuple[KeyChange, ...]:
    first, second = dict(_flat(before)), dict(_flat(after))
    return tuple(
        KeyChange(key, first.get(key), second.get(key))
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    )


def _flat(version: Described) -> Iterator[tuple[str, Any]]:
    config = {key: value for key, value in version.config.items() if key not in LABEL_KEYS}
    yield from _leaves(config, "")
    card = version.card.model_dump(include=set(CARD_KEYS))
    del card["head"]["labels"]  # reported as labels already
    yield from _leaves(card, "card.")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path.removesuffix("."), value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}{key}.")


def _golden(before: Described, after: Described) -> GoldenChange:
    first = {record.text: record.result for record in before.golden}
    second = {record.text: record.result for record in after.golden}
    both = [text for text in first if text in second]
    return GoldenChange(
        compared=len(both),
        only_before=len(first) - len(both),
        only_after=len(second) - len(both),
        differing=tuple(
            AnswerChange(text, first[text], second[text])
            for text in both
            if not _same_for_people(first[text], second[text], before.card.task, after.card.task)
        ),
    )


def _same_for_people(first: Any, second: Any, task: str, other: str) -> bool:
    if task != other:  # answers of two tasks have two shapes
        return bool(first == second)
    return task_type(task).agreement.same_for_people(first, second)
