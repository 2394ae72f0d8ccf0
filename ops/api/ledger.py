"""Endpoints for the ledger."""

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
        raise ValueError("it is outside the years 1 to 9999 in UTC") from exc


Since = Annotated[
    Annotated[AwareDatetime, AfterValidator(_in_utc)] | None, Query(description="Since this time.")
]
OfRelease = Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="Only this release.")]
BeforeRow = Annotated[int | None, Query(ge=1, le=MAX_ID, description="IDs below this one.")]


class VerifiedShape(Shape):
    """Result of verifying the chain of hashes.

    Attributes:
        rows: Number of rows; keep the last row's ``hash`` elsewhere to detect a ledger that was
            rewritten.
        broken_at: First row at which the chain is broken.
    """

    holds: bool
    rows: int
    hash: str
    broken_at: int | None = None
    why: str = ""


@router.get("/ledger", summary="Who did what, newest first")
def rows(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    release: OfRelease = None,
    by: Annotated[Holder | None, Query(description="Only this actor.")] = None,
    since: Since = None,
    limit: Limit = 50,
    before: BeforeRow = None,
) -> Page[LedgerRow]:
    """Rows of one model, or of all for callers who may read all."""
    found = service.ledger.read(actor, LedgerQuery(model, release, by, since, limit, before))
    return page_of(found, limit, "id")


@router.get("/ledger/verification", summary="Verify the chain from its beginning")
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
