"""Training from the command line: the settings from options, and a bar."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ops.cli.terminal import err, warn
from ops.errors import ConfigError
from serve.artifact import Artifact
from serve.golden_texts import read_golden_texts
from serve.output import require_free
from train.data import prepare
from train.settings import TextClassificationSettings


def train_with_progress(options: dict[str, Any]) -> Artifact:
    """Train a text classifier and show how far it is.

    Args:
        options: Fields of ``TextClassificationSettings``.
    Raises:
        ConfigError: An option has a value that there is not.
        TrainError: The data or the base cannot be used.
    """
    try:
        settings = TextClassificationSettings.model_validate(options)
    except ValidationError as exc:
        raise ConfigError("; ".join(map(_in_words, exc.errors()))) from exc
    # What is wrong with the files is told before the seconds that torch takes to load.
    require_free(settings.out)
    if settings.golden is not None:
        read_golden_texts(settings.golden)
    prepared = prepare(settings)
    for remark in prepared.remarks:
        warn(remark)
    # Threads that spin while they wait take the cores from everything else on a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from train.text_classification import train

    with _bar() as bar:
        return train(settings, _shown_on(bar), prepared)


def _in_words(error: ErrorDetails) -> str:
    """What is wrong with an option, by its name."""
    what = error["msg"].removeprefix("Value error, ")
    option = "-".join(str(step) for step in error["loc"]).replace("_", "-")
    return f"--{option}: {what}" if option else what


def _bar() -> Progress:
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.fields[loss]}"))
    return Progress(*columns, TimeRemainingColumn(), console=err, transient=True)


def _shown_on(bar: Progress) -> Callable[[int, int, float | None], None]:
    tasks = {
        phase: bar.add_task(phase, total=None, loss="", visible=False)
        for phase in ("encoding", "training")
    }

    def show(step: int, total: int, loss: float | None) -> None:
        phase = "encoding" if loss is None else "training"
        text = "" if loss is None else f"loss {loss:.3f}"
        bar.update(tasks[phase], completed=step, total=total, loss=text, visible=True)

    return show
