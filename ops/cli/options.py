"""Options that several commands have, under one name with one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; bertstream.yaml by default.")
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        "--config",
        "-c",
        help="Of which platform: its state directory or its YAML file; bertstream.yaml here if "
        "none, else .bertstream.",
    ),
]
ApiOption = Annotated[
    str | None, typer.Option("--api", help="URL of the control API; of here if none.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
LimitOption = Annotated[int, typer.Option("--limit", help="Rows, at most.", min=1, max=500)]
GoldenOption = Annotated[
    Path | None, typer.Option(help="Texts to know it by: one a line, or JSON objects.")
]
STATE_DIR: Path | None = None
