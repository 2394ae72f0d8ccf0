"""Endpoints for costs and alerts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import BeforeId, Limit, OfModel, Page, page_of
from ops.cost.billing import ALL_COLUMNS, Column
from ops.health.alerts import Alert
from ops.service.cost import Advised, Costs

MAX_DAYS = 366

router = APIRouter()


@router.get("/cost", tags=["cost"], summary="Usage and costs of models")
def cost(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Days, up to today.")] = 1,
    by: Annotated[list[Column] | None, Query(description="Columns to group by.")] = None,
) -> Costs:
    """One model, or all models for callers who may read all. Days are in UTC."""
    return service.cost.bills(actor, model=model, days=days, by=by or ALL_COLUMNS)


@router.get("/cost/advice", tags=["cost"], summary="What would be cheaper or faster")
def advice(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Days of load, up to today.")] = 7,
) -> Advised:
    """Based on the measured load of one model, or of all for callers who may read all."""
    return service.cost.advice(actor, model=model, days=days)


@router.get("/alerts", tags=["alerts"], summary="Problems that need an operator, newest first")
def alerts(
    actor: Authenticated,
    service: Served,
    closed: Annotated[bool, Query(description="Include closed alerts.")] = False,
    limit: Limit = 50,
    before: BeforeId = None,
) -> Page[Alert]:
    """Open to everyone with a token; shows alerts that the caller may read."""
    found = service.alerts.page(actor, closed_too=closed, limit=limit, before_id=before)
    return page_of(found, limit, "id")
