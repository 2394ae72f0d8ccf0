"""Commands that make model directories of models from elsewhere: ``import`` and ``combine``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ops.cli.options import GoldenOption, parsed_settings
from ops.cli.terminal import StepPrinter, errors_in_words, out
from ops.errors import ConfigError
from serve.task_names import TASKS

if TYPE_CHECKING:
    from serve.artifact import Artifact


def import_(
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    task: Annotated[str, typer.Option(help="Task, such as text-classification.")],
    source: Annotated[
        str | None, typer.Argument(help="Directory or hub name; default: the packaged MiniLM.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, max, last-token, ...; default: the model's own.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Comma-separated label names, in the model's order.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, a field of the card's head; repeatable."),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Maximum tokens.", min=3)] = None,
    golden: GoldenOption = None,
) -> None:
    """Create a sealed model directory from a Hugging Face or sentence-transformers model."""
    with errors_in_words():
        artifact = import_directory(
            source,
            out_dir,
            task=task,
            head=parsed_settings(settings or ()) | head_of(pooling=pooling, labels=labels),
            max_length=max_length,
            golden=golden,
        )
        _show(artifact)


def combine(
    heads: Annotated[list[str], typer.Argument(help="NAME=DIRECTORY of each head, at least two.")],
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    golden: GoldenOption = None,
) -> None:
    """Combine models that have the same encoder into one multi-task model directory."""
    with errors_in_words():
        sources = named_directories(heads)
        from serve.combining import combine as combined
        from serve.golden_texts import read_golden_texts

        StepPrinter()(f"combining {', '.join(sources)}")
        texts = read_golden_texts(golden) if golden else ()
        _show(combined(sources, out_dir, golden=texts))


def named_directories(given: Sequence[str]) -> dict[str, Path]:
    """Return directories of the form ``NAME=DIRECTORY`` by name.

    Raises:
        ConfigError: One has another form, or a name is repeated.
    """
    found: dict[str, Path] = {}
    for one in given:
        name, equals, directory = one.partition("=")
        if not (name and equals and directory):
            raise ConfigError(f"{one}: must be NAME=DIRECTORY, such as topic=models/topic")
        if name in found:
            raise ConfigError(f"{one}: the name {name} is used twice; give each head its own")
        found[name] = Path(directory)
    return found


def head_of(*, pooling: str | None, labels: str | None) -> dict[str, Any]:
    """Return the fields of a card's head that have options of their own.

    Raises:
        ConfigError: There is no such pooling.
    """
    from serve.embedding import PoolingMode

    head: dict[str, Any] = {}
    if labels:
        head["labels"] = labels.split(",")
    if pooling is not None:
        _require_known("--pooling", pooling, get_args(PoolingMode))
        head["pooling"] = {"mode": pooling}
    return head


def import_directory(
    source: str | None,
    out: Path,
    *,
    task: str,
    head: dict[str, Any],
    max_length: int | None,
    golden: Path | None,
) -> Artifact:
    """Import a model with options as they are on the command line.

    Raises:
        ConfigError: There is no such task.
        ArtifactError: The source or an option cannot be used. Not retriable.
    """
    _require_known("--task", task, TASKS)
    from serve.golden_texts import read_golden_texts
    from serve.importing import import_model

    return import_model(
        source,
        out,
        task=task,
        head=head,
        max_length=max_length,
        golden=read_golden_texts(golden) if golden else (),
    )


def _show(artifact: Artifact) -> None:
    out.print(f"{artifact.path}: {artifact.card.task}, digest {artifact.digest}", soft_wrap=True)


def _require_known(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        from serve.parameters import suggestion

        raise ConfigError(f"{option} {value}: unknown; {suggestion(value, known)}")
