"""Stored policies, of which the newest is in force; in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, func, insert, select

from ops.errors import NotFound
from ops.policy.file import load
from ops.policy.policy import Policy
from ops.sql.tables import policies


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A stored policy.

    Attributes:
        digest: Digest of its content.
        text: YAML text as it was written.
    """

    id: int
    model: str
    digest: str
    text: str
    author: str
    created_at: datetime

    def policy(self) -> Policy:
        """Return its content, validated as of when it was set: windows may have passed since."""
        return _loaded(self.text, self.created_at)


@lru_cache(maxsize=1024)
def _loaded(text: str, at: datetime) -> Policy:
    """Parse a policy; cached, as this takes milliseconds and the operator asks at every round."""
    return load(text, now=at)


def in_force(connection: Connection, model: str) -> KeptPolicy | None:
    """Return the policy of a model; None if none was set."""
    newest = select(policies).where(policies.c.model == model).order_by(policies.c.id.desc())
    row = connection.execute(newest.limit(1)).mappings().one_or_none()
    return None if row is None else KeptPolicy(**row)


def all_in_force(connection: Connection, models: Sequence[str]) -> dict[str, KeptPolicy]:
    """Return the policies of several models, by model; models without one are omitted."""
    newest = select(func.max(policies.c.id)).where(policies.c.model.in_(models))
    query = select(policies).where(policies.c.id.in_(newest.group_by(policies.c.model)))
    return {row["model"]: KeptPolicy(**row) for row in connection.execute(query).mappings()}


def require(connection: Connection, model: str) -> KeptPolicy:
    """Return the policy of a model.

    Raises:
        NotFound: No policy was set. Not retriable.
    """
    kept = in_force(connection, model)
    if kept is None:
        raise NotFound(f"{model} has no policy; set one with `bertstream policy set FILE`")
    return kept


def put(
    connection: Connection, policy: Policy, text: str, *, author: str, now: datetime
) -> KeptPolicy:
    """Store a policy, which takes effect at once."""
    values = {"model": policy.model, "digest": policy.digest(), "text": text}
    made = insert(policies).values(values | {"author": author, "created_at": now})
    connection.execute(made)
    return require(connection, policy.model)
