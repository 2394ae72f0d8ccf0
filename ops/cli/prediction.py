"""Answers without Kafka, from a model directory or from a running platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import orjson

from ops.cli.terminal import Steps, configuration
from ops.config.state_dir import DEFAULT_FILE
from ops.errors import ConfigError, OpsError
from serve.artifact import Artifact
from serve.contract import Answer, CallOptions, Outcome
from serve.settings import ModelSettings, Task

PLAIN = CallOptions(format="text")


def predict_texts(model: str, texts: list[str], config: Path | None) -> list[Outcome]:
    """Answer texts, each of them.

    Args:
        model: A model directory, or the name of a served model, with or without a version.
        texts: A byte that is not UTF-8 is half a surrogate, as in ``sys.argv``.
    Raises:
        OpsError: There is no such directory and no such served model; a ConfigError where there is
            no configuration to look the model up in.
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
    from serve.replica import open_replica

    Steps()(f"loading {path}")
    replica = open_replica(ModelSettings(name="model", path=path))
    try:
        return replica.predict(values, PLAIN).outcomes
    finally:
        replica.close()


def _from_platform(model: str, values: list[bytes], config: Path | None) -> list[Outcome]:
    from ops.platform.installation import State, connection, environment

    settings = configuration(config)
    state = State.load(settings.state_dir)
    name, _, version = model.partition("@")
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
    """A text and its answer, or why it has none, as one line of JSON.

    Args:
        index: Of the text among those that were given, from 0.
    """
    return orjson.dumps({"index": index, "text": _shown(text)} | _answer(outcome)).decode()


def answer_text(text: str, outcome: Outcome) -> str:
    """The same for people."""
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
    """Import with options as they stand on the command line.

    Raises:
        ConfigError: An option has a value that there is not.
    """
    from serve.artifact import Pooling, PoolingMode

    chosen: dict[str, Any] = {}
    for option, value, known in (
        ("--task", task, get_args(Task)),
        ("--pooling", pooling, get_args(PoolingMode)),
    ):
        if value is not None and value not in known:
            raise ConfigError(f"{option} {value}: there is {', '.join(map(str, known))}")
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
