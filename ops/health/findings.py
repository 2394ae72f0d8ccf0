"""One finding of health: its shape, the worst of several, since when. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

# The last judgement, in the state directory: for who cannot ask the operator any more.
REPORT_FILE: Final = "health.json"


class Severity(StrEnum):
    """How bad something is, mildest first."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"

    @property
    def grade(self) -> int:
        """0, 1 or 2; also the exit code of ``bertstream health``."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        key: The same in every round, such as ``pipeline/reviews/lag``.
        what: What is so, in a sentence.
        since: For how long it has been at least this bad, or fine.
        hurts: What does not work because of it; empty where all is well.
        todo: What to do about it; empty where all is well.
    """

    key: str
    severity: Severity
    what: str
    since: datetime
    hurts: str = ""
    todo: str = ""

    @property
    def is_trouble(self) -> bool:
        """Whether somebody should know."""
        return self.severity is not Severity.OK


def fine(key: str, what: str, since: datetime) -> Finding:
    """Nothing is wrong there."""
    return Finding(key, Severity.OK, what, since)


def worst(findings: Iterable[Finding]) -> Severity:
    """Of all findings; OK where there are none."""
    severities = {finding.severity for finding in findings}
    return max(severities, key=lambda severity: severity.grade, default=Severity.OK)


def remembered(findings: Iterable[Finding], earlier: Iterable[Finding]) -> list[Finding]:
    """Findings with the time since when they stand, worst first.

    Args:
        findings: Of this round.
        earlier: Of the round before.
    """
    before = {finding.key: finding for finding in earlier}
    known = [_since(finding, before.get(finding.key)) for finding in findings]
    return sorted(known, key=lambda finding: (-finding.severity.grade, finding.key))


def _since(finding: Finding, before: Finding | None) -> Finding:
    if before is None or before.is_trouble != finding.is_trouble:
        return finding
    return replace(finding, since=min(before.since, finding.since))
