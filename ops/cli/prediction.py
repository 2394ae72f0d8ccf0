"""The command ``predict``: texts or records to results, without Kafka."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ops.cli.options import ConfigOption, JsonOption, parsed_settings
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
from serve.contract import Answer, AppName, CallOptions, LongText, Outcome


def predict(
    model: Annotated[str, typer.Argument(help="A model directory, or a served NAME\\[@VERSION].")],
    texts: Annotated[list[str] | None, typer.Argument(help="Default: lines of stdin.")] = None,
    records: Annotated[
        bool, typer.Option("--records", help="Each is a JSON object with the task's inputs.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, a parameter of the task; repeatable."),
    ] = None,
    long_text: Annotated[
        LongText, typer.Option(help="What happens to texts that are too long.")
    ] = "truncate",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict texts without Kafka."""
    with errors_in_words():
        wanted = texts or [line.removesuffix("\n") for line in sys.stdin]
        if not wanted:
            fail("there is no text: pass texts as arguments or on stdin", EXIT_USAGE)
        options = CallOptions(
            format="json" if records else "text",
            long_text=long_text,
            parameters=parsed_settings(settings or ()),
        )
        answers = predict_texts(model, wanted, options, config=config)
        for index, (text, answer) in enumerate(zip(wanted, answers, strict=True)):
            if as_json:
                json_line(answer_line(index, text, answer, is_record=records))
            else:
                out.print(answer_text(text, answer), markup=False, soft_wrap=True)


def predict_texts(
    model: str, texts: list[str], options: CallOptions, *, config: Path | None
) -> list[Outcome]:
    """Return one outcome for each text.

    Args:
        model: A model directory, or the name of a served model, with or without a version.
        texts: Texts, or records in JSON; bytes that are not UTF-8 are lone surrogates, as in
            ``sys.argv``.
        options: The format of the texts, and parameters of the task.
        config: The configuration that names served models.
    Raises:
        OpsError: Neither such a directory nor such a served model exists; a ConfigError if there
            is no configuration that could name the model, or if its task needs records.
        ParametersRefused: The model does not have one of the parameters. Not retriable.
        ModelUnavailable: The same of a served model, or it does not answer. Retriable.
    """
    values = [text.encode("utf-8", "surrogateescape") for text in texts]
    if Path(model).is_dir():
        return _from_directory(Path(model), values, options)
    if Path(model).exists():
        raise OpsError(f"{model} is a file, not a model directory")
    if "/" in model:
        raise OpsError(f"no such directory: {model}")
    if config is None and not DEFAULT_FILE.exists():
        raise ConfigError(
            f"no such directory: {model}; and for a served model there is no {DEFAULT_FILE} here: "
            "name a file with --config, or start from infra/bertstream.example.yaml"
        )
    return _from_platform(model, values, options, config=config)


def _from_directory(path: Path, values: list[bytes], options: CallOptions) -> list[Outcome]:
    from serve.replica import Replica
    from serve.settings import ModelSettings

    _require_fit(path, options)
    StepPrinter()(f"loading {path}")
    replica = Replica(ModelSettings(name="model", path=path))
    try:
        return replica.predict(values, options).outcomes
    finally:
        replica.close()


def _require_fit(path: Path, options: CallOptions) -> None:
    """Refuse options that a model does not have, before it is loaded, which takes seconds."""
    from ops.config.fit import card_of
    from serve.parameters import require_options
    from serve.reading import reads_plain_text
    from serve.registry import task_type

    card = card_of(path)
    if card is None:  # loading it reports why
        return
    inputs = task_type(card.task).inputs
    if options.format == "text" and not reads_plain_text(inputs, options.fields):
        names = " and ".join(one.name for one in inputs if not one.optional)
        raise ConfigError(
            f"{path}: {card.task} needs {names}: pass --records and JSON objects with these fields"
        )
    require_options(card, options)


def _from_platform(
    model: str, values: list[bytes], options: CallOptions, *, config: Path | None
) -> list[Outcome]:
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
        return cluster.predict(name, version or versions[-1], values, options).outcomes


def answer_line(index: int, text: str, outcome: Outcome, *, is_record: bool = False) -> str:
    """Return a text and its result, or the reason why it has none, as one line of JSON.

    Args:
        index: Position of the text among the given texts, from 0.
        is_record: Whether the text is a record in JSON, which is included as such.
    """
    given = {"record": _parsed(text)} if is_record else {"text": _shown(text)}
    return orjson.dumps({"index": index} | given | _answer(outcome)).decode()


def answer_text(text: str, outcome: Outcome) -> str:
    """Return the same as two lines for people."""
    answer = _answer(outcome)
    return f"{_shown(text)}\n  {orjson.dumps(answer.get('result', answer)).decode()}"


def _answer(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Answer):
        cut = {"truncated": True} if outcome.truncated else {}
        return {"result": orjson.Fragment(outcome.result)} | cut
    return {"error": outcome.kind, "message": outcome.message}


def _parsed(record: str) -> Any:
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError:
        return _shown(record)


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode(errors="backslashreplace")
