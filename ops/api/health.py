"""Address of health. ``/healthz`` and ``/readyz`` are of ``api``: they take no token."""

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
    """How the platform stands.

    Attributes:
        status: Of the worst finding; ``grade`` is 0, 1 or 2 for it.
        at: When it was looked at, and ``age_s`` how long ago that is.
        findings: The worst first; those of models that the caller may read.
        hidden: Findings that the caller may not read.
        readings: What they follow from; None for who may not read all models.
    """

    status: Severity
    grade: int
    at: datetime
    age_s: float
    findings: list[Finding]
    hidden: int
    readings: dict[str, Any] | None


@router.get("/health", summary="How the platform stands")
def health(actor: Authenticated, service: Served) -> HealthShape:
    """The last look, some seconds old; asks nobody itself."""
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
