"""Commands for models without Kafka: predict with a directory or a served model, and import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import orjson
import typer

from ops.cli.options import ConfigOption, GoldenOption, JsonOption
from ops.cli.terminal import (
    EXIT_USAGE,
    StepPrinter,
    configuration,
    errors_in_words,
    fail,
    json_line,
    out,
)
from ops.config.state_dir import DEFAULT_FILE
from ops.errors import ConfigError, OpsError
from serve.contract import Answer, AppName, CallOptions, Outcome

if TYPE_CHECKING:
    from serve.artifact import Artifact

PLAIN = CallOptions(format="text")


def predict(
    model: Annotated[str, typer.Argument(help="A model directory, or a served NAME[@VERSION].")],
    texts: Annotated[list[str] | None, typer.Argument(help="Default: lines of stdin.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict texts without Kafka."""
    with errors_in_words():
        wanted = texts or [line.removesuffix("\n") for line in sys.stdin]
        if not wanted:
            fail("there is no text: pass texts as arguments or on stdin", EXIT_USAGE)
        answers = predict_texts(model, wanted, config)
        for index, (text, answer) in enumerate(zip(wanted, answers, strict=True)):
            if as_json:
                json_line(answer_line(index, text, answer))
            else:
                out.print(answer_text(text, answer), markup=False, soft_wrap=True)


def import_(
    out_dir: Annotated[Path, typer.Option("--out", help="The model directory to write.")],
    task: Annotated[str, typer.Option(help="text-classification or feature-extraction.")],
    source: Annotated[
        str | None, typer.Argument(help="Directory or hub name; default: the packaged MiniLM.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="mean, cls, max, last-token, ...; default: the model's own.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Comma-separated label names, in the model's order.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Maximum tokens.", min=3)] = None,
    golden: GoldenOption = None,
) -> None:
    """Create a sealed model directory from a Hugging Face or sentence-transformers model."""
    with errors_in_words():
        artifact = import_directory(source, out_dir, task, pooling, labels, max_length, golden)
        out.print(
            f"{artifact.path}: {artifact.card.task}, digest {artifact.digest}", soft_wrap=True
        )


def predict_texts(model: str, texts: list[str], config: Path | None) -> list[Outcome]:
    """Return one outcome for each text.

    Args:
        model: A model directory, or the name of a served model, with or without a version.
        texts: Texts whose bytes that are not UTF-8 are lone surrogates, as in ``sys.argv``.
    Raises:
        OpsError: Neither such a directory nor such a served model exists; a ConfigError if there
            is no configuration that could name the model.
    """
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    if Path(model).is_dir():
        return _from_directory(Path(model), values)
    if Path(model).exists():
        raise OpsError(f"{model} is a file, not a model directory")
    if "/" in model:
        raise OpsError(f"no such directory: {model}")
    if config is None and not DEFAULT_FILE.exists():
        raise ConfigError(
            f"no such directory: {model}; and for a served model there is no {DEFAULT_FILE} here: "
            "name a file with --config, or start from infra/bertstream.example.yaml"
        )
    return _from_platform(model, values, config)


def _from_directory(path: Path, values: list[bytes]) -> list[Outcome]:
    from serve.replica import Replica
    from serve.settings import ModelSettings

    StepPrinter()(f"loading {path}")
    replica = Replica(ModelSettings(name="model", path=path))
    try:
        return replica.predict(values, PLAIN).outcomes
    finally:
        replica.close()


def _from_platform(model: str, values: list[bytes], config: Path | None) -> list[Outcome]:
    from ops.platform.installation import PlatformState, connection, environment

    settings = configuration(config)
    state = PlatformState.load(settings.state_dir)
    name, version, _ = AppName.parse(model)
    versions = [m.version for m in settings.models if m.name == name]
    if state is None or not versions:
        known = ", ".join(sorted({m.name for m in settings.models})) or "none"
        raise OpsError(
            f"{model} is neither a directory nor a served model (configured: {known}; "
            f"{'nothing runs' if state is None else 'the platform runs'})"
        )
    os.environ.update(environment(settings.state_dir, state))
    with connection(settings.state_dir, state) as cluster:
        return cluster.predict(name, version or versions[-1], values, PLAIN).outcomes


def answer_line(index: int, text: str, outcome: Outcome) -> str:
    """Return a text and its result, or the reason why it has none, as one line of JSON.

    Args:
        index: Position of the text among the given texts, from 0.
    """
    return orjson.dumps({"index": index, "text": _shown(text)} | _answer(outcome)).decode()


def answer_text(text: str, outcome: Outcome) -> str:
    """Return the same as two lines for people."""
    answer = _answer(outcome)
    return f"{_shown(text)}\n  {orjson.dumps(answer.get('result', answer)).decode()}"


def _answer(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Answer):
        return {"result": orjson.Fragment(outcome.result)}
    return {"error": outcome.kind, "message": outcome.message}


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")


def import_directory(
    source: str | None,
    out: Path,
    task: str,
    pooling: str | None,
    labels: str | None,
    max_length: int | None,
    golden: Path | None,
) -> Artifact:
    """Import a model with options as they are on the command line.

    Raises:
        ConfigError: An option has an unknown value.
    """
    from serve.artifact import Pooling, PoolingMode
    from serve.settings import Task

    chosen: dict[str, Any] = {}
    for option, value, known in (
        ("--task", task, get_args(Task)),
        ("--pooling", pooling, get_args(PoolingMode)),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"{option} {value}: must be one of {', '.join(map(str, known))}")
        chosen[option] = value
    from serve.golden_texts import read_golden_texts
    from serve.importing import import_model

    return import_model(
        source,
        out,
        task=chosen["--task"],
        pooling=None if pooling is None else Pooling(mode=chosen["--pooling"]),
        labels=tuple(labels.split(",")) if labels else None,
        max_length=max_length,
        golden=read_golden_texts(golden) if golden else (),
    )
