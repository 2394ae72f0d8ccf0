"""Reads the YAML file and checks it as a whole; every mistake is reported with its place.

The settings are documented in ``ops.config.settings``, ``stream.settings`` and
``serve.settings``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ops.config.settings import KeyPath, PlatformConfig, conflicts
from ops.config.state_dir import VARIABLE
from ops.config.yaml_document import Document, message_of, read
from ops.errors import ConfigError
from ops.problems import NOWHERE, Problem, ProblemSeverity
from stream import tls
from stream.settings import secret_of


def load(path: Path) -> PlatformConfig:
    """Read and check the file; relative model paths are resolved against its folder.

    Raises:
        ConfigError: Lists every mistake.
    """
    config, _, problems = _read(path)
    if config is None:
        lines = "\n".join(f"  {problem.located_in(path)}" for problem in problems)
        raise ConfigError(f"{path} cannot be used:\n{lines}")
    return config


def check(path: Path) -> list[Problem]:
    """Return every mistake in the file, in line order; empty if there is none.

    Settings of pipelines that do not fit the model's directory are warnings, as the version that
    is live may be another.
    """
    from ops.config.fit import misfits_of_directories  # other commands do not need numpy

    config, document, problems = _read(path)
    if config is None or document is None:
        return problems
    return [
        document.problem(
            ("pipelines", index, misfit.setting), misfit.reason, ProblemSeverity.WARNING
        )
        for index, misfit in misfits_of_directories(config)
    ]


def _read(path: Path) -> tuple[PlatformConfig | None, Document | None, list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, None, [Problem(*NOWHERE, "", "there is no such file")]
    except (OSError, UnicodeDecodeError) as exc:
        return None, None, [Problem(*NOWHERE, "", f"it cannot be read as UTF-8 text: {exc}")]
    document = read(text, expected="kafka, models, pipelines")
    if isinstance(document, Problem):
        return None, None, [document]
    config, problems = _judge(document, path.parent)
    return config, document, problems


def _judge(document: Document, folder: Path) -> tuple[PlatformConfig | None, list[Problem]]:
    filled = _Filled()
    content = filled.put(document.content, ())
    _resolve_paths(content, folder)
    problems = [
        *document.keys_twice(),
        *(
            document.problem(at, f"the environment variable {n} is not set")
            for at, n in filled.unset
        ),
        *(document.problem(at, message) for at, message in conflicts(content)),
    ]
    unset = {at for at, _ in filled.unset}
    try:
        config = PlatformConfig.model_validate(content)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            steps: KeyPath = tuple(error["loc"])
            # An error without a place was already found by ``conflicts``, with its place.
            if steps and steps not in unset:
                secret = steps in filled.places or "password" in str(steps)
                message = message_of(error, PlatformConfig, secret=secret)
                problems.append(document.problem(steps, message))
        return None, sorted(problems)
    kafka, api = config.kafka, config.api
    keys = {
        ("kafka", "ssl_keyfile"): (kafka.ssl_certfile, kafka.ssl_keyfile, kafka.ssl_password),
        ("api", "tls_keyfile"): (api.tls_certfile, api.tls_keyfile, api.tls_password),
    }
    for at, (certfile, keyfile, password) in keys.items():
        fault = tls.fault_of(certfile, keyfile, secret_of(password))
        if fault is not None:
            name = at[1].replace("keyfile", "password")
            problems.append(document.problem(at, f"{fault}: set {at[0]}.{name}"))
    return (None if problems else config), sorted(problems)


class _Filled:
    """Replaces ``${NAME}`` in the file by values from the environment.

    Attributes:
        places: Paths of replaced values, which must not be shown.
        unset: Paths of values whose variables are not set, with the names of those.
    """

    def __init__(self) -> None:
        self.places: set[KeyPath] = set()
        self.unset: list[tuple[KeyPath, str]] = []

    def put(self, value: Any, steps: KeyPath) -> Any:
        """Return the value with everything in it replaced."""
        if isinstance(value, dict):
            return {key: self.put(item, (*steps, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.put(item, (*steps, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not VARIABLE.search(value):
            return value
        self.places.add(steps)
        missing = [name for name in VARIABLE.findall(value) if name not in os.environ]
        if missing:
            self.unset.append((steps, ", ".join(missing)))
        return VARIABLE.sub(lambda match: os.environ.get(match[1], ""), value)


def _resolve_paths(content: dict[str, Any], folder: Path) -> None:
    """Make paths absolute: replicas run in other working directories."""
    models = content.get("models")
    for model in models if isinstance(models, list) else []:
        _resolve(model, ("path",), folder)
    _resolve(content.get("kafka"), ("ssl_cafile", "ssl_certfile", "ssl_keyfile"), folder)
    _resolve(content.get("api"), ("tls_certfile", "tls_keyfile"), folder)


def _resolve(settings: Any, keys: tuple[str, ...], folder: Path) -> None:
    for key in keys if isinstance(settings, dict) else ():
        if isinstance(settings.get(key), str):
            settings[key] = str((folder / Path(settings[key]).expanduser()).resolve())
