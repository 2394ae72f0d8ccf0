"""Mistakes in a text that a person wrote, each with its location."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class ProblemSeverity(StrEnum):
    """Severity of a problem: an error makes the text unusable, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Place(NamedTuple):
    """Location in a text; line and column from 1, or 0 if there is no single location."""

    line: int
    column: int


NOWHERE = Place(0, 0)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake.

    Attributes:
        line: Line in the text, from 1; 0 if there is no single location.
        column: Column in the line, from 1; 0 if there is no single location.
        path: Dotted path, such as ``pipelines.0.window``.
        message: The mistake and its correction.
        severity: A text that has only warnings can be used.
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
        """Return the problem as compilers print it: ``file:line:column: path: message``."""
        place = f":{self.line}:{self.column}" if self.line else ""
        without_place = replace(self, line=0)
        return f"{file}{place}: {without_place}"
