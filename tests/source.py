"""The product's own source, as tests that compare it with documents and with itself read it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("serve", "stream", "train", "ops")


def modules() -> Iterator[Path]:
    """Every module of the product."""
    for package in PRODUCT:
        yield from (ROOT / package).rglob("*.py")


@cache
def tree(file: Path) -> ast.Module:
    """What a file holds, parsed once."""
    return ast.parse(file.read_bytes())


def imported(file: Path) -> set[str]:
    """Top-level names of all that a file imports, at its beginning or later."""
    names: set[str] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names
