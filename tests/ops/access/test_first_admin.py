"""The first start: one person, who is admin, and a token that others cannot read."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ops.access import grants, ledger, people, tokens
from ops.access.first_admin import ensure_local_admin
from ops.access.permissions import Kind, Permission
from ops.errors import PlatformError
from ops.sql.database import Database

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


LOST = ["revoked", "expired", "file"]


@pytest.mark.parametrize("loss", LOST)
def test_admin_who_is_locked_out_gets_a_new_token_at_the_next_start(
    database: Database, tmp_path: Path, loss: str
) -> None:
    ensure_local_admin(database, tmp_path, now=NOW)
    path = tmp_path / "token"
    lose(database, path, loss)
    lost = path.read_text() if path.exists() else ""
    told = ensure_local_admin(database, tmp_path, now=NOW)
    if loss == "file" and database.dialect == "postgresql":
        assert told is None  # whose database it is nobody can know
        return
    assert told == f"ana had no valid token; a new one is in {path}"
    assert path.read_text() != lost
    assert path.stat().st_mode & 0o777 == 0o600
    with database.read() as connection:
        token = tokens.by_secret(connection, path.read_text().strip())
        assert token is not None
        assert (token.holder, token.fault(NOW)) == ("ana", None)
        row = ledger.entries(connection)[0]
    assert (row.actor, row.action, row.evidence) == (
        "ana",
        "installation.recover",
        {"token": token.prefix},
    )
    assert ensure_local_admin(database, tmp_path, now=NOW) is None


@pytest.mark.parametrize("right", ["grant", "person", "name"])
@pytest.mark.parametrize("loss", LOST)
def test_who_is_no_admin_any_more_gets_none(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, loss: str
) -> None:
    ensure_local_admin(database, tmp_path, now=NOW)
    with database.begin() as connection:
        people.add(connection, "bob", Kind.PERSON, now=NOW)
        grants.give(connection, "bob", Permission.ADMIN, "*", by="ana", now=NOW)
        if right == "grant":
            grants.take(connection, grants.page(connection, holder="ana")[0])
        if right == "person":
            people.disable(connection, "ana", now=NOW)
    if right == "name":
        monkeypatch.setenv("LOGNAME", "eve")
    lose(database, tmp_path / "token", loss)
    assert ensure_local_admin(database, tmp_path, now=NOW) is None


def test_token_of_somebody_else_is_left(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_local_admin(database, tmp_path, now=NOW)
    with database.begin() as connection:
        people.add(connection, "bob", Kind.PERSON, now=NOW)
        issued = tokens.issue(connection, "bob", lifetime=timedelta(days=1), now=NOW)
    (tmp_path / "token").write_text(issued.secret)
    for now in (NOW, NOW + timedelta(days=2)):
        assert ensure_local_admin(database, tmp_path, now=now) is None
    assert (tmp_path / "token").read_text() == issued.secret


def lose(database: Database, path: Path, loss: str) -> None:
    """Have the token in the file count no more."""
    with database.begin() as connection:
        token = tokens.by_secret(connection, path.read_text().strip())
        assert token is not None
        if loss == "revoked":
            tokens.revoke(connection, token, now=NOW)
        elif loss == "expired":
            issued = tokens.issue(connection, "ana", lifetime=timedelta(0), now=NOW)
            path.write_text(issued.secret)
        else:
            path.unlink()


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
