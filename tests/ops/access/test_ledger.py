from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from ops.access.ledger import (
    Broken,
    Entry,
    LedgerHead,
    LedgerQuery,
    _fault,
    append,
    entries,
    head,
    verify,
)
from ops.sql.database import Database
from ops.sql.tables import ledger
from tests.postgres import UNGUARDED

NOW = datetime(2026, 3, 1, 12, 0, 0, 250000, tzinfo=UTC)
ENTRY = Entry(at=NOW, actor="ada", action="release.start", model="sentiment", version=3)
DEADLINE_S = 60.0
UNGUARD = {
    "sqlite": ("DROP TRIGGER ledger_stays", "DROP TRIGGER ledger_keeps"),
    "postgresql": (UNGUARDED,),
}


def fill(database: Database, count: int) -> None:
    with database.begin() as connection:
        for number in range(count):
            at = NOW + timedelta(minutes=number)
            model, actor = ("a", "ada") if number % 2 else ("b", "bob")
            append(connection, replace(ENTRY, at=at, model=model, actor=actor, release_id=number))


def ids(database: Database, **wanted: Any) -> list[int]:
    with database.read() as connection:
        return [row.id for row in entries(connection, LedgerQuery(**wanted))]


def unguarded(connection: Connection) -> None:
    """What somebody with all rights on the database can do."""
    for statement in UNGUARD[connection.dialect.name]:
        connection.execute(text(statement))


def test_row_is_read_as_it_was_written(database: Database) -> None:
    entry = replace(
        ENTRY,
        release_id=7,
        from_state="bake",
        to_state="live",
        reason="all checks passed",
        evidence={"share": 0.1, "labels": {"positive": 3}, "limits": [1, None]},
        version_digest="a" * 64,
        policy_digest="b" * 64,
        denied=True,
        break_glass=True,
    )
    with database.begin() as connection:
        assert append(connection, entry) == 1
        assert append(connection, ENTRY) == 2
    with database.read() as connection:
        second, first = entries(connection)

    assert first == type(first)(**written(entry), id=1, previous_hash="0" * 64, hash=first.hash)
    assert second.previous_hash == first.hash
    assert (second.evidence, second.from_state, second.denied) == ({}, None, False)


def written(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__slots__}


def test_row_is_undone_with_its_transaction(database: Database) -> None:
    fill(database, 1)

    def fail() -> None:
        with database.begin() as connection:
            append(connection, ENTRY)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    fill(database, 1)

    assert ids(database) == [2, 1]
    with database.read() as connection:
        assert verify(connection) is None


@pytest.mark.parametrize(
    "change",
    [
        update(ledger).values(actor="eve"),
        delete(ledger),
        text("DELETE FROM ledger WHERE id = 2"),
        text("UPDATE ledger SET denied = NOT denied WHERE id = 1"),
    ],
    ids=str,
)
def test_database_refuses_to_change_rows(database: Database, change: Any) -> None:
    fill(database, 3)
    refused = pytest.raises(DBAPIError, match="the ledger is append-only")
    with refused, database.begin() as connection:
        connection.execute(change)

    with database.read() as connection:
        assert verify(connection) is None


def test_database_refuses_to_replace_or_empty(database: Database) -> None:
    fill(database, 2)
    columns = ", ".join(column.name for column in ledger.c if column.name != "id")
    statement = {
        "postgresql": "TRUNCATE ledger",
        "sqlite": f"INSERT OR REPLACE INTO ledger (id, {columns}) "
        f"SELECT 1, {columns} FROM ledger WHERE id = 2",
    }[database.dialect]
    refused = pytest.raises(DBAPIError, match="the ledger is append-only")
    with refused, database.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("change", "row", "why"),
    [
        (update(ledger).where(ledger.c.id == 3).values(reason="?"), 3, "content is not"),
        (update(ledger).where(ledger.c.id == 3).values(denied=True), 3, "content is not"),
        (update(ledger).where(ledger.c.id == 3).values(evidence={"n": 1}), 3, "content is not"),
        (update(ledger).where(ledger.c.id == 1).values(at=NOW - timedelta(1)), 1, "content is"),
        (update(ledger).where(ledger.c.id == 3).values(hash="f" * 64), 3, "content is not"),
        (delete(ledger).where(ledger.c.id == 1), 1, "the row is missing"),
        (delete(ledger).where(ledger.c.id == 4), 4, "the row is missing"),
        (delete(ledger).where(ledger.c.id >= 5), 5, "last rows are missing, up to 6"),
        (delete(ledger), 1, "last rows are missing, up to 6"),
    ],
    ids=str,
)
def test_changed_or_missing_row_is_found(
    database: Database, change: Any, row: int, why: str
) -> None:
    fill(database, 6)
    with database.begin() as connection:
        assert verify(connection) is None
        unguarded(connection)
        connection.execute(change)
        broken = verify(connection)

    assert broken is not None
    assert broken.id == row
    assert why in broken.why


def test_row_with_a_fitting_hash_of_its_own_is_found(database: Database) -> None:
    """Changed and hashed anew, it no longer carries the row after it."""
    fill(database, 4)
    with database.begin() as connection:
        forged = dict(connection.execute(select(ledger).where(ledger.c.id == 2)).mappings().one())
        unguarded(connection)
        connection.execute(delete(ledger).where(ledger.c.id >= 2))
        connection.execute(
            text("UPDATE ledger_head SET last_id = 1, hash = :h"), {"h": forged["previous_hash"]}
        )
        append(connection, replace(ENTRY, actor="eve"))
        broken_head = head(connection)
        rows = [forged | {"id": 3}]
        connection.execute(insert(ledger), rows)
        broken = verify(connection)

    assert broken_head.last_id == 2
    assert broken is not None
    assert (broken.id, broken.why) == (3, "it does not follow the row before it")


def test_ledger_without_its_head_is_found(database: Database) -> None:
    fill(database, 2)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM ledger_head"))
        broken = verify(connection)

    assert broken == Broken(2, "the end of the chain is unknown: the head is missing")


def test_rows_are_numbered_without_gaps_by_many_at_once(database: Database) -> None:
    def write(actor: str) -> None:
        for _ in range(5):
            with database.begin() as connection:
                append(connection, replace(ENTRY, actor=actor))

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(write, name) for name in "abcd"]:
            future.result(DEADLINE_S)

    assert ids(database) == list(range(20, 0, -1))
    with database.read() as connection:
        assert verify(connection) is None
        assert head(connection).last_id == 20


def test_pages_are_newest_first_and_filtered(database: Database) -> None:
    fill(database, 9)

    assert ids(database, limit=4) == [9, 8, 7, 6]
    assert ids(database, limit=4, before_id=6) == [5, 4, 3, 2]
    assert ids(database, model="a") == [8, 6, 4, 2]
    assert ids(database, actor="bob", limit=2, before_id=7) == [5, 3]
    assert ids(database, release_id=5) == [6]
    assert ids(database, model="a", actor="bob") == []
    assert ids(database, since=NOW + timedelta(minutes=6)) == [9, 8, 7]
    assert ids(database, since=NOW + timedelta(minutes=6), model="a") == [8]
    assert ids(database, since=NOW + timedelta(days=1)) == []


def test_row_of_a_slow_clock_does_not_hide_others(database: Database) -> None:
    fill(database, 4)
    with database.begin() as connection:
        append(connection, replace(ENTRY, at=NOW - timedelta(days=9)))
        append(connection, replace(ENTRY, at=NOW + timedelta(days=1)))

    assert ids(database, since=NOW + timedelta(minutes=2)) == [6, 4, 3]


def test_attempt_is_written_whatever_it_named(database: Database) -> None:
    entry = replace(
        ENTRY, model="a\0b\ud800", denied=True, evidence={"name": "\0", 1: np.float64("nan")}
    )
    with database.begin() as connection:
        append(connection, entry)
    with database.read() as connection:
        (row,) = entries(connection)
        assert row.model == "a\ufffdb?"
        assert row.evidence == {"name": "\0", "1": None}
        assert verify(connection) is None


evidence = st.dictionaries(
    st.text(st.characters(codec="utf-8")),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats()
        | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    evidence=evidence,
    reason=st.text(),
    at=st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)),
)
def test_hash_survives_the_way_through_the_database(
    database: Database, evidence: dict[str, Any], reason: str, at: datetime
) -> None:
    with database.begin() as connection:
        append(connection, replace(ENTRY, evidence=evidence, reason=reason, at=at))
        assert verify(connection) is None


def test_verifying_takes_no_more_memory_for_more_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.access.ledger.VERIFIED_AT_A_TIME", 20)
    with database.begin() as connection:
        for _ in range(300):
            append(connection, replace(ENTRY, reason="r" * 30_000))
    with database.read() as connection:
        tracemalloc.start()
        try:
            assert verify(connection) is None
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak < 5_000_000, "all rows take 9 MB"


@pytest.mark.postgres
def test_rows_stay_at_the_server_while_others_are_verified(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client library holds is in no count of Python's memory."""
    cursors = []

    def look(row: dict[str, Any], last: LedgerHead) -> Broken | None:
        cursors.append(
            connection.scalars(text("SELECT count(*) FROM pg_cursors WHERE name <> ''")).one()
        )
        return _fault(row, last)

    monkeypatch.setattr("ops.access.ledger._fault", look)
    with closing(Database(postgres_url)) as database:
        fill(database, 2)
        with database.read() as connection:
            verify(connection)

    assert set(cursors) == {1}
