"""Endpoints for policies."""

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
    """YAML text of a policy, which names its model."""

    text: str = Field(max_length=MAX_BYTES)


class PolicyShape(Shape):
    """A policy in effect.

    Attributes:
        text: YAML text as it was written.
        policy: Parsed policy, including every default.
    """

    model: str
    digest: str
    author: str
    created_at: datetime
    text: str
    policy: dict[str, Any]


@router.put("/policies", summary="Set the policy of a model")
def put(actor: Authenticated, service: Served, body: PolicyBody) -> SetPolicy:
    """Takes effect at once; approvals that were given under another policy become void."""
    return service.policies.put(actor, body.text)


@router.post("/policies/check", summary="Check a policy and its detection power")
def check(_actor: Authenticated, service: Served, body: PolicyBody) -> CheckedPolicy:
    """Changes nothing."""
    return service.policies.check(body.text)


@router.get("/models/{name}/policy", summary="The policy in effect")
def show(actor: Authenticated, service: Served, name: ModelName) -> PolicyShape:
    """Returned as written, and parsed with every default."""
    kept = service.policies.show(actor, name)
    return PolicyShape(
        model=kept.model,
        digest=kept.digest,
        author=kept.author,
        created_at=kept.created_at,
        text=kept.text,
        policy=kept.policy().model_dump(mode="json"),
    )


@router.get("/models/{name}/versions/{number}/explanation", summary="Whether it may be released")
def explain(actor: Authenticated, service: Served, name: ModelName, number: Number) -> Explanation:
    """Explained in sentences."""
    return service.policies.explain(actor, VersionId(name, number))
