"""Adds rows to existing ones with the same key, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def add_up(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    amounts: Sequence[str],
    newest: Sequence[str] = (),
) -> None:
    """Insert rows; if a row with the same primary key exists, add to it.

    Args:
        rows: Rows with distinct keys.
        amounts: Columns to be added up.
        newest: Columns that take the new value.
    """
    if not rows:
        return
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    made: Any = insert(table)
    changed = {name: table.c[name] + made.excluded[name] for name in amounts}
    changed |= {name: made.excluded[name] for name in newest}
    key = table.primary_key.columns.keys()
    connection.execute(made.on_conflict_do_update(index_elements=key, set_=changed), list(rows))
