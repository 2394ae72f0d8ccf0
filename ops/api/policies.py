"""Addresses of policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import ModelName, Number, ProblemShape, Shape
from ops.catalogue.versions import VersionId
from ops.policy.file import MAX_BYTES

router = APIRouter(tags=["policies"])


class PolicyBody(Shape):
    """A policy's YAML text; the model is named in it."""

    text: str = Field(max_length=MAX_BYTES)


class PolicyShape(Shape):
    """A policy in force.

    Attributes:
        text: As it was written.
        policy: With every default.
    """

    model: str
    digest: str
    author: str
    created_at: datetime
    text: str
    policy: dict[str, Any]


class SetShape(Shape):
    """What became of a policy.

    Attributes:
        changed: False where the same is in force already, however it is written.
        warnings: What it can be used in spite of.
    """

    model: str
    digest: str
    changed: bool
    warnings: list[ProblemShape]


class CheckShape(Shape):
    """What is to be said of a policy.

    Attributes:
        problems: Every mistake, in the order of its lines.
        finds: How surely its steps find a worse version; null where it cannot be used.
    """

    problems: list[ProblemShape]
    finds: str | None


class MissingShape(Shape):
    """One thing in the way."""

    obstacle: str
    sentence: str
    from_whom: list[str]
    until: datetime | None


class ExplanationShape(Shape):
    """May this version go out now, and if not, what is missing and from whom."""

    may_go: bool
    sentences: list[str]
    missing: list[MissingShape]
    earliest: datetime | None


@router.put("/policies", summary="Put a policy into force")
def put(actor: Authenticated, service: Served, body: PolicyBody) -> SetShape:
    """Approvals that were given under another policy are void from then on."""
    done = service.policies.put(actor, body.text)
    warnings = [ProblemShape.model_validate(problem) for problem in done.warnings]
    return SetShape(
        model=done.kept.model, digest=done.kept.digest, changed=done.changed, warnings=warnings
    )


@router.post("/policies/check", summary="Every mistake in a policy, and what it finds")
def check(_actor: Authenticated, service: Served, body: PolicyBody) -> CheckShape:
    """Nothing is changed."""
    return CheckShape.model_validate(service.policies.check(body.text))


@router.get("/models/{name}/policy", summary="The policy in force")
def show(actor: Authenticated, service: Served, name: ModelName) -> PolicyShape:
    """As it was written, and with every default."""
    kept = service.policies.show(actor, name)
    return PolicyShape(
        model=kept.model,
        digest=kept.digest,
        author=kept.author,
        created_at=kept.created_at,
        text=kept.text,
        policy=kept.policy().model_dump(mode="json"),
    )


@router.get("/models/{name}/versions/{number}/explanation", summary="May it go out now")
def explain(
    actor: Authenticated, service: Served, name: ModelName, number: Number
) -> ExplanationShape:
    """In sentences."""
    found = service.policies.explain(actor, VersionId(name, number))
    return ExplanationShape.model_validate(found)
