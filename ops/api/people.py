"""Endpoints for people, teams, departments, their grants and tokens."""

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
OfHolder = Annotated[Holder | None, Query(description="Only this holder.")]


class PrincipalBody(Shape):
    """A person, team or department to add."""

    name: str = Field(max_length=100)
    kind: Kind = Kind.PERSON


class GrantBody(Shape):
    """A permission to grant."""

    holder: Holder
    permission: Permission
    pattern: str = Field(max_length=100)


class TokenBody(Shape):
    """A token to create.

    Attributes:
        holder: Person who will use it; None for the caller.
        days: Lifetime; None for a token that never expires. Limited by the lifetime of the token
            that creates it.
    """

    holder: Holder | None = None
    days: int | None = Field(default=DEFAULT_DAYS, ge=1, le=MAX_DAYS, strict=True)


@dataclass(frozen=True)
class IssuedShape(Token):
    """A new token; ``token`` is never shown again.

    Attributes:
        ends_with_maker: True if a longer lifetime was requested than that of the token that
            created it; it expires with that token.
    """

    ends_with_maker: bool
    token: str = field(repr=False)


@router.get("/me", summary="The caller and the caller's permissions")
def me(actor: Authenticated, service: Served) -> PrincipalProfile:
    """Same as `/principals/{name}` for the caller."""
    return show(actor, service, actor.name)


@router.get("/principals", summary="People, teams and departments")
def principals(
    actor: Authenticated,
    service: Served,
    kind: Annotated[list[Kind] | None, Query(description="Only these kinds.")] = None,
    limit: Limit = 50,
    after: AfterName = "",
) -> Page[Principal]:
    """Sorted by name."""
    kinds = tuple(kind or Kind)
    found = service.people.principals(actor, kinds, limit=limit, after=after)
    return page_of(found, limit, "name")


@router.post("/principals", status_code=201, summary="Add a person, team or department")
def add(actor: Authenticated, service: Served, body: PrincipalBody) -> Principal:
    """It has no permissions until some are granted."""
    return service.people.add(actor, body.name, body.kind)


@router.get("/principals/{name}", summary="One person, team or department")
def show(actor: Authenticated, service: Served, name: PrincipalName) -> PrincipalProfile:
    """Includes groups, members and grants."""
    return service.people.show(actor, name)


@router.post("/principals/{name}/disable", summary="Disable it")
def disable(actor: Authenticated, service: Served, name: PrincipalName) -> Principal:
    """Its tokens and grants are kept but have no effect."""
    return service.people.disable(actor, name)


@router.post("/principals/{name}/enable", summary="Enable it again")
def enable(actor: Authenticated, service: Served, name: PrincipalName) -> Principal:
    """Its tokens and grants take effect again."""
    return service.people.enable(actor, name)


@router.put("/principals/{name}/members/{member}", status_code=204, summary="Add to a group")
def join(actor: Authenticated, service: Served, name: PrincipalName, member: PrincipalName) -> None:
    """Teams contain people; departments contain teams and departments."""
    service.people.join(actor, member, name)


@router.delete("/principals/{name}/members/{member}", status_code=204, summary="Remove from it")
def leave(
    actor: Authenticated, service: Served, name: PrincipalName, member: PrincipalName
) -> None:
    """Permissions through the group are lost at once."""
    service.people.leave(actor, member, name)


@router.get("/grants", summary="Granted permissions")
def grants(
    actor: Authenticated,
    service: Served,
    holder: OfHolder = None,
    limit: Limit = 50,
    after: AfterId = 0,
) -> Page[GrantRow]:
    """Sorted by ID."""
    found = service.people.grants(actor, holder=holder, limit=limit, after_id=after)
    return page_of(found, limit, "id")


@router.post("/grants", status_code=201, summary="Grant a permission")
def give(actor: Authenticated, service: Served, body: GrantBody) -> GrantRow:
    """Grants it to a person, team or department, on a model or a pattern of names."""
    return service.people.give(actor, body.holder, body.permission, body.pattern)


@router.delete("/grants/{number}", summary="Revoke a permission")
def take(actor: Authenticated, service: Served, number: Number) -> GrantRow:
    """Returns the revoked grant."""
    return service.people.take(actor, number)


@router.get("/tokens", summary="Tokens, without their secrets")
def tokens(
    actor: Authenticated,
    service: Served,
    holder: OfHolder = None,
    limit: Limit = 50,
    after: AfterId = 0,
) -> Page[Token]:
    """Sorted by ID; the caller's own, or those of everyone for an admin of all models."""
    found = service.people.tokens(actor, holder=holder, limit=limit, after_id=after)
    return page_of(found, limit, "id")


@router.post("/tokens", status_code=201, summary="Create a token")
def issue(
    actor: Authenticated, service: Served, body: TokenBody, response: Response
) -> IssuedShape:
    """Only this response shows the secret. Expires no later than the token that creates it."""
    response.headers["cache-control"] = "no-store"
    lifetime = None if body.days is None else timedelta(days=body.days)
    issued = service.people.issue(actor, body.holder or actor.name, lifetime=lifetime)
    return IssuedShape(
        **asdict(issued.token), token=issued.secret, ends_with_maker=issued.ends_with_maker
    )


@router.delete("/tokens/{number}", summary="Revoke a token")
def revoke(actor: Authenticated, service: Served, number: Number) -> Token:
    """Cannot be undone."""
    return service.people.revoke(actor, number)
