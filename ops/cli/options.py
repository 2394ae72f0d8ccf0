"""Options that several commands share, each with one name, one help text and one parser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from ops.errors import ConfigError

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default: bertstream.yaml.")
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        "--config",
        "-c",
        help="State directory or YAML file of the platform; default: bertstream.yaml here, else "
        ".bertstream.",
    ),
]
ApiOption = Annotated[
    str | None, typer.Option("--api", help="URL of the control API; default: the local one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
LimitOption = Annotated[int, typer.Option("--limit", help="Maximum rows.", min=1, max=500)]
GoldenOption = Annotated[
    Path | None, typer.Option(help="Golden texts: one per line, or JSON objects.")
]
STATE_DIR: Path | None = None


def parsed_settings(given: Sequence[str]) -> dict[str, Any]:
    """Return settings of the form ``NAME=VALUE`` by name; a value that is not JSON is a string.

    Raises:
        ConfigError: One has another form.
    """
    found: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {setting}: must be NAME=VALUE, such as top_k=3")
        try:
            found[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            found[name] = value
    return found
