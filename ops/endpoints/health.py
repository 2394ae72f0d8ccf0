"""Address of health. ``/healthz`` and ``/readyz`` are of ``api``: they take no token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter

from ops.endpoints.caller import Caller, Served
from ops.endpoints.shapes import Shape
from ops.health_findings import Severity
from ops.health_readings import Readings

router = APIRouter(tags=["health"])
_READINGS = TypeAdapter(Readings | None)


class FindingShape(Shape):
    """Something that was looked at; ``hurts`` and ``todo`` are empty where all is well."""

    key: str
    severity: Severity
    what: str
    since: datetime
    hurts: str
    todo: str


class HealthShape(Shape):
    """How the platform stands.

    Attributes:
        status: Of the worst finding; ``grade`` is 0, 1 or 2 for it.
        at: When it was looked at, and ``age_s`` how long ago that is.
        findings: The worst first.
        readings: What they follow from.
    """

    status: Severity
    grade: int
    at: datetime
    age_s: float
    findings: list[FindingShape]
    readings: dict[str, Any] | None


@router.get("/health", summary="How the platform stands")
def health(actor: Caller, service: Served) -> HealthShape:
    """The last look, some seconds old; asks nobody itself."""
    found = service.health.latest(actor)
    return HealthShape(
        status=found.status,
        grade=found.status.grade,
        at=found.at,
        age_s=round((datetime.now(UTC) - found.at).total_seconds(), 3),
        findings=[FindingShape.model_validate(finding) for finding in found.findings],
        readings=_READINGS.dump_python(found.readings, mode="json"),
    )
