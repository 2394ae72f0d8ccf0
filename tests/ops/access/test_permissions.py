"""Permissions: what a grant gives, how it reaches people, what a refusal says."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.access.permissions import (
    EVERYTHING,
    PATTERN,
    Grant,
    Kind,
    Membership,
    Permission,
    covers,
    decide,
    gives,
    groups_of,
    members_of,
    refusal_of,
)
from serve.settings import NAME_PATTERN

LETTERS = "ab-"
names = st.from_regex(NAME_PATTERN, fullmatch=True) | st.text(LETTERS[:2], min_size=1, max_size=6)
patterns = st.text(LETTERS[:2] + "*", min_size=1, max_size=6)
permissions = st.sampled_from(Permission)
principals = st.sampled_from("pqrstuvw")
memberships = st.lists(st.builds(Membership, principals, principals), max_size=20)
grants = st.builds(Grant, principals, st.just(Kind.TEAM), permissions, patterns)


def person(name: str, permission: Permission, pattern: str) -> Grant:
    return Grant(name, Kind.PERSON, permission, pattern)


def test_admin_of_everything_may_do_everything() -> None:
    held = [person("ana", Permission.ADMIN, EVERYTHING)]
    for permission in Permission:
        for model in ("sentiment", "risk-*", EVERYTHING):
            assert decide("ana", {}, held, permission, model).allowed


@pytest.mark.parametrize("permission", [p for p in Permission if p != Permission.ADMIN])
def test_every_permission_gives_itself_and_reading_and_nothing_else(permission: Permission) -> None:
    grant = person("ana", permission, "sentiment")
    given_by_it = {other for other in Permission if gives(grant, other, "sentiment")}
    assert given_by_it == {permission, Permission.READ}
    assert not any(gives(grant, other, "sentiments") for other in Permission)


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("sentiment", "sentiment", True),
        ("sentiment", "sentiment-2", False),
        ("risk-*", "risk-", True),
        ("risk-*", "risk-cards", True),
        ("risk-*", "risk", False),
        ("*", "anything", True),
        ("*-prod", "risk-prod", True),
        # All that a pattern fits.
        ("risk-*", "risk-cards-*", True),
        ("risk-*", "risk*", False),
        ("risk-*", "*", False),
        ("*", "*", True),
    ],
)
def test_patterns(pattern: str, model: str, fits: bool) -> None:
    assert covers(pattern, model) == fits


@given(outer=patterns, inner=patterns, name=names)
def test_what_covers_a_pattern_covers_every_name_of_it(outer: str, inner: str, name: str) -> None:
    if covers(outer, inner) and covers(inner, name):
        assert covers(outer, name)


@given(patterns)
def test_a_pattern_is_one_that_may_be_granted(pattern: str) -> None:
    assert re.fullmatch(PATTERN, pattern)
    assert covers(EVERYTHING, pattern)


@given(principals, memberships, st.lists(grants, max_size=8), grants, permissions, names)
def test_another_grant_never_takes_a_right_away(
    who: str,
    inside: list[Membership],
    held: list[Grant],
    more: Grant,
    permission: Permission,
    model: str,
) -> None:
    groups = groups_of(who, inside)
    before = decide(who, groups, held, permission, model)
    assert decide(who, groups, [*held, more], permission, model).allowed >= before.allowed


@given(principals, memberships, st.lists(grants, max_size=8), permissions, names)
def test_only_grants_of_oneself_and_ones_groups_count(
    who: str, inside: list[Membership], held: list[Grant], permission: Permission, model: str
) -> None:
    groups = groups_of(who, inside)
    decision = decide(who, groups, held, permission, model)
    own = [grant for grant in held if grant.holder in {who, *groups}]
    assert decision.allowed == any(gives(grant, permission, model) for grant in own)
    assert decision.grant is None or decision.grant in own


@given(principals, memberships)
def test_groups_and_members_are_the_same_relation(who: str, inside: list[Membership]) -> None:
    groups = groups_of(who, inside)
    assert set(groups) == {group for group in "pqrstuvw" if who in members_of(group, inside)}
    for group, through in groups.items():
        assert Membership(through, group) in inside
        assert through == who or through in groups


@given(st.lists(st.builds(Membership, principals, principals), max_size=40))
def test_memberships_that_are_not_refused_make_no_cycle(wanted: list[Membership]) -> None:
    inside: list[Membership] = []
    for membership in wanted:
        member, group = membership
        kind = Kind.DEPARTMENT
        if refusal_of((member, kind), (group, kind), inside) is None:
            inside.append(membership)
        else:
            # It would have closed one: the group is in the member already, or is it.
            assert member == group or group in members_of(member, inside)
    for principal in "pqrstuvw":
        upwards = [principal, *groups_of(principal, inside)]
        assert not any(Membership(group, principal) in inside for group in upwards)


@pytest.mark.parametrize(
    ("member", "group", "says"),
    [
        (("ana", Kind.PERSON), ("bob", Kind.PERSON), "bob is a person and cannot"),
        (("ana", Kind.PERSON), ("bank", Kind.DEPARTMENT), "only have teams and departments"),
        (("risk", Kind.TEAM), ("cards", Kind.TEAM), "team, which can only have persons"),
        (("bank", Kind.DEPARTMENT), ("risk", Kind.TEAM), "which can only have persons"),
        (("bank", Kind.DEPARTMENT), ("bank", Kind.DEPARTMENT), "cannot be in itself"),
        (("group", Kind.DEPARTMENT), ("bank", Kind.DEPARTMENT), "bank is already in group"),
        (("ana", Kind.PERSON), ("risk", Kind.TEAM), None),
        (("risk", Kind.TEAM), ("bank", Kind.DEPARTMENT), None),
        (("bank", Kind.DEPARTMENT), ("holding", Kind.DEPARTMENT), None),
    ],
)
def test_who_can_be_in_what(
    member: tuple[str, Kind], group: tuple[str, Kind], says: str | None
) -> None:
    inside = [Membership("bank", "retail"), Membership("retail", "group")]
    refused = refusal_of(member, group, inside)
    assert refused is None if says is None else refused is not None and says in refused


def test_grant_on_a_department_reaches_the_persons_of_its_teams() -> None:
    chain = ("ana", "mlops", "platform", "group")
    groups = groups_of("ana", [Membership(*pair) for pair in pairwise(chain)])
    held = [Grant("platform", Kind.DEPARTMENT, Permission.RELEASE, "sent*")]
    decision = decide("ana", groups, held, Permission.RELEASE, "sentiment")
    assert decision.allowed
    assert decision.why == (
        "allowed by the grant to department platform (release on sent*), in which ana is through "
        "mlops"
    )


def test_the_nearest_grant_that_names_the_permission_is_told() -> None:
    held = [
        person("ana", Permission.ADMIN, "*"),
        Grant("risk", Kind.TEAM, Permission.APPROVE, "sentiment"),
    ]
    decision = decide("ana", {"risk": "ana"}, held, Permission.APPROVE, "sentiment")
    assert decision.grant == held[1]


def test_refusal_says_what_is_missing_and_whom_to_ask() -> None:
    held = [
        person("bob", Permission.ADMIN, "*"),
        Grant("risk", Kind.TEAM, Permission.APPROVE, "sentiment"),
        person("ana", Permission.RELEASE, "sentiment"),
    ]
    decision = decide("ana", {}, held, Permission.APPROVE, "sentiment")
    assert decision.why == (
        "ana lacks the permission approve on sentiment; ask bob (admin on *) or team risk "
        "(approve on sentiment)"
    )


def test_refusal_names_a_few_of_many() -> None:
    held = [person(f"p{number}", Permission.ADMIN, "*") for number in range(8)]
    why = decide("ana", {}, held, Permission.READ, "sentiment").why
    assert why.endswith("p4 (admin on *) or 3 more")
    assert decide("ana", {}, [], Permission.READ, "m").why.endswith("no person or group has it")
