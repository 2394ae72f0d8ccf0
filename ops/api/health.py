"""Endpoint for health. ``/healthz`` and ``/readyz`` are in ``app``: they require no token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import Shape
from ops.health.findings import Finding, Severity
from ops.health.readings import Readings

router = APIRouter(tags=["health"])
_READINGS = TypeAdapter(Readings | None)


class HealthShape(Shape):
    """Health of the platform.

    Attributes:
        status: Severity of the worst finding; ``grade`` is 0, 1 or 2 for it.
        at: Time of the last check; ``age_s`` is how long ago that was.
        findings: Findings that the caller may read, worst first.
        hidden: Number of findings that the caller may not read.
        readings: Measurements behind the findings; None if the caller may not read all models.
    """

    status: Severity
    grade: int
    at: datetime
    age_s: float
    findings: list[Finding]
    hidden: int
    readings: dict[str, Any] | None


@router.get("/health", summary="Health of the platform")
def health(actor: Authenticated, service: Served) -> HealthShape:
    """Result of the last check, some seconds old; this call checks nothing itself."""
    shown = service.health.latest(actor)
    found = shown.health
    return HealthShape(
        status=shown.status,
        grade=shown.status.grade,
        hidden=shown.hidden,
        at=found.at,
        age_s=round((datetime.now(UTC) - found.at).total_seconds(), 3),
        findings=[*found.findings],
        readings=_READINGS.dump_python(found.readings, mode="json"),
    )
