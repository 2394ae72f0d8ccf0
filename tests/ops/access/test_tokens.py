"""Tokens: shown once, kept as a hash, over by time, by hand or with their holder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from ops.access import people, tokens
from ops.access.permissions import Kind
from ops.errors import Conflict, Invalid, NotFound
from ops.sql.database import Database
from ops.sql.tables import tokens as table

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def issued(database: Database) -> tokens.Issued:
    with database.begin() as connection:
        people.add(connection, "ana", Kind.PERSON, now=NOW)
        return tokens.issue(connection, "ana", lifetime=DAY, now=NOW)


def test_secret_is_long_and_nowhere_kept(database: Database, issued: tokens.Issued) -> None:
    assert issued.secret.startswith("bst_")
    assert len(issued.secret) == len("bst_") + 43  # 256 bits, 6 a character
    assert issued.secret not in repr(issued)
    with database.read() as connection:
        (row,) = connection.execute(select(table)).all()
    kept = " ".join(str(value) for value in row)
    assert issued.secret not in kept
    assert issued.secret[len(issued.token.prefix) :] not in kept
    assert issued.secret.startswith(row.prefix)
    assert len(row.prefix) == 12


def test_found_by_the_whole_secret_only(database: Database, issued: tokens.Issued) -> None:
    with database.read() as connection:
        assert tokens.by_secret(connection, issued.secret) == issued.token
        for other in (issued.secret[:-1], issued.token.prefix, "", "bst_", "\ud800", "' OR 1=1"):
            assert tokens.by_secret(connection, other) is None


def test_counts_until_it_expires(issued: tokens.Issued) -> None:
    token = issued.token
    assert token.fault(NOW + DAY - timedelta(microseconds=1)) is None
    assert "expired at 2026-03-03 09:00 UTC" in (token.fault(NOW + DAY) or "")


def test_one_without_end(database: Database, issued: tokens.Issued) -> None:
    with database.begin() as connection:
        lasting = tokens.issue(connection, "ana", lifetime=None, now=NOW)
        assert lasting.token.fault(NOW + 10_000 * DAY) is None
        assert lasting.secret != issued.secret
        ids = [token.id for token in tokens.page(connection, holder="ana")]
        assert ids == [issued.token.id, lasting.token.id]
        assert tokens.page(connection, after_id=ids[0]) == [lasting.token]
        assert tokens.page(connection, holder="bob") == []


def test_none_outlives_the_one_that_made_it(database: Database, issued: tokens.Issued) -> None:
    maker, ends = issued.token, NOW + DAY
    with database.begin() as connection:
        lasting = tokens.issue(connection, "ana", lifetime=None, now=NOW)
        for lifetime, last, is_capped in (
            (None, ends, True),
            (DAY + timedelta(microseconds=1), ends, True),
            (DAY, ends, False),
            (DAY / 2, NOW + DAY / 2, False),
        ):
            made = tokens.issue(connection, "ana", lifetime=lifetime, now=NOW, maker=maker)
            assert (made.token.expires_at, made.ends_with_maker) == (last, is_capped)
        free = tokens.issue(connection, "ana", lifetime=None, now=NOW, maker=lasting.token)
        assert (free.token.expires_at, free.ends_with_maker) == (None, False)


def test_revoked_for_good(database: Database, issued: tokens.Issued) -> None:
    with database.begin() as connection:
        tokens.revoke(connection, issued.token, now=NOW)
        found = tokens.by_secret(connection, issued.secret)
        assert found is not None
        assert "was revoked" in (found.fault(NOW) or "")
    with pytest.raises(Conflict, match="already"), database.begin() as connection:
        tokens.revoke(connection, found, now=NOW)
    with pytest.raises(NotFound, match="no token 99"), database.read() as connection:
        tokens.by_id(connection, 99)


def test_counts_for_nothing_while_its_holder_is_disabled(
    database: Database, issued: tokens.Issued
) -> None:
    with database.begin() as connection:
        people.disable(connection, "ana", now=NOW)
        found = tokens.by_id(connection, issued.token.id)
        assert found.fault(NOW) == "ana is disabled; ask an admin"
        people.enable(connection, "ana")
        assert tokens.by_id(connection, issued.token.id).fault(NOW) is None


def test_use_is_noted_once_a_minute(database: Database, issued: tokens.Issued) -> None:
    assert tokens.use_is_due(issued.token, NOW)
    with database.begin() as connection:
        tokens.note_use(connection, issued.token, now=NOW)
        token = tokens.by_id(connection, issued.token.id)
    assert token.last_used_at == NOW
    assert not tokens.use_is_due(token, NOW + timedelta(seconds=59))
    assert tokens.use_is_due(token, NOW + timedelta(seconds=60))


def test_for_persons_only(database: Database) -> None:
    with database.begin() as connection:
        people.add(connection, "risk", Kind.TEAM, now=NOW)
    with pytest.raises(Invalid, match="risk is a team"), database.begin() as connection:
        tokens.issue(connection, "risk", lifetime=DAY, now=NOW)
