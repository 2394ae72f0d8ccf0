"""The ledger: who did what, when and why. Rows are added and never changed.

The database refuses to change a row, and each row's hash covers the hash of the one before it,
so that a row that was changed or removed nevertheless is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, func, insert, select, update

from ops.sql.database import dumped
from ops.sql.tables import ledger, ledger_head

OPERATOR = "operator"

HASHED = tuple(column.name for column in ledger.c if column.name != "hash")
VERIFIED_AT_A_TIME = 1000
GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An entry to append to the ledger.

    Attributes:
        at: Time of the action; aware.
        actor: The person or the part of the platform that acted.
        action: The action, such as ``version.register``.
        model: None if the action concerns no single model; likewise for the following.
        reason: A sentence.
        evidence: Numbers and names behind it; JSON.
        denied: Whether the action was denied and did not happen.
        break_glass: Whether only that permission allowed the action.
    """

    at: datetime
    actor: str
    action: str
    model: str | None = None
    version: int | None = None
    release_id: int | None = None
    from_state: str | None = None
    to_state: str | None = None
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    version_digest: str | None = None
    policy_digest: str | None = None
    denied: bool = False
    break_glass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow(Entry):
    """A row of the ledger.

    Attributes:
        id: Number of the row: 1, 2, ... without gaps.
        previous_hash: Hash of the previous row; ``GENESIS`` for the first.
        hash: Sha256 over everything else in the row, 64 hexadecimal digits.
    """

    id: int
    previous_hash: str
    hash: str


class LedgerHead(NamedTuple):
    """End of the chain; a copy of it kept elsewhere detects a rewritten ledger."""

    last_id: int
    hash: str


class Broken(NamedTuple):
    """The first row at which the chain is broken, and why."""

    id: int
    why: str


def append(connection: Connection, entry: Entry) -> int:
    """Write a row in the caller's transaction, so that it commits together with the action.

    Until that transaction ends, other appends wait for it. Append last, after every other lock
    is taken, so that two transactions cannot wait for each other.

    Args:
        connection: Connection of a writing transaction.
        entry: Entry to write; characters that a database refuses are replaced, so that a denied
            attempt is recorded whatever it named.
    Returns:
        The id of the row.
    """
    row = row_after(head(connection, lock=True), entry)
    connection.execute(insert(ledger).values(row))
    connection.execute(update(ledger_head).values(last_id=row["id"], hash=row["hash"]))
    return int(row["id"])


def row_after(end: LedgerHead, entry: Entry) -> dict[str, Any]:
    """Return the row that continues a chain, as stored in the table."""
    row = {name: _storable(getattr(entry, name)) for name in Entry.__slots__}
    row["evidence"] = orjson.loads(dumped(entry.evidence))
    row |= {"id": end.last_id + 1, "previous_hash": end.hash}
    return row | {"hash": _hash(row)}


class LedgerQuery(NamedTuple):
    """Filter for rows of the ledger.

    Attributes:
        since: Return rows from this time on.
        limit: Maximum number of rows.
        before_id: Return rows older than this one, the last of the previous page.
    """

    model: str | None = None
    release_id: int | None = None
    actor: str | None = None
    since: datetime | None = None
    limit: int = 50
    before_id: int | None = None


EVERY_ROW = LedgerQuery()


def entries(connection: Connection, wanted: LedgerQuery = EVERY_ROW) -> list[LedgerRow]:
    """Return a page of rows, newest first."""
    query = select(ledger).order_by(ledger.c.id.desc()).limit(wanted.limit)
    for name in ("model", "release_id", "actor"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(ledger.c[name] == value)
    if wanted.before_id is not None:
        query = query.where(ledger.c.id < wanted.before_id)
    if wanted.since is not None:
        query = _since(query, wanted.since)
    return [LedgerRow(**found) for found in connection.execute(query).mappings()]


def head(connection: Connection, *, lock: bool = False) -> LedgerHead:
    """Return the current end of the chain.

    Args:
        lock: Block appends by other transactions until this one ends.
    """
    query = select(ledger_head.c.last_id, ledger_head.c.hash)
    return LedgerHead(*connection.execute(query.with_for_update() if lock else query).one())


def verify(connection: Connection) -> Broken | None:
    """Verify the chain from its beginning; memory does not grow with its length.

    Args:
        connection: Connection of one reading transaction, so that the chain does not grow.
    Returns:
        The first broken row; None if the chain is intact.
    """
    last = LedgerHead(0, GENESIS)
    query = select(ledger).order_by(ledger.c.id)
    options = {"yield_per": VERIFIED_AT_A_TIME}
    with connection.execute(query, execution_options=options) as rows:
        for row in rows.mappings():
            broken = _fault(dict(row), last)
            if broken is not None:
                return broken
            last = LedgerHead(row["id"], row["hash"])
    found = connection.execute(select(ledger_head.c.last_id, ledger_head.c.hash)).one_or_none()
    if found is None:
        return Broken(last.last_id, "the end of the chain is unknown: the head is missing")
    end = LedgerHead(*found)
    if last.last_id < end.last_id:
        return Broken(last.last_id + 1, f"the last rows are missing, up to {end.last_id}")
    return None if last == end else Broken(last.last_id, "the chain does not end where it should")


def _fault(row: Mapping[str, Any], last: LedgerHead) -> Broken | None:
    if row["id"] != last.last_id + 1:
        return Broken(last.last_id + 1, "the row is missing")
    if row["previous_hash"] != last.hash:
        return Broken(row["id"], "it does not follow the row before it")
    if row["hash"] != _hash(row):
        return Broken(row["id"], "its content is not what was written")
    return None


def _since(query: Select[Any], since: datetime) -> Select[Any]:
    """Search from the oldest row that can match, so that the search ends there.

    The sum keeps PostgreSQL from searching for the minimum along the primary key, which would
    visit nearly every row.
    """
    oldest = select(func.min(ledger.c.id + 0)).where(ledger.c.at >= since).scalar_subquery()
    return query.where(ledger.c.at >= since, ledger.c.id >= oldest)


def _hash(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(dumped({name: row[name] for name in HASHED})).hexdigest()


def _storable(value: Any) -> Any:
    """Replace characters that PostgreSQL rejects as text or that UTF-8 cannot encode."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
