"""Commands that train: settings from options, and a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from ops.cli.options import GoldenOption, JsonOption
from ops.cli.terminal import err, errors_in_words, json_line, out, warn
from ops.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from rich.progress import Progress

    from serve.artifact import Artifact

train_app = typer.Typer(help="Fine-tune a model directory.", no_args_is_help=True)


@train_app.command("text-classification")
def train_text_classification(
    data: Annotated[Path, typer.Option(help="Texts and labels: JSON lines, CSV or TSV.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    base: Annotated[
        str | None, typer.Option(help="Directory or hub name; default: the packaged MiniLM.")
    ] = None,
    freeze: Annotated[
        str, typer.Option(help="encoder: train only the head (seconds); none: train all.")
    ] = "encoder",
    epochs: Annotated[int | None, typer.Option(help="Passes over the texts.", min=1)] = None,
    text_field: Annotated[str, typer.Option(help="Field with the text.")] = "text",
    label_field: Annotated[
        str | None, typer.Option(help="Field with the label; default: label or labels.")
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="A text may have several labels, or none.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens per text; longer ones are cut.", min=3)
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a file without a header: text,label")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Column separator; default: detected among , ; | tab.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Fraction of texts for early stopping.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Fraction of texts for testing.")] = 0.2,
    batch_tokens: Annotated[int, typer.Option(help="Maximum tokens per batch.")] = 2048,
    head_lr: Annotated[float, typer.Option(help="Peak learning rate of the head.")] = 1e-3,
    encoder_lr: Annotated[float, typer.Option(help="Peak rate of the encoder.")] = 5e-5,
    golden: GoldenOption = None,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a text classifier and write its model directory."""
    with errors_in_words():
        artifact = train_with_progress(
            {
                "data": data,
                "out": out_dir,
                "base": base,
                "freeze": freeze,
                "epochs": epochs,
                "text_field": text_field,
                "label_field": label_field,
                "multi_label": multi_label,
                "max_length": max_length,
                "columns": tuple(columns.split(",")) if columns else None,
                "separator": separator,
                "val_share": val_share,
                "test_share": test_share,
                "batch_tokens": batch_tokens,
                "head_lr": head_lr,
                "encoder_lr": encoder_lr,
                "golden": golden,
                "seed": seed,
            }
        )
        if as_json:
            json_line(artifact.card.model_dump_json())
            return
        metrics = ", ".join(f"{m.name} {m.value:.3f}" for m in artifact.card.metrics)
        out.print(f"{artifact.path}: {metrics}", soft_wrap=True)


def train_with_progress(options: dict[str, Any]) -> Artifact:
    """Train a text classifier and show a progress bar.

    Args:
        options: Fields of ``TextClassificationSettings``.
    Raises:
        ConfigError: An option has an invalid value.
        TrainError: The data or the base cannot be used.
    """
    from serve.golden_texts import read_golden_texts
    from serve.output import require_free
    from train.data import prepare
    from train.settings import TextClassificationSettings

    try:
        settings = TextClassificationSettings.model_validate(options)
    except ValidationError as exc:
        raise ConfigError("; ".join(map(_in_words, exc.errors()))) from exc
    # Errors in files are reported before torch is loaded, which takes seconds.
    require_free(settings.out)
    if settings.golden is not None:
        read_golden_texts(settings.golden)
    prepared = prepare(settings)
    for remark in prepared.remarks:
        warn(remark)
    # Threads that spin while waiting would take the cores of a small machine from all else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from train.text_classification import train

    with _bar() as bar:
        return train(settings, _shown_on(bar), prepared)


def _in_words(error: ErrorDetails) -> str:
    """Return the name of an option and what is wrong with it."""
    what = error["msg"].removeprefix("Value error, ")
    option = "-".join(str(step) for step in error["loc"]).replace("_", "-")
    return f"--{option}: {what}" if option else what


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

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
