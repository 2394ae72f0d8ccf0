"""The first start: one person, who is admin, and a token that others cannot read."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops import grants, ledger, people, tokens
from ops.database import Database
from ops.errors import PlatformError
from ops.first_admin import ensure_local_admin
from ops.permissions import Kind

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LOGNAME", "ana")
    return "ana"


def test_first_start_makes_its_user_admin(database: Database, tmp_path: Path, user: str) -> None:
    told = ensure_local_admin(database, tmp_path / "state", now=NOW)
    path = tmp_path / "state" / "token"
    assert told == f"ana is admin of all models; the token for it is in {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    with database.read() as connection:
        token = tokens.by_secret(connection, path.read_text().strip())
        assert token is not None
        assert (token.holder, token.expires_at) == ("ana", None)
        assert [str(grant) for grant in grants.in_force(connection)] == ["ana (admin on *)"]
        (row,) = ledger.entries(connection)
    assert (row.actor, row.action) == ("ana", "installation.begin")
    assert path.read_text().strip() not in str(row)


def test_later_starts_change_nothing(database: Database, tmp_path: Path) -> None:
    ensure_local_admin(database, tmp_path, now=NOW)
    before = (tmp_path / "token").read_bytes()
    assert ensure_local_admin(database, tmp_path, now=NOW) is None
    assert (tmp_path / "token").read_bytes() == before


def test_who_joins_a_database_of_others_is_no_admin(database: Database, tmp_path: Path) -> None:
    with database.begin() as connection:
        people.add(connection, "bob", Kind.PERSON, now=NOW)
    assert ensure_local_admin(database, tmp_path, now=NOW) is None
    assert not (tmp_path / "token").exists()


def test_without_a_place_for_the_token_nothing_happens(database: Database, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with pytest.raises(PlatformError, match="cannot be written"):
        ensure_local_admin(database, tmp_path / "state", now=NOW)
    with database.read() as connection:
        assert people.is_empty(connection)
    # What a start left that was killed before its end is written over.
    (tmp_path / "state").unlink()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text("bst_of-nobody")
    (tmp_path / "state" / "token.tmp").write_text("half")
    assert ensure_local_admin(database, tmp_path / "state", now=NOW) is not None
    assert (tmp_path / "state" / "token").read_text() != "bst_of-nobody"


@pytest.mark.parametrize(
    ("login", "name"),
    [
        ("Ana.Doe", "ana.doe"),
        ("BANK\\ana", "bank-ana"),
        ("_", "local-admin"),
        ("operator", "local-admin"),
    ],
)
def test_logins_that_are_no_names(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, name: str
) -> None:
    monkeypatch.setenv("LOGNAME", login)
    assert getpass.getuser() == login
    ensure_local_admin(database, tmp_path, now=NOW)
    with database.read() as connection:
        assert people.find(connection, name).kind == Kind.PERSON
