"""Who asks and whether they may: check, change and ledger row are one transaction."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from ops.access import grants, ledger, people, tokens
from ops.access.ledger import LedgerRow
from ops.access.permissions import Permission
from ops.access.transactions import Access, Actor, Attempt
from ops.errors import DatabaseUnavailable, NotAllowed, NotAuthenticated
from ops.sql.database import Database
from tests.ops.installation import DEADLINE_S, NOW, Installation, install
from tests.postgres import KINDS

REGISTER = Attempt("version.register", Permission.REGISTER, "sentiment", 3)


@pytest.fixture
def there(database: Database, tmp_path: Path) -> Installation:
    return install(database, tmp_path)


@pytest.fixture
def access(there: Installation) -> Access:
    return there.service.access


def actor(there: Installation, name: str) -> Actor:
    return there.service.access.authenticate(there.secrets[name])


def rows(there: Installation) -> list[LedgerRow]:
    """Of the ledger, the oldest first; the chain holds."""
    with there.database.read() as connection:
        assert ledger.verify(connection) is None
        return ledger.entries(connection)[::-1]


def test_actor_has_what_the_groups_have(there: Installation) -> None:
    ana = actor(there, "ana")
    assert list(ana.groups) == ["mlops", "platform-it"]
    assert ana.may(Permission.REGISTER, "sentiment")
    assert ana.may(Permission.READ, "sentiment")
    assert not ana.may(Permission.REGISTER, "risk-cards")
    assert not actor(there, "eve").may(Permission.READ, "sentiment")


def test_unknown_token(there: Installation, access: Access) -> None:
    with pytest.raises(NotAuthenticated, match="not known"):
        access.authenticate("bst_nobody")
    assert rows(there) == []


@pytest.mark.parametrize("fault", ["expired", "revoked", "disabled"])
def test_token_that_does_not_count_is_told_to_the_ledger_once_a_minute(
    there: Installation, access: Access, fault: str
) -> None:
    ana = actor(there, "ana")
    if fault == "expired":
        there.clock.advance(timedelta(days=30))
    with there.database.begin() as connection:
        if fault == "revoked":
            tokens.revoke(connection, tokens.by_id(connection, ana.token_id), now=NOW)
        if fault == "disabled":
            people.disable(connection, "ana", now=NOW)
    for step_s in (0, 59, 1):
        there.clock.advance(timedelta(seconds=step_s))
        with pytest.raises(NotAuthenticated, match=fault) as raised:
            actor(there, "ana")
        assert there.secrets["ana"] not in str(raised.value)
    first, second = rows(there)
    assert (first.actor, first.action, first.denied) == ("ana", "token.use", True)
    assert fault in first.reason
    assert second.at - first.at == timedelta(seconds=60)


def test_use_of_a_token_is_noted(there: Installation) -> None:
    ana = actor(there, "ana")
    for step_s, noted_s in ((30, 0), (30, 60)):
        there.clock.advance(timedelta(seconds=step_s))
        actor(there, "ana")
        with there.database.read() as connection:
            used = tokens.by_id(connection, ana.token_id).last_used_at
        assert used == NOW + timedelta(seconds=noted_s)


def test_change_and_its_row_are_there_together(there: Installation, access: Access) -> None:
    with access.change(actor(there, "ana"), REGISTER) as change:
        change.describe(reason="as agreed", evidence={"size": 7})
    (row,) = rows(there)
    assert (row.actor, row.action, row.model, row.version) == (
        "ana",
        "version.register",
        "sentiment",
        3,
    )
    assert (row.reason, row.evidence, row.denied, row.at) == ("as agreed", {"size": 7}, False, NOW)


def test_change_that_fails_leaves_neither(there: Installation, access: Access) -> None:
    root = actor(there, "root")
    with suppress(ZeroDivisionError), access.change(root, Attempt("x", None)) as change:
        people.disable(change.connection, "eve", now=NOW)
        raise ZeroDivisionError
    assert rows(there) == []
    with there.database.read() as connection:
        assert people.find(connection, "eve").disabled_at is None


def test_change_that_changes_nothing_has_no_row(there: Installation, access: Access) -> None:
    with access.change(actor(there, "ana"), REGISTER) as change:
        change.nothing_changed()
    assert rows(there) == []


@pytest.mark.parametrize("way", ["reading", "permitted", "change"])
def test_denied_attempt_does_nothing_and_is_a_row(there: Installation, way: str) -> None:
    eve = actor(there, "eve")
    with (
        pytest.raises(NotAllowed, match="ask department platform-it") as raised,
        getattr(there.service.access, way)(eve, REGISTER),
    ):
        pytest.fail("what is not allowed was begun")
    (row,) = rows(there)
    assert (row.actor, row.action, row.denied) == ("eve", "version.register", True)
    assert (row.model, row.version) == ("sentiment", 3)
    assert row.reason == str(raised.value)
    assert row.evidence == {"permission": "register", "on": "sentiment"}


READ = Attempt("version.show", Permission.READ, "sentiment", 3)


def deny(there: Installation, name: str, attempt: Attempt, *, way: str = "reading") -> None:
    with pytest.raises(NotAllowed), getattr(there.service.access, way)(actor(there, name), attempt):
        pytest.fail("what is not allowed was begun")


@pytest.mark.parametrize("read", [READ, Attempt("token.list", Permission.ADMIN, is_read=True)])
def test_denied_reads_cannot_fill_the_ledger(there: Installation, read: Attempt) -> None:
    for number in range(5):
        deny(there, "eve", read._replace(model=f"m{number}"))
    assert [row.model for row in rows(there)] == ["m0"]
    deny(there, "bob", read)
    deny(there, "eve", read._replace(action="policy.show"))
    assert len(rows(there)) == 3  # of somebody else, and of something else
    there.clock.advance(timedelta(seconds=59))
    deny(there, "eve", read)
    there.clock.advance(timedelta(seconds=1))
    deny(there, "eve", read)
    there.clock.advance(timedelta(minutes=1))
    deny(there, "eve", read)
    assert [row.evidence.get("not_told") for row in rows(there)] == [None, None, None, 5, None]


@pytest.mark.parametrize("way", ["reading", "permitted", "change"])
def test_every_denied_change_is_a_row(there: Installation, way: str) -> None:
    for _ in range(3):
        deny(there, "eve", REGISTER, way=way)
    assert len(rows(there)) == 3


def test_what_is_found_out_later_is_denied_as_well(there: Installation, access: Access) -> None:
    ana = actor(there, "ana")

    def approve() -> None:
        with access.change(ana, REGISTER) as change:
            people.disable(change.connection, "eve", now=NOW)
            raise NotAllowed("ana is the author and cannot approve")

    with pytest.raises(NotAllowed):
        approve()
    (row,) = rows(there)
    assert (row.denied, row.reason) == (True, "ana is the author and cannot approve")
    with there.database.read() as connection:
        assert people.find(connection, "eve").disabled_at is None


@pytest.mark.parametrize("loss", ["grant", "membership", "token", "person"])
def test_right_that_is_gone_since_the_token_was_shown(
    there: Installation, access: Access, loss: str
) -> None:
    ana = actor(there, "ana")
    with there.database.begin() as connection:
        if loss == "grant":
            (row,) = grants.page(connection, holder="platform-it")
            grants.take(connection, row)
        elif loss == "membership":
            people.leave(connection, "mlops", "platform-it")
        elif loss == "token":
            tokens.revoke(connection, tokens.by_id(connection, ana.token_id), now=NOW)
        else:
            people.disable(connection, "ana", now=NOW)
    gone = NotAuthenticated if loss in ("token", "person") else NotAllowed
    with pytest.raises(gone), access.change(ana, REGISTER):
        pytest.fail("what is not allowed was begun")


def test_rights_do_not_change_while_somebody_uses_them(there: Installation, access: Access) -> None:
    """Else a row could stand behind the one that took the right to make it."""
    ana, root = actor(there, "ana"), actor(there, "root")
    taken, events = threading.Event(), []

    def take() -> None:
        with access.change(root, Attempt("grant.remove", Permission.ADMIN), rights=True) as change:
            (row,) = grants.page(change.connection, holder="platform-it")
            grants.take(change.connection, row)
        events.append("taken")
        taken.set()

    other = threading.Thread(target=take)
    with access.change(ana, REGISTER):
        other.start()
        assert not taken.wait(0.3)
        events.append("used")
    assert taken.wait(DEADLINE_S)
    other.join(DEADLINE_S)
    assert events == ["used", "taken"]
    assert [row.action for row in rows(there)] == ["version.register", "grant.remove"]


@pytest.mark.parametrize("database_url", KINDS[1:], indirect=True)  # SQLite has one writer
def test_two_who_use_rights_do_not_wait_for_each_other(there: Installation, access: Access) -> None:
    first = access.permitted(actor(there, "ana"), REGISTER)
    second = access.permitted(actor(there, "root"), REGISTER)
    with first, second:
        pass


def test_reading_goes_on_while_somebody_writes(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "ops.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{tmp_path / 'ops.db'}", timeout_s=0.2)
    try:
        there = install(database, tmp_path)
        actor(there, "ana")
        there.clock.advance(timedelta(minutes=5))
        with database.begin():  # the use cannot be noted now
            assert actor(there, "ana").name == "ana"
        permitted = there.service.access.permitted(actor(there, "ana"), REGISTER)
        with database.begin(), pytest.raises(DatabaseUnavailable), permitted:
            pytest.fail("two wrote at a time")
    finally:
        database.close()
