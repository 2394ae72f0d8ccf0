"""Authentication and authorisation: every transaction of the control API begins here.

A change, its permission check and its row in the ledger are one transaction, so the ledger never
shows a change after the row that removed the right to make it. A change that is denied for lack of
a permission is recorded, too; a denied read is recorded once a minute at most, or anyone with a
token could fill the ledger.
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
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Actor(NamedTuple):
    """The caller, as identified by a token.

    Attributes:
        name: Name of the person.
        groups: Result of ``permissions.groups_of``.
        grants: Grants of the person and of the groups.
    """

    name: str
    token_id: int
    groups: Mapping[str, str]
    grants: tuple[Grant, ...]

    def may(self, permission: Permission, model: str) -> bool:
        """Return whether the actor has a permission on a model or on all that match a pattern."""
        return decide(self.name, self.groups, self.grants, permission, model).allowed


class Attempt(NamedTuple):
    """An action that an actor attempts.

    Attributes:
        action: Name of the action in the ledger, such as ``version.delete``.
        permission: Required permission; None if everyone with a token may do it.
        model: Model it applies to; a pattern requires the permission on all that it matches.
        version: Number of the version.
        release_id: Number of the release.
        is_read: Whether it changes nothing, although it requires more than ``read``.
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
        connection: Connection for making the change.
        now: Time of the change.
        entry: Entry for the ledger, written at the end of the transaction.
    """

    connection: Connection
    now: datetime
    entry: Entry = field(repr=False)
    _is_written: bool = True

    def describe(self, **fields: Any) -> None:
        """Set fields of the entry: evidence, reason, digests."""
        self.entry = replace(self.entry, **fields)

    def nothing_changed(self) -> None:
        """Write no row to the ledger."""
        self._is_written = False

    def write(self) -> None:
        """Append the row, after everything else."""
        if self._is_written:
            ledger.append(self.connection, self.entry)


@dataclass(slots=True)
class _DeniedReads:
    """Time of the last recorded denied read, and the number not recorded since."""

    at: datetime
    since: int = 0


class Access:
    """Access to the database on behalf of people."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self.clock = clock
        self._refused: dict[int, datetime] = {}  # by token: time of the last ledger row
        self._denied_reads: dict[tuple[str, str], _DeniedReads] = {}  # by person and action

    def authenticate(self, secret: str) -> Actor:
        """Identify the caller by a token.

        Raises:
            NotAuthenticated: The token is not valid; the message says why. Not retriable.
            DatabaseUnavailable: No caller can be identified. Retriable.
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
            self._report_refused(token, str(fault), now)
            raise NotAuthenticated(fault)
        if tokens.use_is_due(token, now):
            self._note_use(token, now)
        return actor

    @contextmanager
    def reading(self, actor: Actor, attempt: Attempt) -> Iterator[Connection]:
        """Open a reading transaction for an actor with the required permission.

        Raises:
            NotAllowed: The permission is missing; the ledger records this, for reads once a
                minute. Not retriable.
            DatabaseUnavailable: Retriable.
        """
        with self._denials_recorded(actor, attempt), self._database.read() as connection:
            _require(connection, actor, attempt)
            yield connection

    @contextmanager
    def permitted(
        self, actor: Actor, attempt: Attempt, *, rights: bool = False
    ) -> Iterator[Connection]:
        """Open a writing transaction for a permitted actor; the caller writes the ledger rows.

        Permission is checked again, and rights do not change before the end.

        Args:
            rights: Whether the transaction changes who may do what.
        Raises:
            NotAuthenticated: The token is no longer valid. Not retriable.
            NotAllowed: The permission is missing; the ledger records this. Not retriable.
            DatabaseUnavailable: Retriable.
        """
        with self._denials_recorded(actor, attempt), self._database.begin() as connection:
            people.lock_rights(connection, to_change=rights)
            token = tokens.by_id(connection, actor.token_id)
            fault = token.fault(self.clock())
            if fault is not None:
                raise NotAuthenticated(fault)
            _require(connection, _actor(connection, token), attempt)
            yield connection

    @contextmanager
    def change(self, actor: Actor, attempt: Attempt, *, rights: bool = False) -> Iterator[Change]:
        """Open a transaction like ``permitted`` and append a row to the ledger at its end."""
        with self.permitted(actor, attempt, rights=rights) as connection:
            now = self.clock()
            change = Change(connection, now, _entry(actor, attempt, now))
            yield change
            change.write()

    @contextmanager
    def _denials_recorded(self, actor: Actor, attempt: Attempt) -> Iterator[None]:
        try:
            yield
        except NotAllowed as denied:
            entry = self._denial(actor, attempt, denied)
            if entry is not None:
                # A separate transaction: the refused one is already rolled back.
                with self._database.begin() as connection:
                    ledger.append(connection, entry)
            raise

    def _denial(self, actor: Actor, attempt: Attempt, denied: NotAllowed) -> Entry | None:
        """Return the entry for a denial; None for a read if one was recorded within the minute."""
        entry = _entry(actor, attempt, self.clock())
        evidence: dict[str, Any] = {"permission": attempt.permission, "on": attempt.model}
        if attempt.is_read or attempt.permission is Permission.READ:
            last = self._denied_reads.get((actor.name, attempt.action))
            if last is not None and entry.at - last.at < tokens.USE_NOTED_EVERY:
                last.since += 1
                return None
            self._denied_reads[actor.name, attempt.action] = _DeniedReads(entry.at)
            if last is not None and last.since:
                evidence["not_told"] = last.since
        return replace(entry, denied=True, reason=str(denied), evidence=evidence)

    def _note_use(self, token: Token, now: datetime) -> None:
        try:
            with self._database.begin() as connection:
                tokens.note_use(connection, token, now=now)
        except DatabaseUnavailable as exc:  # busy; reads need not wait for that
            logger.warning("the use of token %s... was not recorded: %s", token.prefix, exc)

    def _report_refused(self, token: Token, fault: str, now: datetime) -> None:
        """Record the use of an invalid token, once a minute at most."""
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
    # Decide again with all grants, so that the message can say whom to ask.
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
