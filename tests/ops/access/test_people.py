"""Principals, memberships and grants as rows, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.access import grants, people
from ops.access.permissions import Kind, Membership, Permission
from ops.errors import Conflict, Invalid, NotFound
from ops.sql.database import Database

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def company(database: Database) -> Database:
    """ana in team mlops, bob in team risk; mlops in platform, which is in bank."""
    with database.begin() as connection:
        for name, kind in (
            ("ana", Kind.PERSON),
            ("bob", Kind.PERSON),
            ("mlops", Kind.TEAM),
            ("risk", Kind.TEAM),
            ("platform-it", Kind.DEPARTMENT),
            ("bank", Kind.DEPARTMENT),
        ):
            people.add(connection, name, kind, now=NOW)
        for member, group in (
            ("ana", "mlops"),
            ("bob", "risk"),
            ("mlops", "platform-it"),
            ("platform-it", "bank"),
        ):
            people.join(connection, member, group)
        grants.give(connection, "ana", Permission.ADMIN, "*", by="ana", now=NOW)
    return database


@pytest.mark.parametrize(
    "name",
    ["", "Ana", "-ana", "a b", "a/b", "a" * 64, "ana\n", "'; DROP TABLE tokens", "operator", "up"],
)
def test_names_that_nobody_can_have(database: Database, name: str) -> None:
    with pytest.raises(Invalid, match="a valid name of a"), database.begin() as connection:
        people.add(connection, name, Kind.PERSON, now=NOW)


def test_a_name_is_given_once(company: Database) -> None:
    with pytest.raises(Conflict, match="already a team risk"), company.begin() as connection:
        people.add(connection, "risk", Kind.PERSON, now=NOW)
    with company.begin() as connection:
        people.disable(connection, "bob", now=NOW)
    with pytest.raises(Conflict, match="can be enabled"), company.begin() as connection:
        people.add(connection, "bob", Kind.PERSON, now=NOW)


def test_pages_go_by_name(company: Database) -> None:
    both = (Kind.TEAM, Kind.DEPARTMENT)
    with company.read() as connection:
        first = people.page(connection, kinds=both, limit=3)
        rest = people.page(connection, kinds=both, limit=3, after=first[-1].name)
    assert [found.name for found in first] == ["bank", "mlops", "platform-it"]
    assert [found.name for found in rest] == ["risk"]


def test_memberships_above_go_through_all_groups(company: Database) -> None:
    with company.read() as connection:
        assert people.memberships_above(connection, "ana") == [
            Membership("ana", "mlops"),
            Membership("mlops", "platform-it"),
            Membership("platform-it", "bank"),
        ]
        assert people.memberships_above(connection, "bank") == []
        assert people.members(connection, "bank") == {"ana"}


def test_nothing_comes_through_a_group_that_is_disabled(company: Database) -> None:
    with company.begin() as connection:
        people.disable(connection, "platform-it", now=NOW)
        assert people.memberships_above(connection, "ana") == [Membership("ana", "mlops")]
        assert people.members(connection, "bank") == frozenset()
        people.enable(connection, "platform-it")
        assert people.members(connection, "bank") == {"ana"}
        people.disable(connection, "ana", now=NOW)
        assert people.members(connection, "bank") == frozenset()


def test_cycles_and_doubles_are_refused(company: Database) -> None:
    with pytest.raises(Invalid, match="is already in bank"), company.begin() as connection:
        people.join(connection, "bank", "platform-it")
    with pytest.raises(Conflict, match="is already in mlops"), company.begin() as connection:
        people.join(connection, "ana", "mlops")


def test_cycle_through_a_disabled_group_is_refused(company: Database) -> None:
    with company.begin() as connection:
        people.disable(connection, "platform-it", now=NOW)
    with pytest.raises(Invalid, match="is already in bank"), company.begin() as connection:
        people.join(connection, "bank", "platform-it")


def test_leaving(company: Database) -> None:
    with company.begin() as connection:
        people.leave(connection, "ana", "mlops")
        assert people.memberships_above(connection, "ana") == []
    with pytest.raises(NotFound, match="ana is not in mlops"), company.begin() as connection:
        people.leave(connection, "ana", "mlops")
    with pytest.raises(NotFound, match="no person, team"), company.begin() as connection:
        people.leave(connection, "nobody", "mlops")


def test_disabling_and_enabling_twice_is_told(company: Database) -> None:
    with pytest.raises(Conflict, match="not disabled"), company.begin() as connection:
        people.enable(connection, "bob")
    with company.begin() as connection:
        people.disable(connection, "bob", now=NOW)
    with pytest.raises(Conflict, match="already disabled"), company.begin() as connection:
        people.disable(connection, "bob", now=NOW)


def test_grants_are_given_once_and_taken(company: Database) -> None:
    with company.begin() as connection:
        row = grants.give(connection, "risk", Permission.APPROVE, "risk-*", by="ana", now=NOW)
        assert str(row) == "team risk (approve on risk-*)"
        assert grants.find_row(connection, row.id) == row
        assert grants.held_by(connection, ["bob", "risk"]) == [row]
        assert grants.page(connection, after_id=row.id - 1) == [row]
    with pytest.raises(Conflict, match="already"), company.begin() as connection:
        grants.give(connection, "risk", Permission.APPROVE, "risk-*", by="ana", now=NOW)
    with company.begin() as connection:
        grants.take(connection, row)
        assert grants.page(connection, holder="risk") == []
    with pytest.raises(NotFound, match=f"no grant {row.id}"), company.read() as connection:
        grants.find_row(connection, row.id)


@pytest.mark.parametrize("pattern", ["", "Risk", "risk?", "[ab]", "a b", "-a", "a" * 64, "é*"])
def test_patterns_that_fit_no_model(company: Database, pattern: str) -> None:
    with pytest.raises(Invalid, match="matches no model"), company.begin() as connection:
        grants.give(connection, "bob", Permission.READ, pattern, by="ana", now=NOW)


def test_grants_of_the_disabled_are_not_in_force(company: Database) -> None:
    with company.begin() as connection:
        grants.give(connection, "risk", Permission.APPROVE, "*", by="ana", now=NOW)
        people.disable(connection, "risk", now=NOW)
        assert [grant.holder for grant in grants.in_force(connection)] == ["ana"]


def test_somebody_must_stay_admin_of_everything(company: Database) -> None:
    def locked_out() -> pytest.RaisesExc[Conflict]:
        return pytest.raises(Conflict, match="no person would be left")

    with company.read() as connection:
        row = grants.page(connection, holder="ana")[0]
    with locked_out(), company.begin() as connection:
        grants.take(connection, row)
    with company.begin() as connection:  # a team in which nobody would be, and part of all models
        grants.give(connection, "bank", Permission.ADMIN, "*", by="ana", now=NOW)
        grants.give(connection, "bob", Permission.ADMIN, "risk-*", by="ana", now=NOW)
    with locked_out(), company.begin() as connection:
        people.disable(connection, "ana", now=NOW)
        grants.require_an_admin(connection)
    with locked_out(), company.begin() as connection:
        people.leave(connection, "ana", "mlops")
        grants.take(connection, row)
    with company.begin() as connection:  # ana is admin through bank
        grants.take(connection, row)
