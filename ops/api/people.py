"""Addresses of persons, teams, departments, their grants and tokens."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from ops.access.grants import GrantRow
from ops.access.permissions import Grant, Kind, Permission
from ops.api.authentication import Authenticated, Served
from ops.api.shapes import (
    AfterId,
    AfterName,
    Holder,
    Limit,
    Number,
    Page,
    PrincipalName,
    Shape,
    page_of,
)

DEFAULT_DAYS = 90
MAX_DAYS = 3650

router = APIRouter(tags=["people"])
OfHolder = Annotated[Holder | None, Query(description="Of this one only.")]


class PrincipalShape(Shape):
    """A person, team or department."""

    name: str
    kind: Kind
    created_at: datetime
    disabled_at: datetime | None


class PrincipalBody(Shape):
    """Who is to be added."""

    name: str = Field(max_length=100)
    kind: Kind = Kind.PERSON


class GivenShape(Shape):
    """A permission on every model whose name fits."""

    holder: str
    kind: Kind
    permission: Permission
    pattern: str


class PortraitShape(PrincipalShape):
    """A principal with the groups it is in, those it holds, and what it may do."""

    groups: list[str]
    members: list[str]
    grants: list[GivenShape]


class GrantBody(Shape):
    """What is to be given."""

    holder: Holder
    permission: Permission
    pattern: str = Field(max_length=100)


class GrantShape(GivenShape):
    """A grant as it is kept."""

    id: int
    granted_by: str
    created_at: datetime


class TokenBody(Shape):
    """A token that is wanted.

    Attributes:
        holder: None: oneself.
        days: It counts for; None for one that never expires. Never longer than the token that
            it is made with.
    """

    holder: Holder | None = None
    days: int | None = Field(default=DEFAULT_DAYS, ge=1, le=MAX_DAYS, strict=True)


class TokenShape(Shape):
    """A token, without what is secret."""

    id: int
    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class IssuedShape(TokenShape):
    """A new token; ``token`` is never shown again.

    Attributes:
        ends_with_maker: It was wanted for longer than the token that it was made with counts,
            and ends with that one.
    """

    ends_with_maker: bool
    token: str = Field(repr=False)


@router.get("/me", summary="Who the token says I am, and what I may do")
def me(actor: Authenticated, service: Served) -> PortraitShape:
    """As `/principals/{name}`."""
    return show(actor, service, actor.name)


@router.get("/principals", summary="Persons, teams and departments")
def principals(
    actor: Authenticated,
    service: Served,
    kind: Annotated[list[Kind] | None, Query(description="Of these kinds alone.")] = None,
    limit: Limit = 50,
    after: AfterName = "",
) -> Page[PrincipalShape]:
    """By name."""
    kinds = tuple(kind or Kind)
    found = service.people.principals(actor, kinds, limit=limit, after=after)
    return Page[PrincipalShape].model_validate(page_of(found, limit, "name"))


@router.post("/principals", status_code=201, summary="Add a person, team or department")
def add(actor: Authenticated, service: Served, body: PrincipalBody) -> PrincipalShape:
    """It may do nothing until something is granted."""
    return PrincipalShape.model_validate(service.people.add(actor, body.name, body.kind))


@router.get("/principals/{name}", summary="One of them")
def show(actor: Authenticated, service: Served, name: PrincipalName) -> PortraitShape:
    """With groups, members and grants."""
    found = service.people.show(actor, name)
    return PortraitShape(
        **PrincipalShape.model_validate(found.principal).model_dump(),
        groups=list(found.groups),
        members=list(found.members),
        grants=[_given(grant) for grant in found.grants],
    )


@router.post("/principals/{name}/disable", summary="Have it count for nothing")
def disable(actor: Authenticated, service: Served, name: PrincipalName) -> PrincipalShape:
    """Its tokens and grants stay and do not help."""
    return PrincipalShape.model_validate(service.people.disable(actor, name))


@router.post("/principals/{name}/enable", summary="Have it count again")
def enable(actor: Authenticated, service: Served, name: PrincipalName) -> PrincipalShape:
    """With the tokens and grants that it has."""
    return PrincipalShape.model_validate(service.people.enable(actor, name))


@router.put("/principals/{name}/members/{member}", status_code=204, summary="Put into a group")
def join(actor: Authenticated, service: Served, name: PrincipalName, member: PrincipalName) -> None:
    """Teams hold persons; departments hold teams and departments."""
    service.people.join(actor, member, name)


@router.delete("/principals/{name}/members/{member}", status_code=204, summary="Take out of it")
def leave(
    actor: Authenticated, service: Served, name: PrincipalName, member: PrincipalName
) -> None:
    """What came through the group is gone at once."""
    service.people.leave(actor, member, name)


@router.get("/grants", summary="Permissions that are given")
def grants(
    actor: Authenticated,
    service: Served,
    holder: OfHolder = None,
    limit: Limit = 50,
    after: AfterId = 0,
) -> Page[GrantShape]:
    """By their numbers."""
    found = service.people.grants(actor, holder=holder, limit=limit, after_id=after)
    rows = [_kept(row) for row in found]
    return Page[GrantShape].model_validate(page_of(rows, limit, "id"))


@router.post("/grants", status_code=201, summary="Give a permission")
def give(actor: Authenticated, service: Served, body: GrantBody) -> GrantShape:
    """To a person, team or department, on a model or a pattern of names."""
    return _kept(service.people.give(actor, body.holder, body.permission, body.pattern))


@router.delete("/grants/{number}", summary="Take a permission away")
def take(actor: Authenticated, service: Served, number: Number) -> GrantShape:
    """Answers what it was."""
    return _kept(service.people.take(actor, number))


@router.get("/tokens", summary="Tokens, without what is secret")
def tokens(
    actor: Authenticated,
    service: Served,
    holder: OfHolder = None,
    limit: Limit = 50,
    after: AfterId = 0,
) -> Page[TokenShape]:
    """By their numbers; of oneself, or of all for an admin of all models."""
    found = service.people.tokens(actor, holder=holder, limit=limit, after_id=after)
    rows = [TokenShape.model_validate(token, from_attributes=True) for token in found]
    return Page[TokenShape].model_validate(page_of(rows, limit, "id"))


@router.post("/tokens", status_code=201, summary="Make a token")
def issue(
    actor: Authenticated, service: Served, body: TokenBody, response: Response
) -> IssuedShape:
    """The only time that it is shown. It does not outlive the token that it is made with."""
    response.headers["cache-control"] = "no-store"
    lifetime = None if body.days is None else timedelta(days=body.days)
    issued = service.people.issue(actor, body.holder or actor.name, lifetime=lifetime)
    shape = TokenShape.model_validate(issued.token)
    return IssuedShape(
        **shape.model_dump(), token=issued.secret, ends_with_maker=issued.ends_with_maker
    )


@router.delete("/tokens/{number}", summary="Have a token count no more")
def revoke(actor: Authenticated, service: Served, number: Number) -> TokenShape:
    """For good."""
    return TokenShape.model_validate(service.people.revoke(actor, number))


def _given(grant: Grant) -> GivenShape:
    return GivenShape.model_validate(grant)


def _kept(row: GrantRow) -> GrantShape:
    return GrantShape(
        **row.grant._asdict(), id=row.id, granted_by=row.granted_by, created_at=row.created_at
    )
