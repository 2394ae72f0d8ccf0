"""Explains whether a version may be released now, and if not, what is missing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ops.analysis.gates import GateResult
from ops.config.duration import in_words
from ops.policy.policy import Policy
from ops.policy.windows import is_open, next_opening
from ops.releases.approvals import Approval, ApprovalCount, Subject, count_approvals

ROLLBACK = "A rollback is never blocked by any of this."
# Within this time a weekday alone identifies the day.
WEEK = timedelta(days=6)


class Obstacle(StrEnum):
    """Kind of obstacle that can block a release."""

    LIVE = "live"
    OPEN_RELEASE = "open-release"
    GATE = "gate"
    REJECTION = "rejection"
    APPROVAL = "approval"
    CADENCE = "cadence"
    WINDOW = "window"


# Obstacles that a person may bypass by breaking the glass.
PASSABLE = {
    Obstacle.APPROVAL: "the approvals",
    Obstacle.CADENCE: "the interval",
    Obstacle.WINDOW: "the windows",
}
# Obstacles that end without any action.
PASSING = frozenset((Obstacle.CADENCE, Obstacle.WINDOW))


class OpenRelease(NamedTuple):
    """A release of the same model that has not ended.

    Attributes:
        version: Version number, as text.
        state: State as shown to people, such as ``canary``.
    """

    version: str
    state: str


class ExplainedRelease(NamedTuple):
    """Facts about a version that is to be released.

    Attributes:
        version: Version number, as text.
        author: Person who registered it.
        version_digest: Digest of its bytes.
        gates: Gate results; None before they are judged, which a release does first.
        approvals: All decisions that were given.
        members: Members of each team who may approve; teams may be missing.
        live: Number of the version that serves; None if none does.
        last_live_at: When the last version went live; aware; None if none ever did.
        open_release: Open release of this model; a version's own release does not block it.
        may_break_glass: Whether the caller may break the glass.
    """

    version: str
    author: str
    version_digest: str
    gates: Sequence[GateResult] | None = None
    approvals: Sequence[Approval] = ()
    members: Mapping[str, frozenset[str]] = {}
    live: str | None = None
    last_live_at: datetime | None = None
    open_release: OpenRelease | None = None
    may_break_glass: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """One obstacle to a release.

    Attributes:
        sentence: Description of the obstacle and of what would remove it.
        from_whom: People who could remove it; empty if there are none or none are known.
        until: When it ends without any action; None if it does not.
    """

    obstacle: Obstacle
    sentence: str
    from_whom: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of whether a version may be released.

    Attributes:
        may_go: Whether it may be released now.
        sentences: The whole answer, for people.
        missing: The obstacles, lasting ones before temporary ones.
        earliest: When it may be released if everything else is provided by then; None if
            unknown.
    """

    may_go: bool
    sentences: tuple[str, ...]
    missing: tuple[Missing, ...]
    earliest: datetime | None


def explain(policy: Policy, facts: ExplainedRelease, now: datetime) -> Explanation:
    """Explain whether a version may be released now, and if not, what is missing and from whom.

    Args:
        policy: Policy in force for its model.
        now: Current time; aware.
    """
    subject = Subject(facts.author, facts.version_digest, policy.digest())
    counted = count_approvals(policy.approvals, facts.approvals, subject)
    missing = (
        *_others_in_the_way(policy, facts),
        *_failed_gates(facts),
        *_approvals_missing(policy, facts, counted),
        *_cadence(policy, facts, now),
        *_windows(policy, now),
    )
    earliest = _earliest(policy, facts, now)
    name = f"{policy.model}@{facts.version}"
    head = f"{name} may not be released now." if missing else f"{name} may be released now."
    sentences = [head, *(item.sentence for item in missing), *_notes(facts, counted)]
    if missing:
        sentences += _ways_on(policy, facts, missing, earliest, now)
    return Explanation(not missing, (*sentences, ROLLBACK), missing, earliest)


def _others_in_the_way(policy: Policy, facts: ExplainedRelease) -> list[Missing]:
    if facts.live == facts.version:
        return [Missing(Obstacle.LIVE, f"{policy.model}@{facts.version} is already live.")]
    other = facts.open_release
    if other is None or other.version == facts.version:
        return []
    sentence = (
        f"A release of {policy.model}@{other.version} is still open (state {other.state}); wait "
        "for it, or abort it."
    )
    return [Missing(Obstacle.OPEN_RELEASE, sentence)]


def _failed_gates(facts: ExplainedRelease) -> list[Missing]:
    failed = [gate for gate in facts.gates or () if not gate.passed]
    return [Missing(Obstacle.GATE, f"Gate {g.name} failed: {g.sentence}") for g in failed]


def _approvals_missing(
    policy: Policy, facts: ExplainedRelease, counted: ApprovalCount
) -> list[Missing]:
    found = [
        Missing(Obstacle.REJECTION, f"Rejected by {person}, who can withdraw it.", (person,))
        for person in counted.rejected_by
    ]
    for rule in policy.approvals:
        if rule.team in counted.missing:
            found.append(_approval_missing(rule.team, facts, counted))
    return found


def _approval_missing(team: str, facts: ExplainedRelease, counted: ApprovalCount) -> Missing:
    """Describe what one team lacks: who approved, whose vote is void and who could approve."""
    count = counted.missing[team]
    members = facts.members.get(team, frozenset())
    counting = {person for people in counted.counted.values() for person in people}
    able = tuple(sorted(members - counting - {facts.author}))
    notes = [f"has {', '.join(counted.counted[team])}"] if counted.counted[team] else []
    notes += [void.reason for void in counted.void if team in void.approval.teams]
    if facts.author in members and not any("is the author" in note for note in notes):
        notes.append(f"{facts.author} is the author and cannot approve")
    if able:
        notes.append(f"{', '.join(able)} could")
    elif team in facts.members:
        notes.append("no other member may approve")
    what = f"{count} approval{'s' if count > 1 else ''} from team {team}"
    return Missing(Obstacle.APPROVAL, f"Missing: {what}{_in_brackets(notes)}.", able)


def _in_brackets(notes: Sequence[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""


def _cadence(policy: Policy, facts: ExplainedRelease, now: datetime) -> list[Missing]:
    over = _cadence_over(policy, facts)
    if facts.last_live_at is None or over is None or over <= now:
        return []
    sentence = (
        f"Not now: the last release went live {in_words(now - facts.last_live_at)} ago; the policy "
        f"requires {in_words(policy.cadence.min_interval)} between releases, which end in "
        f"{in_words(over - now)}."
    )
    return [Missing(Obstacle.CADENCE, sentence, until=over)]


def _cadence_over(policy: Policy, facts: ExplainedRelease) -> datetime | None:
    return facts.last_live_at and facts.last_live_at + policy.cadence.min_interval


def _windows(policy: Policy, now: datetime) -> list[Missing]:
    state = is_open(policy.windows, now)
    if state.open:
        return []
    change, zone = state.next_change, state.time_zone
    opens = "no window opens within two years"
    if change is not None:
        opens = f"the next allowed window opens on {_moment(change, zone, now)}"
    sentence = f"Not now: {opens}; {state.reason}."
    if policy.outside_windows == "refuse":
        sentence += " The policy refuses releases outside the windows: start it then."
    return [Missing(Obstacle.WINDOW, sentence, until=change)]


def _moment(at: datetime, time_zone: str, now: datetime) -> str:
    """Format as ``Monday 09:00 Europe/Berlin (in 2 d 4 h)``, with the date if further away."""
    local = at.astimezone(ZoneInfo(time_zone))
    day = f"{local:%A}" if at - now < WEEK else f"{local:%A} {local:%Y-%m-%d}"
    return f"{day} {local:%H:%M} {time_zone} (in {in_words(at - now)})"


def _earliest(policy: Policy, facts: ExplainedRelease, now: datetime) -> datetime | None:
    over = _cadence_over(policy, facts)
    return next_opening(policy.windows, max(now, over) if over else now)


def _notes(facts: ExplainedRelease, counted: ApprovalCount) -> list[str]:
    """Return remarks that do not block the release."""
    notes = [] if facts.gates is not None else ["Its gates are judged when the release starts."]
    reported = counted.missing.keys()
    voids = [void for void in counted.void if not void.approval.teams & reported]
    return [*notes, *(f"Does not count: {void.reason}." for void in voids)]


def _ways_on(
    policy: Policy,
    facts: ExplainedRelease,
    missing: Sequence[Missing],
    earliest: datetime | None,
    now: datetime,
) -> list[str]:
    obstacles = {item.obstacle for item in missing}
    ways = []
    waits = policy.outside_windows == "wait" or Obstacle.WINDOW not in obstacles
    if obstacles <= PASSING and waits and earliest is not None:
        zone = is_open(policy.windows, now).time_zone
        ways.append(f"Nothing else is missing: it starts on {_moment(earliest, zone, now)}.")
    if obstacles <= PASSABLE.keys() and facts.may_break_glass:
        passed = " and ".join(words for kind, words in PASSABLE.items() if kind in obstacles)
        ways.append(
            f"You may break the glass and bypass {passed}; this needs a reason and is marked in "
            "the ledger."
        )
    return ways
