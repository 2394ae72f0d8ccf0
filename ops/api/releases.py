"""Endpoints for releases."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from ops.access.ledger import LedgerRow
from ops.api.authentication import Authenticated, Served
from ops.api.shapes import (
    MAX_NUMBER,
    BeforeId,
    Limit,
    ModelName,
    Number,
    OfModel,
    Page,
    Shape,
    Text,
    page_of,
)
from ops.catalogue.versions import VersionId
from ops.releases.approvals import Vote
from ops.releases.releases import Release
from ops.releases.state_machine import Event, asked, candidate_weight
from ops.service.releases import ReleaseHistory

router = APIRouter(tags=["releases"])

Reason = Annotated[Text, Field(max_length=2_000)]


class StartBody(Shape):
    """A release to start.

    Attributes:
        break_glass: Skip approvals, windows and interval; requires a note and `break-glass`.
    """

    version: int = Field(ge=1, le=MAX_NUMBER, strict=True)
    note: Reason = ""
    break_glass: bool = Field(default=False, strict=True)


class ReasonBody(Shape):
    """Reason of a command."""

    reason: Reason = ""


class ReleaseShape(Shape):
    """A release.

    Attributes:
        label: Name of the version in the routing table.
        step: Index of the canary step, from 0.
        weight: Fraction of the keys that the new version answers.
        previous: Version that was live when the release started.
        takes: Commands that are possible now, besides approvals and rejections.
    """

    id: int
    model: str
    version: int
    label: str
    state: str
    step: int
    weight: float
    previous: int | None
    is_rollback: bool
    author: str
    note: str
    created_at: datetime
    entered_at: datetime
    ended_at: datetime | None
    version_digest: str
    policy_digest: str
    takes: list[str]


class HistoryShape(Shape):
    """A release, the traffic of its model, and its transitions so far.

    Attributes:
        since: Start of its current step, at most one hour ago.
        records: Number of records that each version received since then, answered or not.
    """

    release: ReleaseShape
    route: dict[str, Any] | None
    since: datetime
    records: dict[str, int]
    moves: list[LedgerRow]


@router.post("/models/{name}/releases", status_code=201, summary="Start a release")
def start(actor: Authenticated, service: Served, name: ModelName, body: StartBody) -> ReleaseShape:
    """The operator carries it out."""
    version = VersionId(name, body.version)
    done = service.releases.start(actor, version, note=body.note, break_glass=body.break_glass)
    return _shape(done)


def _command(act: Vote | Event, summary: str, description: str) -> None:
    """Serve a vote on the open release of a model, or a command to it, under its own name."""

    def run(
        actor: Authenticated, service: Served, name: ModelName, body: ReasonBody
    ) -> ReleaseShape:
        if isinstance(act, Vote):
            done = service.releases.decide(actor, name, act, comment=body.reason)
        else:
            done = service.releases.command(actor, name, act, reason=body.reason)
        return _shape(done)

    path = f"/models/{{name}}/release/{act}"
    router.post(path, name=str(act), summary=summary, description=description)(run)


_command(
    Vote.APPROVE,
    "Approve the open release",
    "Bound to the version's bytes and to the policy in effect; withdraws the caller's rejection.",
)
_command(Vote.REJECT, "Reject the open release", "One rejection ends it.")
_command(Event.PAUSE, "Pause the open release", "Its traffic stays as it is.")
_command(Event.RESUME, "Resume the paused release", "Its step starts again.")
_command(Event.PROMOTE, "Move to the next step at once", "Regardless of its evidence.")
_command(Event.ABORT, "Abort the open release", "The live version answers all records.")


@router.post("/models/{name}/rollback", summary="Return to the version that was live before")
def rollback(
    actor: Authenticated, service: Served, name: ModelName, body: ReasonBody
) -> ReleaseShape:
    """Never blocked by windows, intervals or approvals."""
    return _shape(service.releases.rollback(actor, name, reason=body.reason))


@router.get("/models/{name}/release", summary="The open release, or the last one")
def newest(actor: Authenticated, service: Served, name: ModelName) -> HistoryShape:
    """Includes every transition."""
    return _history_shape(service.releases.newest(actor, name))


@router.get("/releases/{number}", summary="One release")
def show(actor: Authenticated, service: Served, number: Number) -> HistoryShape:
    """Includes every transition."""
    return _history_shape(service.releases.show(actor, number))


@router.get("/releases", summary="Releases, newest first")
def history(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    limit: Limit = 50,
    before: BeforeId = None,
) -> Page[ReleaseShape]:
    """Releases of one model, or of all models."""
    found = service.releases.history(actor, model, limit=limit, before_id=before)
    return page_of([_shape(release) for release in found], limit, "id")


def _shape(release: Release) -> ReleaseShape:
    position = release.position
    own = {
        "state": position.state,
        "step": position.step,
        "weight": candidate_weight(position, release.plan),
        "takes": [str(event) for event in asked(position)],
    }
    others = ReleaseShape.model_fields.keys() - own.keys()
    return ReleaseShape.model_validate(own | {name: getattr(release, name) for name in others})


def _history_shape(found: ReleaseHistory) -> HistoryShape:
    return HistoryShape(
        release=_shape(found.release),
        route=found.route.model_dump(mode="json") if found.route else None,
        since=found.since,
        records=dict(found.records),
        moves=found.moves,
    )
