"""Addresses of policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from ops.api.authentication import Authenticated, Served
from ops.api.shapes import ModelName, Number, Shape
from ops.catalogue.versions import VersionId
from ops.policy.file import MAX_BYTES
from ops.releases.explanation import Explanation
from ops.service.policies import CheckedPolicy, SetPolicy

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


@router.put("/policies", summary="Put a policy into force")
def put(actor: Authenticated, service: Served, body: PolicyBody) -> SetPolicy:
    """Approvals that were given under another policy are void from then on."""
    return service.policies.put(actor, body.text)


@router.post("/policies/check", summary="Every mistake in a policy, and what it finds")
def check(_actor: Authenticated, service: Served, body: PolicyBody) -> CheckedPolicy:
    """Nothing is changed."""
    return service.policies.check(body.text)


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
def explain(actor: Authenticated, service: Served, name: ModelName, number: Number) -> Explanation:
    """In sentences."""
    return service.policies.explain(actor, VersionId(name, number))
