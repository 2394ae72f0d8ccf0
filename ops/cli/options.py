"""Options that several commands share, each with one name and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
