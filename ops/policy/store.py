"""Policies as they were set, the newest in force; in the caller's transaction."""

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
    """A policy that was set.

    Attributes:
        digest: Of what it says.
        text: As it was written.
    """

    id: int
    model: str
    digest: str
    text: str
    author: str
    created_at: datetime

    def policy(self) -> Policy:
        """What it says; judged at the time when it was set, as windows may be over since."""
        return _loaded(self.text, self.created_at)


@lru_cache(maxsize=1024)
def _loaded(text: str, at: datetime) -> Policy:
    """To read one takes milliseconds, and the operator asks at every round."""
    return load(text, now=at)


def in_force(connection: Connection, model: str) -> KeptPolicy | None:
    """The policy of a model; None where none was set."""
    newest = select(policies).where(policies.c.model == model).order_by(policies.c.id.desc())
    row = connection.execute(newest.limit(1)).mappings().one_or_none()
    return None if row is None else KeptPolicy(**row)


def all_in_force(connection: Connection, models: Sequence[str]) -> dict[str, KeptPolicy]:
    """The policies of several models, by model; those that have none are left out."""
    newest = select(func.max(policies.c.id)).where(policies.c.model.in_(models))
    query = select(policies).where(policies.c.id.in_(newest.group_by(policies.c.model)))
    return {row["model"]: KeptPolicy(**row) for row in connection.execute(query).mappings()}


def require(connection: Connection, model: str) -> KeptPolicy:
    """The policy of a model.

    Raises:
        NotFound: None was set. Not retriable.
    """
    kept = in_force(connection, model)
    if kept is None:
        raise NotFound(f"{model} has no policy; set one with `bertstream policy set FILE`")
    return kept


def put(
    connection: Connection, policy: Policy, text: str, *, author: str, now: datetime
) -> KeptPolicy:
    """Put a policy into force."""
    values = {"model": policy.model, "digest": policy.digest(), "text": text}
    made = insert(policies).values(values | {"author": author, "created_at": now})
    connection.execute(made)
    return require(connection, policy.model)
