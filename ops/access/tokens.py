"""Tokens that identify callers of the control API; in the caller's transaction.

A token is shown once, when it is created. Only its sha256 is stored, which needs no salt: a token
is 256 random bits, which can be neither guessed nor enumerated.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from ops.access.people import find
from ops.access.permissions import Kind
from ops.errors import Conflict, Invalid, NotFound
from ops.sql.tables import principals, tokens

MARK = "bst_"
SECRET_BYTES = 32
PREFIX_CHARS = len(MARK) + 8
# The last use of a token is recorded no more often than this.
USE_NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Token:
    """The stored data of a token.

    Attributes:
        holder: Name of the person.
        prefix: First characters of the token, by which people distinguish tokens.
        expires_at: Time of expiry; None for never.
        last_used_at: Time of the last use, to the minute.
        disabled_at: Time at which the holder was disabled.
    """

    id: int
    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    disabled_at: datetime | None

    def fault(self, now: datetime) -> str | None:
        """Return why the token is not valid now, as a sentence; None if it is valid."""
        if self.revoked_at is not None:
            return f"the token {self.prefix}... of {self.holder} was revoked; ask for another"
        if self.expires_at is not None and self.expires_at <= now:
            when = f"{self.expires_at:%Y-%m-%d %H:%M} UTC"
            return f"the token {self.prefix}... of {self.holder} expired at {when}; ask for another"
        if self.disabled_at is not None:
            return f"{self.holder} is disabled; ask an admin"
        return None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token with its secret, which is shown only once.

    Attributes:
        ends_with_maker: Whether its lifetime was cut to that of the token that created it.
    """

    token: Token
    secret: str = field(repr=False)
    ends_with_maker: bool = False


def issue(
    connection: Connection,
    holder: str,
    *,
    lifetime: timedelta | None,
    now: datetime,
    maker: Token | None = None,
) -> Issued:
    """Create a token.

    Args:
        lifetime: Lifetime of the token; None for one that never expires.
        maker: The token that creates it, which it does not outlive; None for the platform.
    Raises:
        NotFound: The person does not exist. Not retriable.
        Invalid: The holder is not a person. Not retriable.
    """
    person = find(connection, holder)
    if person.kind != Kind.PERSON:
        raise Invalid(f"{holder} is a {person.kind}; tokens are for persons")
    wanted = None if lifetime is None else now + lifetime
    last = maker.expires_at if maker else None
    is_capped = last is not None and (wanted is None or wanted > last)
    secret = MARK + secrets.token_urlsafe(SECRET_BYTES)
    values = {
        "principal_id": person.id,
        "hash": _hash(secret),
        "prefix": secret[:PREFIX_CHARS],
        "created_at": now,
        "expires_at": last if is_capped else wanted,
    }
    made = connection.scalars(insert(tokens).values(values).returning(tokens.c.id)).one()
    return Issued(by_id(connection, made), secret, is_capped)


def by_secret(connection: Connection, secret: str) -> Token | None:
    """Return the token with this secret; None if there is none.

    It is found by its hash, so that the time this takes reveals nothing about existing tokens.
    """
    row = connection.execute(_tokens().where(tokens.c.hash == _hash(secret))).one_or_none()
    return None if row is None else Token(*row)


def by_id(connection: Connection, number: int) -> Token:
    """Return one token.

    Raises:
        NotFound: No token has that number. Not retriable.
    """
    row = connection.execute(_tokens().where(tokens.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"there is no token {number}; see `bertstream token list`")
    return Token(*row)


def page(
    connection: Connection, *, holder: str | None = None, limit: int = 50, after_id: int = 0
) -> list[Token]:
    """Return tokens with ids above ``after_id``, in order, of one holder or of all."""
    query = _tokens().where(tokens.c.id > after_id).order_by(tokens.c.id).limit(limit)
    if holder is not None:
        query = query.where(principals.c.name == holder)
    return [Token(*row) for row in connection.execute(query)]


def revoke(connection: Connection, token: Token, *, now: datetime) -> None:
    """Revoke a token.

    Raises:
        Conflict: It is already revoked. Not retriable.
    """
    if token.revoked_at is not None:
        raise Conflict(f"the token {token.prefix}... of {token.holder} was already revoked")
    connection.execute(update(tokens).where(tokens.c.id == token.id).values(revoked_at=now))


def use_is_due(token: Token, now: datetime) -> bool:
    """Return whether it is time to record that the token was used."""
    return token.last_used_at is None or now - token.last_used_at >= USE_NOTED_EVERY


def note_use(connection: Connection, token: Token, *, now: datetime) -> None:
    """Record that the token was used."""
    connection.execute(update(tokens).where(tokens.c.id == token.id).values(last_used_at=now))


def _tokens() -> Select[Any]:
    columns = {**tokens.c, "holder": principals.c.name, "disabled_at": principals.c.disabled_at}
    return select(*(columns[name] for name in Token.__slots__)).join(
        principals, principals.c.id == tokens.c.principal_id
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
