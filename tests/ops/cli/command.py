"""The command as tests run it."""

from __future__ import annotations

import json
from typing import Any, Protocol

from typer.testing import Result


class Bertstream(Protocol):
    """Run a command as somebody; checks its exit code."""

    def __call__(self, *words: str, code: int = 0, who: str = "root") -> Result: ...


def as_json(result: Result) -> Any:
    """What a command with --json has printed."""
    return json.loads(result.stdout)
