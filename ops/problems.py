"""Mistakes in a text that a person wrote, each with its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class ProblemSeverity(StrEnum):
    """Whether a text with this problem can be used."""

    ERROR = "error"
    WARNING = "warning"


class Place(NamedTuple):
    """Where something stands; line and column from 1, 0 where it concerns no one place."""

    line: int
    column: int


NOWHERE = Place(0, 0)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake.

    Attributes:
        line: In the text, from 1; 0 where it concerns no one place.
        column: Likewise.
        path: Dotted, such as ``pipelines.0.window``.
        message: What is wrong, and what would be right.
        severity: A text with warnings alone can be used.
    """

    line: int
    column: int
    path: str
    message: str
    severity: ProblemSeverity = ProblemSeverity.ERROR

    def __str__(self) -> str:
        place = f"line {self.line}:{self.column}: " if self.line else ""
        warning = "" if self.severity == ProblemSeverity.ERROR else "warning: "
        return f"{place}{warning}{self.path + ': ' if self.path else ''}{self.message}"

    def located_in(self, file: Path) -> str:
        """As compilers say it, ``file:line:column: path: message``."""
        place = f":{self.line}:{self.column}" if self.line else ""
        without_place = replace(self, line=0)
        return f"{file}{place}: {without_place}"
