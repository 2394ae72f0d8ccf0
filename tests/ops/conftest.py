"""Databases that tests of ops share."""

from __future__ import annotations

from tests.postgres import (
    database,
    database_url,
    empty_url,
    postgres,
    postgres_url,
    sqlite_template,
)

__all__ = [
    "database",
    "database_url",
    "empty_url",
    "postgres",
    "postgres_url",
    "sqlite_template",
]
