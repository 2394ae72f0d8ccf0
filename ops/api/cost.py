"""Addresses of costs and alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import BeforeId, Limit, OfModel, Page, Shape, page_of
from ops.cost.advice import LOWER_AFTER_H, RAISE_AFTER_H
from ops.cost.billing import ALL_COLUMNS, Column
from ops.health.alerts import Alert

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


class AdviceShape(Shape):
    """A change that somebody should consider.

    Attributes:
        version: Its label.
        setting: That would change.
        saving_per_day: Negative where it costs more; None where it depends on the load, or where
            there are no prices.
    """

    model: str
    version: str
    setting: str
    sentence: str
    saving_per_day: float | None


class WatchedShape(Shape):
    """A version that runs, and what it did since it has the size that it has.

    Attributes:
        version: Its label.
        observed_h: For how many hours it was watched.
        replicas: Mean count.
        busy_at_min: Share of their time that replicas worked while the minimum ran; None where
            that was too seldom.
        at_min_share: Share of the time in which no more than the minimum ran.
        lagging_share: Share of the time in which all ran that may, and there was a backlog.
    """

    model: str
    version: str
    observed_h: float
    replicas: float
    busy_at_min: float | None
    at_min_share: float
    lagging_share: float


class AdvisedShape(Shape):
    """Advice, largest saving first, and what it goes by.

    Attributes:
        raise_after_h, lower_after_h: So long a version is watched before it is advised to make
            something larger, or smaller.
    """

    since: datetime
    currency: str | None
    raise_after_h: float
    lower_after_h: float
    watched: list[WatchedShape]
    advice: list[AdviceShape]


@router.get("/cost", tags=["cost"], summary="What models used, and what it cost")
def cost(
    actor: Authenticated,
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


@router.get("/cost/advice", tags=["cost"], summary="What would be cheaper or faster")
def advice(
    actor: Authenticated,
    service: Served,
    model: OfModel = None,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Whose load counts.")] = 7,
) -> AdvisedShape:
    """From the measured load of one model, or of all for who may read all."""
    found = service.cost.advice(actor, model=model, days=days)
    return AdvisedShape(
        since=found.since,
        currency=found.currency,
        raise_after_h=RAISE_AFTER_H,
        lower_after_h=LOWER_AFTER_H,
        watched=[WatchedShape.model_validate(one) for one in found.watched],
        advice=[AdviceShape.model_validate(one) for one in found.advice],
    )


@router.get("/alerts", tags=["alerts"], summary="What somebody should see to, the newest first")
def alerts(
    actor: Authenticated,
    service: Served,
    closed: Annotated[bool, Query(description="Also those that are over.")] = False,
    limit: Limit = 50,
    before: BeforeId = None,
) -> Page[Alert]:
    """For everybody with a token."""
    found = service.alerts.page(actor, closed_too=closed, limit=limit, before_id=before)
    return Page[Alert].model_validate(page_of(found, limit, "id"))
