"""Addresses of releases."""

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
from ops.service.releases import Story

router = APIRouter(tags=["releases"])

Reason = Annotated[Text, Field(max_length=2_000)]


class StartBody(Shape):
    """A release to begin.

    Attributes:
        break_glass: Pass approvals, windows and interval by; takes a note and its permission.
    """

    version: int = Field(ge=1, le=MAX_NUMBER, strict=True)
    note: Reason = ""
    break_glass: bool = Field(default=False, strict=True)


class ReasonBody(Shape):
    """Why."""

    reason: Reason = ""


class ReleaseShape(Shape):
    """A release.

    Attributes:
        label: What the version is called on the wire.
        step: Of the canary, from 0.
        weight: Share of the records that the new version answers.
        previous: The version that was live when it began.
        takes: What people may do with it now, beside their approvals and rejections.
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


class StoryShape(Shape):
    """A release, the traffic of its model, and what happened so far.

    Attributes:
        since: When its step began, or an hour ago where that is longer.
        records: That each version had since then, answered or not.
    """

    release: ReleaseShape
    route: dict[str, Any] | None
    since: datetime
    records: dict[str, int]
    moves: list[LedgerRow]


@router.post("/models/{name}/releases", status_code=201, summary="Begin a release")
def start(actor: Authenticated, service: Served, name: ModelName, body: StartBody) -> ReleaseShape:
    """The operator takes it from there."""
    version = VersionId(name, body.version)
    done = service.releases.start(actor, version, note=body.note, break_glass=body.break_glass)
    return _shape(done)


def _vote(word: str, vote: Vote, summary: str, description: str) -> None:
    def cast(
        actor: Authenticated, service: Served, name: ModelName, body: ReasonBody
    ) -> ReleaseShape:
        return _shape(service.releases.decide(actor, name, vote, comment=body.reason))

    path = f"/models/{{name}}/release/{word}"
    router.post(path, name=word, summary=summary, description=description)(cast)


def _command(word: str, event: Event, summary: str, description: str) -> None:
    def run(
        actor: Authenticated, service: Served, name: ModelName, body: ReasonBody
    ) -> ReleaseShape:
        return _shape(service.releases.command(actor, name, event, reason=body.reason))

    path = f"/models/{{name}}/release/{word}"
    router.post(path, name=word, summary=summary, description=description)(run)


_vote(
    "approve",
    Vote.APPROVE,
    "Agree to the open release",
    "Bound to the version's bytes and to the policy in force; takes back one's rejection.",
)
_vote("reject", Vote.REJECT, "Reject the open release", "One rejection ends it.")
_command("pause", Event.PAUSE, "Hold it where it is", "Its traffic stays as it is.")
_command("resume", Event.RESUME, "Let it go on where it was paused", "Its step begins anew.")
_command("promote", Event.PROMOTE, "On to the next step at once", "Whatever its evidence.")
_command("abort", Event.ABORT, "End it", "The version that was live answers everything.")


@router.post("/models/{name}/rollback", summary="Back to the version that was live before")
def rollback(
    actor: Authenticated, service: Served, name: ModelName, body: ReasonBody
) -> ReleaseShape:
    """Never blocked by windows, intervals or approvals."""
    return _shape(service.releases.rollback(actor, name, reason=body.reason))


@router.get("/models/{name}/release", summary="The open release, else the last one")
def newest(actor: Authenticated, service: Served, name: ModelName) -> StoryShape:
    """With every move."""
    return _story(service.releases.newest(actor, name))


@router.get("/releases/{number}", summary="One release")
def show(actor: Authenticated, service: Served, number: Number) -> StoryShape:
    """With every move."""
    return _story(service.releases.show(actor, number))


@router.get("/releases", summary="Releases, newest first")
def history(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    limit: Limit = 50,
    before: BeforeId = None,
) -> Page[ReleaseShape]:
    """Of one model or of all."""
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


def _story(story: Story) -> StoryShape:
    return StoryShape(
        release=_shape(story.release),
        route=story.route.model_dump(mode="json") if story.route else None,
        since=story.since,
        records=dict(story.records),
        moves=story.told,
    )
