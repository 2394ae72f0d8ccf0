"""The states of a release, what moves it from one to the next, and the traffic of each; pure.

``after`` is the whole machine: one table, read by a person from top to bottom, with an answer for
every pair of state and event. What happens in the world follows from the state alone
(``routes_of``, ``apps_of``), so that whoever takes over from an operator that died goes on from
the row it finds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from ops.analysis.limits import MIRROR_SHARE
from stream.schema import ControlRecord, VersionRoute


class ReleaseState(StrEnum):
    """Where a release stands."""

    DRAFT = "draft"  # started; its gates are not judged yet
    GATED = "gated"  # its gates are passed
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"  # waits for a window and for the cadence
    LOADING = "loading"  # its replicas start beside those of the live version
    SHADOW = "shadow"  # it answers live records, and nobody sees its answers
    CANARY = "canary"  # it answers a share of the keys
    BAKE = "bake"  # it answers everything, the old version stays ready
    LIVE = "live"
    PAUSED = "paused"  # waits for a person; the traffic stays as it was
    ROLLING_BACK = "rolling_back"  # the old version answers everything; not everyone follows yet
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"  # ended before it answered a record
    SUPERSEDED = "superseded"  # was live; another version is


class Event(StrEnum):
    """What happened to a release."""

    GATES_PASSED = "gates_passed"
    GATES_FAILED = "gates_failed"
    APPROVAL_NEEDED = "approval_needed"
    APPROVED = "approved"
    APPROVAL_VOIDED = "approval_voided"
    POLICY_CHANGED = "policy_changed"  # since its gates were judged
    REJECTED = "rejected"
    MAY_GO = "may_go"  # the window is open and the cadence kept
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    STEP_PASSED = "step_passed"
    STEP_FAILED = "step_failed"
    STEP_INCONCLUSIVE = "step_inconclusive"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"  # a person lets it go on to the next step
    ABORT = "abort"
    ROLLBACK = "rollback"
    RESTORED = "restored"  # every consumer follows the route back
    SUPERSEDE = "supersede"


# What people may ask for; the operator finds all others by itself.
ASKED: Final = frozenset({Event.PAUSE, Event.RESUME, Event.PROMOTE, Event.ABORT, Event.ROLLBACK})
STEPS: Final = frozenset({ReleaseState.SHADOW, ReleaseState.CANARY, ReleaseState.BAKE})
ENDED: Final = frozenset(
    {ReleaseState.LIVE, ReleaseState.ROLLED_BACK, ReleaseState.ABORTED, ReleaseState.SUPERSEDED}
)
_WITH_CANDIDATE: Final = STEPS | {
    ReleaseState.LOADING,
    ReleaseState.LIVE,
    ReleaseState.ROLLING_BACK,
}


class Position(NamedTuple):
    """Where a release stands, exactly.

    Attributes:
        step: Of the canary, from 0; 0 elsewhere.
        resume: Where a paused release goes on; None for any other.
    """

    state: ReleaseState
    step: int = 0
    resume: ReleaseState | None = None


class Plan(NamedTuple):
    """The steps between loading and live, as the policy orders them.

    Attributes:
        shadow, bake: Whether there is one.
        weights: Of the canary's steps, rising, each in (0, 1).
    """

    shadow: bool
    weights: tuple[float, ...]
    bake: bool

    def first(self) -> Position:
        """Where a loaded version goes."""
        if self.shadow:
            return Position(ReleaseState.SHADOW)
        return self._canary_or_beyond(0)

    def following(self, position: Position) -> Position:
        """Where a passed step leads."""
        match position.state:
            case ReleaseState.SHADOW:
                return self._canary_or_beyond(0)
            case ReleaseState.CANARY:
                return self._canary_or_beyond(position.step + 1)
            case _:
                return Position(ReleaseState.LIVE)

    def _canary_or_beyond(self, step: int) -> Position:
        if step < len(self.weights):
            return Position(ReleaseState.CANARY, step)
        return Position(ReleaseState.BAKE if self.bake else ReleaseState.LIVE)


_NO_STEPS: Final = Plan(shadow=False, weights=(), bake=False)


class _Move(StrEnum):
    """How to find the next position where the state and the event alone do not say it."""

    STAY = "stay"
    FIRST = "first"  # the first step of the plan
    NEXT = "next"  # the step after this one
    PAUSE = "pause"
    RESUME = "resume"  # where it was paused
    BACK = "back"  # to the old version, if this one has answered anything


# state: event: where it leads, or how to find that.
_TABLE: Final[dict[ReleaseState, dict[Event, ReleaseState | _Move]]] = {
    ReleaseState.DRAFT: {
        Event.GATES_PASSED: ReleaseState.GATED,
        Event.GATES_FAILED: ReleaseState.ABORTED,
        Event.POLICY_CHANGED: _Move.STAY,
        Event.ABORT: ReleaseState.ABORTED,
        Event.REJECTED: ReleaseState.ABORTED,
    },
    ReleaseState.GATED: {
        Event.APPROVAL_NEEDED: ReleaseState.AWAITING_APPROVAL,
        Event.APPROVED: ReleaseState.SCHEDULED,
        Event.POLICY_CHANGED: ReleaseState.DRAFT,
        Event.REJECTED: ReleaseState.ABORTED,
        Event.ABORT: ReleaseState.ABORTED,
    },
    ReleaseState.AWAITING_APPROVAL: {
        Event.APPROVED: ReleaseState.SCHEDULED,
        Event.APPROVAL_VOIDED: _Move.STAY,
        Event.POLICY_CHANGED: ReleaseState.DRAFT,
        Event.REJECTED: ReleaseState.ABORTED,
        Event.ABORT: ReleaseState.ABORTED,
    },
    ReleaseState.SCHEDULED: {
        Event.MAY_GO: ReleaseState.LOADING,
        Event.APPROVAL_VOIDED: ReleaseState.AWAITING_APPROVAL,
        Event.POLICY_CHANGED: ReleaseState.DRAFT,
        Event.REJECTED: ReleaseState.ABORTED,
        Event.PAUSE: _Move.PAUSE,
        Event.ABORT: ReleaseState.ABORTED,
    },
    ReleaseState.LOADING: {
        Event.LOADED: _Move.FIRST,
        Event.LOAD_FAILED: ReleaseState.ABORTED,
        Event.REJECTED: ReleaseState.ABORTED,
        Event.ABORT: ReleaseState.ABORTED,
        Event.ROLLBACK: ReleaseState.ABORTED,
    },
    ReleaseState.SHADOW: {
        Event.STEP_PASSED: _Move.NEXT,
        Event.STEP_FAILED: ReleaseState.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: _Move.NEXT,
        Event.ABORT: ReleaseState.ROLLING_BACK,
        Event.ROLLBACK: ReleaseState.ROLLING_BACK,
    },
    ReleaseState.CANARY: {
        Event.STEP_PASSED: _Move.NEXT,
        Event.STEP_FAILED: ReleaseState.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: _Move.NEXT,
        Event.ABORT: ReleaseState.ROLLING_BACK,
        Event.ROLLBACK: ReleaseState.ROLLING_BACK,
    },
    ReleaseState.BAKE: {
        Event.STEP_PASSED: ReleaseState.LIVE,
        Event.STEP_FAILED: ReleaseState.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: ReleaseState.LIVE,
        Event.ABORT: ReleaseState.ROLLING_BACK,
        Event.ROLLBACK: ReleaseState.ROLLING_BACK,
    },
    ReleaseState.PAUSED: {
        Event.RESUME: _Move.RESUME,
        Event.PROMOTE: _Move.NEXT,
        # It still answers records: what fails it while it waits takes it back.
        Event.STEP_FAILED: _Move.BACK,
        Event.ABORT: _Move.BACK,
        Event.ROLLBACK: _Move.BACK,
    },
    ReleaseState.ROLLING_BACK: {
        Event.RESTORED: ReleaseState.ROLLED_BACK,
        # Asked again, by a person or by a verdict that came late.
        Event.ROLLBACK: _Move.STAY,
        Event.ABORT: _Move.STAY,
        Event.STEP_FAILED: _Move.STAY,
    },
    ReleaseState.LIVE: {Event.SUPERSEDE: ReleaseState.SUPERSEDED},
    ReleaseState.ROLLED_BACK: {},
    ReleaseState.ABORTED: {},
    ReleaseState.SUPERSEDED: {},
}


def after(position: Position, event: Event, plan: Plan) -> Position | None:
    """Where an event leads.

    Returns:
        None where the event means nothing in that state: it is refused and changes nothing.
    """
    target = _TABLE[position.state].get(event)
    match target:
        case None:
            return None
        case ReleaseState():
            return Position(target)
        case _Move.STAY:
            return position
        case _Move.FIRST:
            return plan.first()
        case _Move.PAUSE:
            return Position(ReleaseState.PAUSED, position.step, position.state)
        case _Move.RESUME:
            return _within(position)
        case _Move.BACK:
            # Paused before it loaded, it has answered nothing that there is to go back from.
            in_step = position.resume in STEPS
            return Position(ReleaseState.ROLLING_BACK if in_step else ReleaseState.ABORTED)
        case _Move.NEXT:
            within = _within(position)
            # A release that was paused before it loaded has no step to skip.
            return plan.following(within) if within.state in STEPS else None


def _within(position: Position) -> Position:
    """Where a paused release was and goes on; any other position is itself."""
    return position if position.resume is None else Position(position.resume, position.step)


def allowed(position: Position) -> list[Event]:
    """The events that mean something now, whatever the plan is."""
    events = _TABLE[position.state]
    return [event for event in events if after(position, event, _NO_STEPS) is not None]


def asked(position: Position) -> list[Event]:
    """Those of ``allowed`` that people may ask for."""
    return [event for event in allowed(position) if event in ASKED]


class Sides(NamedTuple):
    """The two versions of a release, as they are called on the wire.

    Attributes:
        live: The version that answered before; None for a model's first.
        digests: Of their model directories; None takes whichever is served.
    """

    live: str | None
    candidate: str
    digests: dict[str, str | None]


def routes_of(
    position: Position, plan: Plan, sides: Sides, *, model: str, epoch: int
) -> ControlRecord | None:
    """The traffic that a position asks for.

    Returns:
        None where it asks for none: a model's first release, before it is live, and one whose
        successor has a route of its own.
    """
    if position.state is ReleaseState.SUPERSEDED:
        return None
    live, candidate = sides.live, sides.candidate
    weight = candidate_weight(position, plan)
    if live is None:
        return _route(model, epoch, {candidate: 1.0}, sides) if weight == 1.0 else None
    within = _within(position)
    if within.state not in STEPS:
        return _route(model, epoch, {candidate if weight == 1.0 else live: 1.0}, sides)
    shares = {live: 1 - weight, candidate: weight}
    return _route(model, epoch, shares, sides).model_copy(
        update={
            "fallback": live,
            "shadow": live if within.state is ReleaseState.BAKE else candidate,
            "shadow_share": 1.0 if within.state is ReleaseState.SHADOW else MIRROR_SHARE,
        }
    )


def candidate_weight(position: Position, plan: Plan) -> float:
    """Share of the records that the new version answers."""
    match _within(position):
        case Position(ReleaseState.CANARY, step):
            return plan.weights[step]
        case Position(ReleaseState.BAKE | ReleaseState.LIVE):
            return 1.0
        case _:
            return 0.0


def needs_candidate(position: Position) -> bool:
    """Whether the new version's replicas must be there: its route names it, or may soon, or did
    and is still followed."""
    return _within(position).state in _WITH_CANDIDATE


def _route(model: str, epoch: int, shares: dict[str, float], sides: Sides) -> ControlRecord:
    versions = {
        version: VersionRoute(digest=sides.digests.get(version), weight=share)
        for version, share in shares.items()
    }
    return ControlRecord(model=model, epoch=epoch, versions=versions)
