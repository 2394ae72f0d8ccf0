"""Findings of health checks: their fields, their order and the worst of several. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

# The last report, kept in the state directory for use when the operator no longer answers.
REPORT_FILE: Final = "health.json"


class Severity(StrEnum):
    """Severity of a finding, mildest first."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"

    @property
    def grade(self) -> int:
        """Grade 0, 1 or 2; also the exit code of ``bertstream health``."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """The result of one check, good or bad.

    Attributes:
        key: Identifier, the same in every round, such as ``pipeline/reviews/lag``.
        what: The state found, in one sentence.
        since: When the problem, or its absence, began.
        hurts: What does not work because of the problem; empty if there is none.
        todo: What to do about the problem; empty if there is none.
    """

    key: str
    severity: Severity
    what: str
    since: datetime
    hurts: str = ""
    todo: str = ""

    @property
    def is_trouble(self) -> bool:
        """Return whether this finding is a problem."""
        return self.severity is not Severity.OK


def fine(key: str, what: str, since: datetime) -> Finding:
    """Return a finding that reports no problem."""
    return Finding(key, Severity.OK, what, since)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the worst severity of all findings; OK if there are none."""
    severities = {finding.severity for finding in findings}
    return max(severities, key=lambda severity: severity.grade, default=Severity.OK)


def remembered(findings: Iterable[Finding], earlier: Iterable[Finding]) -> list[Finding]:
    """Return findings with the time since which they hold, worst first.

    Args:
        findings: Findings of this round.
        earlier: Findings of the previous round.
    """
    before = {finding.key: finding for finding in earlier}
    known = [_since(finding, before.get(finding.key)) for finding in findings]
    return sorted(known, key=lambda finding: (-finding.severity.grade, finding.key))


def _since(finding: Finding, before: Finding | None) -> Finding:
    if before is None or before.is_trouble != finding.is_trouble:
        return finding
    return replace(finding, since=min(before.since, finding.since))
