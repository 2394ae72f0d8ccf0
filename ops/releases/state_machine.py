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


class State(StrEnum):
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
STEPS: Final = frozenset({State.SHADOW, State.CANARY, State.BAKE})
ENDED: Final = frozenset({State.LIVE, State.ROLLED_BACK, State.ABORTED, State.SUPERSEDED})
_WITH_CANDIDATE: Final = STEPS | {State.LOADING, State.LIVE, State.ROLLING_BACK}


class Position(NamedTuple):
    """Where a release stands, exactly.

    Attributes:
        step: Of the canary, from 0; 0 elsewhere.
        resume: Where a paused release goes on; None for any other.
    """

    state: State
    step: int = 0
    resume: State | None = None


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
            return Position(State.SHADOW)
        return self._canary_or_beyond(0)

    def following(self, position: Position) -> Position:
        """Where a passed step leads."""
        match position.state:
            case State.SHADOW:
                return self._canary_or_beyond(0)
            case State.CANARY:
                return self._canary_or_beyond(position.step + 1)
            case _:
                return Position(State.LIVE)

    def _canary_or_beyond(self, step: int) -> Position:
        if step < len(self.weights):
            return Position(State.CANARY, step)
        return Position(State.BAKE if self.bake else State.LIVE)


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
_TABLE: Final[dict[State, dict[Event, State | _Move]]] = {
    State.DRAFT: {
        Event.GATES_PASSED: State.GATED,
        Event.GATES_FAILED: State.ABORTED,
        Event.POLICY_CHANGED: _Move.STAY,
        Event.ABORT: State.ABORTED,
        Event.REJECTED: State.ABORTED,
    },
    State.GATED: {
        Event.APPROVAL_NEEDED: State.AWAITING_APPROVAL,
        Event.APPROVED: State.SCHEDULED,
        Event.POLICY_CHANGED: State.DRAFT,
        Event.REJECTED: State.ABORTED,
        Event.ABORT: State.ABORTED,
    },
    State.AWAITING_APPROVAL: {
        Event.APPROVED: State.SCHEDULED,
        Event.APPROVAL_VOIDED: _Move.STAY,
        Event.POLICY_CHANGED: State.DRAFT,
        Event.REJECTED: State.ABORTED,
        Event.ABORT: State.ABORTED,
    },
    State.SCHEDULED: {
        Event.MAY_GO: State.LOADING,
        Event.APPROVAL_VOIDED: State.AWAITING_APPROVAL,
        Event.POLICY_CHANGED: State.DRAFT,
        Event.REJECTED: State.ABORTED,
        Event.PAUSE: _Move.PAUSE,
        Event.ABORT: State.ABORTED,
    },
    State.LOADING: {
        Event.LOADED: _Move.FIRST,
        Event.LOAD_FAILED: State.ABORTED,
        Event.REJECTED: State.ABORTED,
        Event.ABORT: State.ABORTED,
        Event.ROLLBACK: State.ABORTED,
    },
    State.SHADOW: {
        Event.STEP_PASSED: _Move.NEXT,
        Event.STEP_FAILED: State.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: _Move.NEXT,
        Event.ABORT: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
    State.CANARY: {
        Event.STEP_PASSED: _Move.NEXT,
        Event.STEP_FAILED: State.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: _Move.NEXT,
        Event.ABORT: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
    State.BAKE: {
        Event.STEP_PASSED: State.LIVE,
        Event.STEP_FAILED: State.ROLLING_BACK,
        Event.STEP_INCONCLUSIVE: _Move.PAUSE,
        Event.PAUSE: _Move.PAUSE,
        Event.PROMOTE: State.LIVE,
        Event.ABORT: State.ROLLING_BACK,
        Event.ROLLBACK: State.ROLLING_BACK,
    },
    State.PAUSED: {
        Event.RESUME: _Move.RESUME,
        Event.PROMOTE: _Move.NEXT,
        # It still answers records: what fails it while it waits takes it back.
        Event.STEP_FAILED: _Move.BACK,
        Event.ABORT: _Move.BACK,
        Event.ROLLBACK: _Move.BACK,
    },
    State.ROLLING_BACK: {
        Event.RESTORED: State.ROLLED_BACK,
        # Asked again, by a person or by a verdict that came late.
        Event.ROLLBACK: _Move.STAY,
        Event.ABORT: _Move.STAY,
        Event.STEP_FAILED: _Move.STAY,
    },
    State.LIVE: {Event.SUPERSEDE: State.SUPERSEDED},
    State.ROLLED_BACK: {},
    State.ABORTED: {},
    State.SUPERSEDED: {},
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
        case State():
            return Position(target)
        case _Move.STAY:
            return position
        case _Move.FIRST:
            return plan.first()
        case _Move.PAUSE:
            return Position(State.PAUSED, position.step, position.state)
        case _Move.RESUME:
            return _within(position)
        case _Move.BACK:
            # Paused before it loaded, it has answered nothing that there is to go back from.
            in_step = position.resume in STEPS
            return Position(State.ROLLING_BACK if in_step else State.ABORTED)
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
    if position.state is State.SUPERSEDED:
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
            "shadow": live if within.state is State.BAKE else candidate,
            "shadow_share": 1.0 if within.state is State.SHADOW else MIRROR_SHARE,
        }
    )


def candidate_weight(position: Position, plan: Plan) -> float:
    """Share of the records that the new version answers."""
    match _within(position):
        case Position(State.CANARY, step):
            return plan.weights[step]
        case Position(State.BAKE | State.LIVE):
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
