from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event, select

from ops.sql import lease
from ops.sql.database import Database
from ops.sql.tables import leases

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_S = 30.0


def acquire(database: Database, holder: str, *, at_s: float = 0) -> int | None:
    now, lasts = NOW + timedelta(seconds=at_s), timedelta(seconds=10)
    with database.begin() as connection:
        fence = lease.acquire(connection, "operator", holder, now=now, lasts=lasts)
        # Whatever came of it, the transaction goes on.
        connection.execute(select(leases)).one()
        return fence


def test_lease_has_one_holder_until_it_ends(database: Database) -> None:
    assert acquire(database, "a") == 1
    assert acquire(database, "b", at_s=9.9) is None
    assert acquire(database, "a", at_s=9.9) == 1  # renewed: until 19.9
    assert acquire(database, "b", at_s=10) is None
    assert acquire(database, "b", at_s=19.9) == 2
    assert acquire(database, "a", at_s=20) is None
    # Back with its first holder it has another fence: what that one sent before is void.
    assert acquire(database, "a", at_s=29.9) == 3


def test_lease_that_is_given_back_is_free_at_once(database: Database) -> None:
    acquire(database, "a")
    with database.begin() as connection:
        lease.release_lease(connection, "operator", "b", NOW)
    assert acquire(database, "b", at_s=1) is None
    with database.begin() as connection:
        lease.release_lease(connection, "operator", "a", NOW + timedelta(seconds=1))
    assert acquire(database, "b", at_s=1) == 2


def test_lease_of_two_that_come_first_at_once_has_one_holder(database: Database) -> None:
    """On PostgreSQL the second has looked, and found none, before the first one's is there."""
    writes = threading.Event()

    def wanted(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO leases") and threading.current_thread() is second:
            writes.set()

    found: list[int | None] = []
    second = threading.Thread(target=lambda: found.append(acquire(database, "b")))
    event.listen(Engine, "before_cursor_execute", wanted)
    try:
        with database.begin() as connection:
            lasts = timedelta(seconds=10)
            first = lease.acquire(connection, "operator", "a", now=NOW, lasts=lasts)
            second.start()
            if database.dialect == "postgresql":
                assert writes.wait(DEADLINE_S)
        second.join(DEADLINE_S)
    finally:
        event.remove(Engine, "before_cursor_execute", wanted)
    assert (first, found) == (1, [None])
