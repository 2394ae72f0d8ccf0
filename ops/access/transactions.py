"""Who asks, and whether they may: every transaction of the control API begins here.

A change, the question whether it is allowed and its row in the ledger are one transaction, so the
ledger never shows a change behind the row that took away the right to make it. A change that is
refused for want of a permission is a row, too; so is a read, once a minute, or whoever has a token
could fill the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from ops.access import grants, ledger, people, tokens
from ops.access.ledger import Entry
from ops.access.permissions import EVERYTHING, Grant, Permission, decide, groups_of
from ops.access.tokens import Token
from ops.errors import DatabaseUnavailable, NotAllowed, NotAuthenticated
from ops.sql.database import Database

Clock = Callable[[], datetime]

logger = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The clock of a running platform."""
    return datetime.now(UTC)


class Actor(NamedTuple):
    """Who asks, as the token says.

    Attributes:
        name: Of the person.
        groups: Of ``permissions.groups_of``.
        grants: Of the person and of the groups.
    """

    name: str
    token_id: int
    groups: Mapping[str, str]
    grants: tuple[Grant, ...]

    def may(self, permission: Permission, model: str) -> bool:
        """Whether a permission on a model, or on all that a pattern fits, is there."""
        return decide(self.name, self.groups, self.grants, permission, model).allowed


class Attempt(NamedTuple):
    """What somebody wants to do.

    Attributes:
        action: As the ledger names it, such as ``version.delete``.
        permission: That it takes; None where it is open to everybody who has a token.
        model: On which; a pattern asks for the permission on all that it fits.
        version: Its number.
        release_id: Likewise.
        is_read: It changes nothing, though it takes more than ``read``.
    """

    action: str
    permission: Permission | None
    model: str = EVERYTHING
    version: int | None = None
    release_id: int | None = None
    is_read: bool = False


@dataclass(slots=True)
class Change:
    """A change that is allowed and not yet committed.

    Attributes:
        connection: To make it with.
        now: When it is made.
        entry: What the ledger will say of it at the end of the transaction.
    """

    connection: Connection
    now: datetime
    entry: Entry = field(repr=False)
    _is_written: bool = True

    def describe(self, **fields: Any) -> None:
        """Fill fields of the entry: evidence, reason, digests."""
        self.entry = replace(self.entry, **fields)

    def nothing_changed(self) -> None:
        """Leave the ledger as it is."""
        self._is_written = False

    def write(self) -> None:
        """Append the row, after all else."""
        if self._is_written:
            ledger.append(self.connection, self.entry)


@dataclass(slots=True)
class _DeniedReads:
    """When the ledger was told of a denied read, and how many it was not told of since."""

    at: datetime
    since: int = 0


class Access:
    """The way to the database for people."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self.clock = clock
        self._refused: dict[int, datetime] = {}  # tokens, and when the ledger was told
        self._denied_reads: dict[tuple[str, str], _DeniedReads] = {}  # by person and action

    def authenticate(self, secret: str) -> Actor:
        """Find out who shows a token.

        Raises:
            NotAuthenticated: The token does not count; says why. Not retriable.
            DatabaseUnavailable: Nobody can be known. Retriable.
        """
        now = self.clock()
        with self._database.read() as connection:
            token = tokens.by_secret(connection, secret)
            if token is None:
                raise NotAuthenticated(
                    "this token is not known here; ask an admin for one, or run `bertstream up` "
                    "again where the platform runs"
                )
            fault = token.fault(now)
            actor = None if fault else _actor(connection, token)
        if actor is None:
            self._tell_of_refused(token, str(fault), now)
            raise NotAuthenticated(fault)
        if tokens.use_is_due(token, now):
            self._note_use(token, now)
        return actor

    @contextmanager
    def reading(self, actor: Actor, attempt: Attempt) -> Iterator[Connection]:
        """A transaction that reads, for an actor who may.

        Raises:
            NotAllowed: The permission is missing; the ledger has it, of reads once a minute. Not
                retriable.
            DatabaseUnavailable: Retriable.
        """
        with self._denials_told(actor, attempt), self._database.read() as connection:
            _require(connection, actor, attempt)
            yield connection

    @contextmanager
    def permitted(
        self, actor: Actor, attempt: Attempt, *, rights: bool = False
    ) -> Iterator[Connection]:
        """A transaction that writes, for an actor who may; its rows in the ledger are the caller's.

        Whether the actor may is asked anew, and nothing about it changes before the end.

        Args:
            rights: Whether it changes who may do what.
        Raises:
            NotAuthenticated: The token does not count any more. Not retriable.
            NotAllowed: The permission is missing; the ledger has it. Not retriable.
            DatabaseUnavailable: Retriable.
        """
        with self._denials_told(actor, attempt), self._database.begin() as connection:
            people.lock_rights(connection, to_change=rights)
            token = tokens.by_id(connection, actor.token_id)
            fault = token.fault(self.clock())
            if fault is not None:
                raise NotAuthenticated(fault)
            _require(connection, _actor(connection, token), attempt)
            yield connection

    @contextmanager
    def change(self, actor: Actor, attempt: Attempt, *, rights: bool = False) -> Iterator[Change]:
        """As ``permitted``, with a row in the ledger at its end."""
        with self.permitted(actor, attempt, rights=rights) as connection:
            now = self.clock()
            change = Change(connection, now, _entry(actor, attempt, now))
            yield change
            change.write()

    @contextmanager
    def _denials_told(self, actor: Actor, attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except NotAllowed as denied:
            entry = self._denial(actor, attempt, denied)
            if entry is not None:
                # In a transaction of its own: the one that was refused is undone by now.
                with self._database.begin() as connection:
                    ledger.append(connection, entry)
            raise

    def _denial(self, actor: Actor, attempt: Attempt, denied: NotAllowed) -> Entry | None:
        """Its row; None for a read where there is one of the same kind within the minute."""
        entry = _entry(actor, attempt, self.clock())
        evidence: dict[str, Any] = {"permission": attempt.permission, "on": attempt.model}
        if attempt.is_read or attempt.permission is Permission.READ:
            told = self._denied_reads.get((actor.name, attempt.action))
            if told is not None and entry.at - told.at < tokens.USE_NOTED_EVERY:
                told.since += 1
                return None
            self._denied_reads[actor.name, attempt.action] = _DeniedReads(entry.at)
            if told is not None and told.since:
                evidence["not_told"] = told.since
        return replace(entry, denied=True, reason=str(denied), evidence=evidence)

    def _note_use(self, token: Token, now: datetime) -> None:
        try:
            with self._database.begin() as connection:
                tokens.note_use(connection, token, now=now)
        except DatabaseUnavailable as exc:  # busy; who only reads need not wait for that
            logger.warning("the use of token %s... was not noted: %s", token.prefix, exc)

    def _tell_of_refused(self, token: Token, fault: str, now: datetime) -> None:
        """Write that a token was shown which does not count; not more often than once a minute."""
        last = self._refused.get(token.id)
        if last is not None and now - last < tokens.USE_NOTED_EVERY:
            return
        self._refused[token.id] = now
        evidence = {"token": token.id, "prefix": token.prefix}
        entry = Entry(
            at=now,
            actor=token.holder,
            action="token.use",
            reason=fault,
            evidence=evidence,
            denied=True,
        )
        with self._database.begin() as connection:
            ledger.append(connection, entry)


def _actor(connection: Connection, token: Token) -> Actor:
    steps = people.memberships_above(connection, token.holder)
    groups = groups_of(token.holder, steps)
    held = grants.held_by(connection, [token.holder, *groups])
    return Actor(token.holder, token.id, groups, tuple(held))


def _require(connection: Connection, actor: Actor, attempt: Attempt) -> None:
    if attempt.permission is None or actor.may(attempt.permission, attempt.model):
        return
    # Once more with the grants of all others, for the sentence to say whom to ask.
    known = grants.in_force(connection)
    decision = decide(actor.name, actor.groups, known, attempt.permission, attempt.model)
    raise NotAllowed(decision.why)


def _entry(actor: Actor, attempt: Attempt, now: datetime) -> Entry:
    is_pattern = "*" in attempt.model
    return Entry(
        at=now,
        actor=actor.name,
        action=attempt.action,
        model=None if is_pattern else attempt.model,
        version=attempt.version,
        release_id=attempt.release_id,
    )
