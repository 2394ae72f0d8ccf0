"""Reads a policy's YAML text and reports every mistake with its place. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from ops.config.settings import KeyPath
from ops.config.yaml_document import message_of, read
from ops.errors import PolicyError
from ops.policy.policy import Analysis, ApprovalRule, CanaryStep, MetricGate, Policy, Rollout
from ops.policy.windows import ReleaseWindow, Windows, ever_starts, next_opening
from ops.problems import Problem, ProblemSeverity
from serve.settings import Settings

MAX_BYTES = 65_536
# A step that needs a faster stream than this is assumed to be a typing error.
PLAUSIBLE_RECORDS_PER_S = 10_000

PolicyPart = TypeVar("PolicyPart", bound=Settings)


class ContentFault(NamedTuple):
    """A mistake at a path of the content."""

    steps: KeyPath
    message: str
    severity: ProblemSeverity = ProblemSeverity.ERROR


def load(text: str, *, now: datetime) -> Policy:
    """Read a policy.

    Args:
        now: Current time, aware; windows are searched from here on.
    Raises:
        PolicyError: The policy has mistakes; the message lists them all. Not retriable.
    """
    policy, problems = examine(text, now=now)
    if policy is None:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise PolicyError(f"the policy cannot be used:\n{lines}")
    return policy


def check(text: str, *, now: datetime) -> list[Problem]:
    """Return every mistake in a policy, in the order of its lines.

    Args:
        now: Current time, aware; windows are searched from here on.
    """
    return examine(text, now=now)[1]


def examine(text: str, *, now: datetime) -> tuple[Policy | None, list[Problem]]:
    """Read a policy and report every mistake in it, in the order of its lines.

    Args:
        now: Current time, aware; windows are searched from here on.
    Returns:
        The policy, None if a mistake makes it unusable, and the mistakes.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        return None, [Problem(0, 0, "", f"a policy has at most {MAX_BYTES:,} bytes")]
    document = read(text, expected="model, windows, gates, rollout", aliases=False)
    if isinstance(document, Problem):
        return None, [document]
    problems = [*document.keys_twice()]
    policy = None
    try:
        policy = Policy.model_validate(document.content)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            problems.append(document.problem(tuple(error["loc"]), message_of(error, Policy)))
    problems += [document.problem(*finding) for finding in conflicts(document.content, now)]
    usable = all(problem.severity == ProblemSeverity.WARNING for problem in problems)
    return (policy if usable else None), sorted(problems)


def conflicts(content: dict[str, Any], now: datetime) -> Iterator[ContentFault]:
    """Yield conflicts between parts of a policy that may each be valid.

    Args:
        content: Content of the file as written: keys may be missing, values of any type. A part
            that is invalid in itself is skipped.
    """
    yield from _gate_conflicts(_items(MetricGate, content, "gates"))
    yield from _approval_conflicts(_items(ApprovalRule, content, "approvals"))
    yield from _window_conflicts(content.get("windows"), now)
    steps = content.get("rollout")
    yield from _canary_conflicts(_items(CanaryStep, steps, "canary", above=("rollout",)))
    rollout, analysis = _part(Rollout, content, "rollout"), _part(Analysis, content, "analysis")
    if rollout is not None:
        yield from _rollout_conflicts(rollout)
    if analysis is not None:
        yield from _analysis_conflicts(analysis)


def _gate_conflicts(gates: list[tuple[KeyPath, MetricGate]]) -> Iterator[ContentFault]:
    seen: set[str] = set()
    for steps, gate in gates:
        fitting, other = "at_least", "at_most"
        if gate.direction == "lower":
            fitting, other = other, fitting
        if getattr(gate, other) is not None:
            message = f"where {gate.direction} is better the bound is {fitting}, not {other}"
            yield ContentFault((*steps, other), message)
        elif getattr(gate, fitting) is None and gate.not_worse_by is None:
            yield ContentFault(
                steps, f"a gate needs {fitting} or not_worse_by; without one, all would pass"
            )
        if gate.name in seen:
            yield ContentFault(steps, f"there is a gate on {gate.name} above; merge the two")
        seen.add(gate.name)


def _approval_conflicts(rules: list[tuple[KeyPath, ApprovalRule]]) -> Iterator[ContentFault]:
    seen: set[str] = set()
    for steps, rule in rules:
        if rule.team in seen:
            yield ContentFault((*steps, "team"), f"team {rule.team} is listed above; merge the two")
        seen.add(rule.team)


def _window_conflicts(content: Any, now: datetime) -> Iterator[ContentFault]:
    allow = _items(ReleaseWindow, content, "allow", above=("windows",))
    never = [steps for steps, window in allow if not ever_starts(window, now)]
    for steps in never:
        yield ContentFault((*steps, "cron"), "no date matches it, so the window would never open")
    windows = _part(Windows, {"windows": content or {}}, "windows")
    if windows is None or never or next_opening(windows, now) is not None:
        return
    message = "with these windows no release could start within two years"
    yield ContentFault(("windows", "deny"), f"{message}: they deny all that is allowed")


def _canary_conflicts(canary: list[tuple[KeyPath, CanaryStep]]) -> Iterator[ContentFault]:
    for (_, before), (steps, step) in pairwise(canary):
        if step.weight <= before.weight:
            message = f"weights must rise: {step.weight:g} comes after {before.weight:g}"
            yield ContentFault((*steps, "weight"), message)
    for steps, step in canary:
        if not step.records:
            message = "with 0 records the step passes without checking the version"
            yield ContentFault((*steps, "records"), message, ProblemSeverity.WARNING)
        yield from _rate_warning(steps, step.records / step.weight, step)


def _rollout_conflicts(rollout: Rollout) -> Iterator[ContentFault]:
    bake = rollout.bake
    judged = [step.records for step in rollout.canary] + ([bake.records] if bake else [])
    if not judged:
        message = "without canary and bake a version could never be rolled back automatically"
        yield ContentFault(("rollout",), f"{message}; set one of them")
    elif not any(judged):
        message = "with 0 records in every step a version could never be rolled back automatically"
        yield ContentFault(("rollout",), f"{message}; set records of one of them")
    if rollout.shadow is not None:
        yield from _rate_warning(("rollout", "shadow"), rollout.shadow.records, rollout.shadow)
    if bake is not None:
        yield from _rate_warning(("rollout", "bake"), bake.records, bake)
        if bake.timeout < bake.duration:
            message = "it is shorter than duration, so the bake would always be inconclusive"
            yield ContentFault(("rollout", "bake", "timeout"), message, ProblemSeverity.WARNING)


def _rate_warning(steps: KeyPath, records: float, step: Any) -> Iterator[ContentFault]:
    """Warn if no plausible stream has ``records`` within the step's timeout."""
    needed = records / step.timeout.total_seconds()
    if needed > PLAUSIBLE_RECORDS_PER_S:
        message = f"to finish in time the stream would need {needed:,.0f} records/s"
        yield ContentFault((*steps, "timeout"), message, ProblemSeverity.WARNING)


def _analysis_conflicts(analysis: Analysis) -> Iterator[ContentFault]:
    latency = analysis.latency
    measured = latency is not None and (latency.max_ratio or latency.max_p99_ms)
    if analysis.errors is None and analysis.labels is None and not measured:
        message = "with errors, latency and labels off, nothing could fail a serving version"
        yield ContentFault(("analysis",), f"{message}; it would never be rolled back automatically")
    elif latency is not None and not measured:
        message = (
            "neither max_ratio nor max_p99_ms is set, so nothing is checked; use null for that"
        )
        yield ContentFault(("analysis", "latency"), message, ProblemSeverity.WARNING)


def _items(
    kind: type[PolicyPart], content: Any, key: str, *, above: KeyPath = ()
) -> list[tuple[KeyPath, PolicyPart]]:
    """Return the valid items of a list, with their paths."""
    items = content.get(key) if isinstance(content, dict) else None
    numbered = enumerate(items if isinstance(items, list) else ())
    parts = (((*above, key, index), _valid(kind, item)) for index, item in numbered)
    return [(at, part) for at, part in parts if part is not None]


def _part(kind: type[PolicyPart], content: dict[str, Any], key: str) -> PolicyPart | None:
    """Return a part, with its defaults if it is absent; None if it is invalid."""
    return _valid(kind, content.get(key, {}))


def _valid(kind: type[PolicyPart], content: Any) -> PolicyPart | None:
    try:
        return kind.model_validate(content)
    except ValidationError:
        return None
