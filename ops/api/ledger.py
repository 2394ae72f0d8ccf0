"""Addresses of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, AwareDatetime

from ops.access.ledger import LedgerQuery, LedgerRow
from ops.api.authentication import Authenticated, Served
from ops.api.shapes import MAX_NUMBER, Holder, Limit, OfModel, Page, Shape, page_of

MAX_ID = 2**63 - 1

router = APIRouter(tags=["ledger"])


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("it lies outside of the years 1 to 9999 in UTC") from exc


Since = Annotated[
    Annotated[AwareDatetime, AfterValidator(_in_utc)] | None, Query(description="From then on.")
]
OfRelease = Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Of this release alone.")]
BeforeRow = Annotated[int | None, Query(ge=1, le=MAX_ID, description="Rows below this one.")]


class VerifiedShape(Shape):
    """Whether the chain holds.

    Attributes:
        rows: How many there are; the last one's ``hash`` noted elsewhere shows a ledger that was
            written anew.
        broken_at: The first row at which it does not hold.
    """

    holds: bool
    rows: int
    hash: str
    broken_at: int | None = None
    why: str = ""


@router.get("/ledger", summary="Who did what, the newest first")
def rows(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    release: OfRelease = None,
    by: Annotated[Holder | None, Query(description="Of this actor alone.")] = None,
    since: Since = None,
    limit: Limit = 50,
    before: BeforeRow = None,
) -> Page[LedgerRow]:
    """Of one model, or of all for who may read all."""
    found = service.ledger.read(actor, LedgerQuery(model, release, by, since, limit, before))
    return page_of(found, limit, "id")


@router.get("/ledger/verification", summary="Follow the chain from its beginning")
def verify(actor: Authenticated, service: Served) -> VerifiedShape:
    """Takes some ten seconds for a million rows."""
    head, broken = service.ledger.verify(actor)
    return VerifiedShape(
        holds=broken is None,
        rows=head.last_id,
        hash=head.hash,
        broken_at=broken and broken.id,
        why=broken.why if broken else "",
    )
