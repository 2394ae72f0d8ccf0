"""Addresses of costs and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from ops.cost import ALL_COLUMNS, Column
from ops.endpoints.caller import Caller, Served
from ops.endpoints.shapes import BeforeId, Limit, OfModel, Page, Shape, page_of
from ops.health_findings import Severity

MAX_DAYS = 366

router = APIRouter()


class BillShape(Shape):
    """A sum of usage.

    Attributes:
        model, version, team: None where not asked for; version also for consumers of pipelines.
        cpu_s, gpu_s: Reserved, in seconds.
        money: In the currency of the prices.
        per_million: Money for a million predictions; None without one.
    """

    model: str | None
    version: str | None
    team: str | None
    replica_s: float
    cpu_s: float
    gpu_s: float
    predictions: int
    money: float
    per_million: float | None


class CostsShape(Shape):
    """Bills since a moment, dearest first.

    Attributes:
        currency: None where the configuration has no prices; money is 0 then.
    """

    since: datetime
    currency: str | None
    bills: list[BillShape]


class AlertShape(Shape):
    """What somebody should see to; ``closed_at`` is None while it is so."""

    id: int
    key: str
    severity: Severity
    what: str
    hurts: str
    todo: str
    since: datetime
    opened_at: datetime
    closed_at: datetime | None


@router.get("/cost", tags=["cost"], summary="What models used, and what it cost")
def cost(
    actor: Caller,
    service: Served,
    model: OfModel = None,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Today and those before.")] = 1,
    by: Annotated[list[Column] | None, Query(description="What rows are told apart by.")] = None,
) -> CostsShape:
    """Of one model, or of all for who may read all. Days are those of UTC."""
    found = service.cost.bills(actor, model=model, days=days, by=by or ALL_COLUMNS)
    return CostsShape.model_validate(
        {
            "since": found.since,
            "currency": found.currency,
            "bills": [
                {name: getattr(bill, name) for name in BillShape.model_fields}
                for bill in found.bills
            ],
        }
    )


@router.get("/alerts", tags=["alerts"], summary="What somebody should see to, the newest first")
def alerts(
    actor: Caller,
    service: Served,
    closed: Annotated[bool, Query(description="Also those that are over.")] = False,
    limit: Limit = 50,
    before: BeforeId = None,
) -> Page[AlertShape]:
    """For everybody with a token."""
    found = service.alerts.page(actor, closed_too=closed, limit=limit, before_id=before)
    return Page[AlertShape].model_validate(page_of(found, limit, "id"))
