"""The states of a release, the events that change them, and the traffic of each state; pure.

``after`` is the whole machine: one table with an answer for every pair of state and event. All
side effects follow from the state alone (``routes_of``, ``needs_candidate``), so that an operator
that replaces a dead one continues from the row it finds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from ops.analysis.limits import MIRROR_SHARE
from stream.schema import ControlRecord, VersionRoute


class ReleaseState(StrEnum):
    """State of a release."""

    DRAFT = "draft"  # started; its gates have not been judged yet
    GATED = "gated"  # its gates have passed
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"  # waits for a window and for the cadence
    LOADING = "loading"  # its replicas start alongside those of the live version
    SHADOW = "shadow"  # it answers live records, but its answers are discarded
    CANARY = "canary"  # it answers a fraction of the keys
    BAKE = "bake"  # it answers all records; the old version stays ready
    LIVE = "live"
    PAUSED = "paused"  # waits for a person; the traffic stays as it was
    ROLLING_BACK = "rolling_back"  # the old version answers; some consumers do not follow yet
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"  # ended before it answered a record
    SUPERSEDED = "superseded"  # was live; another version now is


class Event(StrEnum):
    """Event that changes the state of a release."""

    GATES_PASSED = "gates_passed"
    GATES_FAILED = "gates_failed"
    APPROVAL_NEEDED = "approval_needed"
    APPROVED = "approved"
    APPROVAL_VOIDED = "approval_voided"
    POLICY_CHANGED = "policy_changed"  # since its gates were judged
    REJECTED = "rejected"
    MAY_GO = "may_go"  # the window is open and the cadence is met
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    STEP_PASSED = "step_passed"
    STEP_FAILED = "step_failed"
    STEP_INCONCLUSIVE = "step_inconclusive"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"  # a person advances it to the next step
    ABORT = "abort"
    ROLLBACK = "rollback"
    RESTORED = "restored"  # every consumer follows the restored route
    SUPERSEDE = "supersede"


# Events that people may request; the operator raises all others.
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
    """Exact position of a release.

    Attributes:
        step: Index of the canary step; 0 in other states.
        resume: State in which a paused release continues; None for any other.
    """

    state: ReleaseState
    step: int = 0
    resume: ReleaseState | None = None


class Plan(NamedTuple):
    """The steps between loading and live, as set by the policy.

    Attributes:
        shadow, bake: Whether the plan has this step.
        weights: Weights of the canary steps, rising, each in (0, 1).
    """

    shadow: bool
    weights: tuple[float, ...]
    bake: bool

    def first(self) -> Position:
        """Return the position after loading."""
        if self.shadow:
            return Position(ReleaseState.SHADOW)
        return self._canary_or_beyond(0)

    def following(self, position: Position) -> Position:
        """Return the position after a passed step."""
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
    """Rule for the next position where state and event alone do not determine it."""

    STAY = "stay"
    FIRST = "first"  # the first step of the plan
    NEXT = "next"  # the step after this one
    PAUSE = "pause"
    RESUME = "resume"  # where it was paused
    BACK = "back"  # to the old version, if this one has answered any record


# state: event: next state, or the rule to find it.
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
        # It still answers records, so a failure while it waits rolls it back.
        Event.STEP_FAILED: _Move.BACK,
        Event.ABORT: _Move.BACK,
        Event.ROLLBACK: _Move.BACK,
    },
    ReleaseState.ROLLING_BACK: {
        Event.RESTORED: ReleaseState.ROLLED_BACK,
        # Requested again by a person, or by a late verdict.
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
    """Return the position that an event leads to.

    Returns:
        None if the state does not accept the event: it is refused and changes nothing.
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
            # A release paused before it loaded has answered nothing, so no rollback is needed.
            in_step = position.resume in STEPS
            return Position(ReleaseState.ROLLING_BACK if in_step else ReleaseState.ABORTED)
        case _Move.NEXT:
            within = _within(position)
            # A release that was paused before it loaded has no step to skip.
            return plan.following(within) if within.state in STEPS else None


def _within(position: Position) -> Position:
    """Return the position in which a paused release continues; any other position unchanged."""
    return position if position.resume is None else Position(position.resume, position.step)


def allowed(position: Position) -> list[Event]:
    """Return the events accepted now, whatever the plan is."""
    events = _TABLE[position.state]
    return [event for event in events if after(position, event, _NO_STEPS) is not None]


def asked(position: Position) -> list[Event]:
    """Return the ``allowed`` events that people may request."""
    return [event for event in allowed(position) if event in ASKED]


class Sides(NamedTuple):
    """The two versions of a release, by their labels.

    Attributes:
        live: The version that answered before; None for a model's first.
        digests: Digests of their model directories; None accepts any that is served.
    """

    live: str | None
    candidate: str
    digests: dict[str, str | None]


def routes_of(
    position: Position, plan: Plan, sides: Sides, *, model: str, epoch: int
) -> ControlRecord | None:
    """Return the route for a position.

    Returns:
        None where no route is needed: a model's first release before it is live, and one whose
        successor has its own route.
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
    """Return the fraction of records that the new version answers."""
    match _within(position):
        case Position(ReleaseState.CANARY, step):
            return plan.weights[step]
        case Position(ReleaseState.BAKE | ReleaseState.LIVE):
            return 1.0
        case _:
            return 0.0


def needs_candidate(position: Position) -> bool:
    """Return whether the new version's replicas must run: a route that is, will be or was in
    force, and may still be followed, names it."""
    return _within(position).state in _WITH_CANDIDATE


def _route(model: str, epoch: int, shares: dict[str, float], sides: Sides) -> ControlRecord:
    versions = {
        version: VersionRoute(digest=sides.digests.get(version), weight=share)
        for version, share in shares.items()
    }
    return ControlRecord(model=model, epoch=epoch, versions=versions)
