"""May this version go out now, and if not, what is missing and from whom. Pure."""

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
from ops.releases.approvals import Approval, ApprovalCount, Subject, tally

ROLLBACK = "A rollback is never blocked by any of this."
# Nearer than that a weekday alone says which day is meant.
WEEK = timedelta(days=6)


class Obstacle(StrEnum):
    """What can be in the way of a release; each of its own kind."""

    LIVE = "live"
    OPEN_RELEASE = "open-release"
    GATE = "gate"
    REJECTION = "rejection"
    APPROVAL = "approval"
    CADENCE = "cadence"
    WINDOW = "window"


# Where somebody with the right to break the glass may pass.
PASSABLE = {
    Obstacle.APPROVAL: "the approvals",
    Obstacle.CADENCE: "the interval",
    Obstacle.WINDOW: "the windows",
}
# What goes away by itself.
PASSING = frozenset((Obstacle.CADENCE, Obstacle.WINDOW))


class OpenRelease(NamedTuple):
    """A release of the same model that is not over.

    Attributes:
        version: Its number, as text.
        state: As people read it, such as ``canary``.
    """

    version: str
    state: str


class ExplainedRelease(NamedTuple):
    """What is known of a version that is to go out.

    Attributes:
        version: Its number, as text.
        author: Who registered it.
        version_digest: Of its bytes.
        gates: Results; None where they were not judged yet, which a release does first.
        approvals: All that were given.
        members: Of each team, who may approve; teams may be missing.
        live: Number of the version that serves; None where none does.
        last_live_at: When the last version went live; aware; None where none ever did.
        open_release: Of this model; its own is not in a version's way.
        may_break_glass: Whether whoever asks has that right.
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
    """One thing in the way.

    Attributes:
        sentence: What it is, and what would remove it.
        from_whom: People who could give it; empty where nobody can or nobody is known.
        until: When it is gone by itself; None where it is not.
    """

    obstacle: Obstacle
    sentence: str
    from_whom: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer.

    Attributes:
        may_go: Whether it may go out now.
        sentences: The whole answer, for people.
        missing: What is in the way, the lasting before the passing.
        earliest: When it may go out if all that is missing by then is given; None where nobody
            can say.
    """

    may_go: bool
    sentences: tuple[str, ...]
    missing: tuple[Missing, ...]
    earliest: datetime | None


def explain(policy: Policy, facts: ExplainedRelease, now: datetime) -> Explanation:
    """Say whether a version may go out now, and if not, what is missing and from whom.

    Args:
        policy: In force for its model.
        now: Aware.
    """
    subject = Subject(facts.author, facts.version_digest, policy.digest())
    counted = tally(policy.approvals, facts.approvals, subject)
    missing = (
        *_others_in_the_way(policy, facts),
        *_failed_gates(facts),
        *_approvals_missing(policy, facts, counted),
        *_cadence(policy, facts, now),
        *_windows(policy, now),
    )
    earliest = _earliest(policy, facts, now)
    name = f"{policy.model}@{facts.version}"
    head = f"{name} may not go out now." if missing else f"{name} may go out now."
    sentences = [head, *(item.sentence for item in missing), *_notes(facts, counted)]
    if missing:
        sentences += _ways_on(policy, facts, missing, earliest, now)
    return Explanation(not missing, (*sentences, ROLLBACK), missing, earliest)


def _others_in_the_way(policy: Policy, facts: ExplainedRelease) -> list[Missing]:
    if facts.live == facts.version:
        return [Missing(Obstacle.LIVE, f"{policy.model}@{facts.version} is live already.")]
    other = facts.open_release
    if other is None or other.version == facts.version:
        return []
    sentence = (
        f"A release of {policy.model}@{other.version} is not over (it is in {other.state}); wait "
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
        Missing(Obstacle.REJECTION, f"Rejected by {person}, who can take it back.", (person,))
        for person in counted.rejected_by
    ]
    for rule in policy.approvals:
        if rule.team in counted.missing:
            found.append(_approval_missing(rule.team, facts, counted))
    return found


def _approval_missing(team: str, facts: ExplainedRelease, counted: ApprovalCount) -> Missing:
    """One team's; with who gave theirs, whose does not count, and who could give it."""
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
        notes.append("nobody else is in it")
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
        f"wants {in_words(policy.cadence.min_interval)} between, which are over in "
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
        sentence += " The policy refuses a release that is started outside: start it then."
    return [Missing(Obstacle.WINDOW, sentence, until=change)]


def _moment(at: datetime, time_zone: str, now: datetime) -> str:
    """``Monday 09:00 Europe/Berlin (in 2 d 4 h)``; with its date where it is further away."""
    local = at.astimezone(ZoneInfo(time_zone))
    day = f"{local:%A}" if at - now < WEEK else f"{local:%A} {local:%Y-%m-%d}"
    return f"{day} {local:%H:%M} {time_zone} (in {in_words(at - now)})"


def _earliest(policy: Policy, facts: ExplainedRelease, now: datetime) -> datetime | None:
    over = _cadence_over(policy, facts)
    return next_opening(policy.windows, max(now, over) if over else now)


def _notes(facts: ExplainedRelease, counted: ApprovalCount) -> list[str]:
    """What is not in the way and yet to be known."""
    notes = [] if facts.gates is not None else ["Its gates are judged when the release starts."]
    told_already = counted.missing.keys()
    voids = [void for void in counted.void if not void.approval.teams & told_already]
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
        ways.append(f"Nothing else is missing: it goes out on {_moment(earliest, zone, now)}.")
    if obstacles <= PASSABLE.keys() and facts.may_break_glass:
        passed = " and ".join(words for kind, words in PASSABLE.items() if kind in obstacles)
        ways.append(
            f"You may break the glass and pass {passed}; that needs a reason and is marked in the "
            "ledger."
        )
    return ways
