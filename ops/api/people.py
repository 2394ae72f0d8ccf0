"""Addresses of persons, teams, departments, their grants and tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from ops.access.grants import GrantRow
from ops.access.people import Principal
from ops.access.permissions import Kind, Permission
from ops.access.tokens import Token
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
from ops.service.people import PrincipalProfile

DEFAULT_DAYS = 90
MAX_DAYS = 3650

router = APIRouter(tags=["people"])
OfHolder = Annotated[Holder | None, Query(description="Of this one only.")]


class PrincipalBody(Shape):
    """Who is to be added."""

    name: str = Field(max_length=100)
    kind: Kind = Kind.PERSON


class GrantBody(Shape):
    """What is to be given."""

    holder: Holder
    permission: Permission
    pattern: str = Field(max_length=100)


class TokenBody(Shape):
    """A token that is wanted.

    Attributes:
        holder: None: oneself.
        days: It counts for; None for one that never expires. Never longer than the token that
            it is made with.
    """

    holder: Holder | None = None
    days: int | None = Field(default=DEFAULT_DAYS, ge=1, le=MAX_DAYS, strict=True)


@dataclass(frozen=True)
class IssuedShape(Token):
    """A new token; ``token`` is never shown again.

    Attributes:
        ends_with_maker: It was wanted for longer than the token that it was made with counts,
            and ends with that one.
    """

    ends_with_maker: bool
    token: str = field(repr=False)


@router.get("/me", summary="Who the token says I am, and what I may do")
def me(actor: Authenticated, service: Served) -> PrincipalProfile:
    """As `/principals/{name}`."""
    return show(actor, service, actor.name)


@router.get("/principals", summary="Persons, teams and departments")
def principals(
    actor: Authenticated,
    service: Served,
    kind: Annotated[list[Kind] | None, Query(description="Of these kinds alone.")] = None,
    limit: Limit = 50,
    after: AfterName = "",
) -> Page[Principal]:
    """By name."""
    kinds = tuple(kind or Kind)
    found = service.people.principals(actor, kinds, limit=limit, after=after)
    return page_of(found, limit, "name")


@router.post("/principals", status_code=201, summary="Add a person, team or department")
def add(actor: Authenticated, service: Served, body: PrincipalBody) -> Principal:
    """It may do nothing until something is granted."""
    return service.people.add(actor, body.name, body.kind)


@router.get("/principals/{name}", summary="One of them")
def show(actor: Authenticated, service: Served, name: PrincipalName) -> PrincipalProfile:
    """With groups, members and grants."""
    return service.people.show(actor, name)


@router.post("/principals/{name}/disable", summary="Have it count for nothing")
def disable(actor: Authenticated, service: Served, name: PrincipalName) -> Principal:
    """Its tokens and grants stay and do not help."""
    return service.people.disable(actor, name)


@router.post("/principals/{name}/enable", summary="Have it count again")
def enable(actor: Authenticated, service: Served, name: PrincipalName) -> Principal:
    """With the tokens and grants that it has."""
    return service.people.enable(actor, name)


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
) -> Page[GrantRow]:
    """By their numbers."""
    found = service.people.grants(actor, holder=holder, limit=limit, after_id=after)
    return page_of(found, limit, "id")


@router.post("/grants", status_code=201, summary="Give a permission")
def give(actor: Authenticated, service: Served, body: GrantBody) -> GrantRow:
    """To a person, team or department, on a model or a pattern of names."""
    return service.people.give(actor, body.holder, body.permission, body.pattern)


@router.delete("/grants/{number}", summary="Take a permission away")
def take(actor: Authenticated, service: Served, number: Number) -> GrantRow:
    """Answers what it was."""
    return service.people.take(actor, number)


@router.get("/tokens", summary="Tokens, without what is secret")
def tokens(
    actor: Authenticated,
    service: Served,
    holder: OfHolder = None,
    limit: Limit = 50,
    after: AfterId = 0,
) -> Page[Token]:
    """By their numbers; of oneself, or of all for an admin of all models."""
    found = service.people.tokens(actor, holder=holder, limit=limit, after_id=after)
    return page_of(found, limit, "id")


@router.post("/tokens", status_code=201, summary="Make a token")
def issue(
    actor: Authenticated, service: Served, body: TokenBody, response: Response
) -> IssuedShape:
    """The only time that it is shown. It does not outlive the token that it is made with."""
    response.headers["cache-control"] = "no-store"
    lifetime = None if body.days is None else timedelta(days=body.days)
    issued = service.people.issue(actor, body.holder or actor.name, lifetime=lifetime)
    return IssuedShape(
        **asdict(issued.token), token=issued.secret, ends_with_maker=issued.ends_with_maker
    )


@router.delete("/tokens/{number}", summary="Have a token count no more")
def revoke(actor: Authenticated, service: Served, number: Number) -> Token:
    """For good."""
    return service.people.revoke(actor, number)
