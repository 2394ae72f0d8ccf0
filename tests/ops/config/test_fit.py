"""Settings of pipelines that a model refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ops.config.fit import Misfit, card_of, misfits
from serve.artifact import ModelCard
from stream.settings import PipelineSettings
from tests.ops.directories import make_directory

CARDS = {
    "text-classification": {"labels": ["bad", "good"], "problem_type": "multi_label"},
    "sentence-similarity": {"pooling": {}},
}


def found(task: str, **settings: Any) -> list[Misfit]:
    card = ModelCard.model_validate({"task": task, "head": CARDS[task], "max_length": 64})
    names = {"name": "p", "model": "m", "input_topics": ["in"], "output_topic": "out"}
    return misfits(PipelineSettings.model_validate(names | settings), card)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("text-classification", {}),
        ("text-classification", {"format": "text", "parameters": {"top_k": None}}),
        ("text-classification", {"fields": {"text": "a", "text_pair": "b"}}),
        ("text-classification", {"parameters": {"thresholds": {"good": 0.7}}}),
        ("sentence-similarity", {"long_text": "window"}),
    ],
)
def test_settings_that_fit(task: str, settings: dict[str, Any]) -> None:
    assert found(task, **settings) == []


@pytest.mark.parametrize(
    ("task", "settings", "setting", "reason"),
    [
        ("text-classification", {"fields": {"txt": "a"}}, "fields", "did you mean text?"),
        ("text-classification", {"parameters": {"topk": 1}}, "parameters", "did you mean top_k?"),
        ("text-classification", {"parameters": {"top_k": 0}}, "parameters", "top_k: "),
        (
            "text-classification",
            {"parameters": {"thresholds": {"fair": 0.7}}},
            "parameters",
            "the label 'fair', which the model lacks",
        ),
        (
            "text-classification",
            {"format": "text", "fields": {"text_pair": "b"}},
            "format",
            "set format to json",
        ),
        ("sentence-similarity", {"format": "text"}, "format", "set format to json"),
    ],
)
def test_setting_that_does_not_fit_is_named(
    task: str, settings: dict[str, Any], setting: str, reason: str
) -> None:
    (misfit,) = found(task, **settings)
    assert misfit.setting == setting
    assert reason in misfit.reason


def test_every_misfit_is_named_once() -> None:
    more = {"format": "text", "fields": {"txt": "a"}, "parameters": {"topk": 1}}
    named = [misfit.setting for misfit in found("text-classification", **more)]
    assert named == ["fields", "parameters"]


def test_card_of_what_is_no_model_directory(tmp_path: Path) -> None:
    assert card_of(tmp_path) is None
    (tmp_path / "bertstream.json").write_text('{"task": "translation"}')
    assert card_of(tmp_path) is None
    card = card_of(make_directory(tmp_path / "model"))
    assert card is not None
    assert card.task == "text-classification"
