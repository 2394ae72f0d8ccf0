"""Whether the settings of a pipeline fit the task and the model that answer its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ops.config.settings import PlatformConfig
from serve.artifact import CARD_FILE, ModelCard
from serve.contract import CallOptions
from serve.errors import ParametersRefused
from serve.parameters import require_options
from stream.settings import PipelineSettings


class Misfit(NamedTuple):
    """A setting of a pipeline that a model refuses.

    Attributes:
        setting: Name of the setting.
        reason: Why it is refused; a sentence.
    """

    setting: str
    reason: str


def misfits(pipeline: PipelineSettings, card: ModelCard) -> list[Misfit]:
    """Return the settings of a pipeline that a model with this card refuses."""
    options = pipeline.call_options()
    reasons = {"fields": _reason(card, CallOptions(fields=options.fields))}
    if reasons["fields"] is None:
        reasons["format"] = _reason(card, CallOptions(options.format, options.fields))
    reasons["parameters"] = _reason(card, CallOptions(parameters=options.parameters))
    return [Misfit(setting, reason) for setting, reason in reasons.items() if reason is not None]


def misfits_of_directories(config: PlatformConfig) -> Iterator[tuple[int, Misfit]]:
    """Yield the misfits with the model directories that exist, and the pipeline's position.

    They are mistakes only while no other version is live.
    """
    for index, pipeline in enumerate(config.pipelines):
        first = next(model for model in config.models if model.name == pipeline.model)
        card = card_of(first.path)
        if card is not None:
            yield from ((index, misfit) for misfit in misfits(pipeline, card))


def card_of(path: Path) -> ModelCard | None:
    """Return the card of a model directory, unverified; None if it cannot be read."""
    try:
        return ModelCard.model_validate_json((path / CARD_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _reason(card: ModelCard, options: CallOptions) -> str | None:
    try:
        require_options(card, options)
    except ParametersRefused as exc:
        return str(exc).removeprefix("fields: ")
    return None
