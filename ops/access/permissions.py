"""Decides who may do what to which model, by permissions, name patterns and groups. Pure.

A grant on a group applies to all of its members, also through groups within it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

# A model name, in which any number of stars may stand for any characters.
PATTERN = r"^[a-z0-9*][a-z0-9*-]{0,62}$"
EVERYTHING = "*"
MAX_HOLDERS_TOLD = 5


class Permission(StrEnum):
    """Permitted action; any permission includes read."""

    READ = "read"
    REGISTER = "register"
    RELEASE = "release"
    APPROVE = "approve"
    ROLLBACK = "rollback"
    BREAK_GLASS = "break-glass"
    ADMIN = "admin"  # all of the above, and the right to give them to others


class Kind(StrEnum):
    """Kind of principal that holds grants."""

    PERSON = "person"
    TEAM = "team"
    DEPARTMENT = "department"


# Kinds of members that each kind of group may have.
HOLDS: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.PERSON: (),
    Kind.TEAM: (Kind.PERSON,),
    Kind.DEPARTMENT: (Kind.TEAM, Kind.DEPARTMENT),
}


class Membership(NamedTuple):
    """Membership of one principal in another, by their names."""

    member: str
    group: str


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A permission on every model whose name matches.

    Attributes:
        holder: Name of the principal.
        kind: Kind of the holder.
        pattern: Pattern of names, such as ``sentiment``, ``risk-*`` or ``*``.
    """

    holder: str
    kind: Kind
    permission: Permission
    pattern: str

    def __str__(self) -> str:
        holder = self.holder if self.kind == Kind.PERSON else f"{self.kind} {self.holder}"
        return f"{holder} ({self.permission} on {self.pattern})"


class AccessDecision(NamedTuple):
    """Result of a permission check.

    Attributes:
        why: A sentence without its full stop: the grant that allows it; or what is missing, and
            who has it.
        grant: The grant that allows it; None if none does.
    """

    allowed: bool
    why: str
    grant: Grant | None


def decide(
    principal: str,
    groups: Mapping[str, str],
    grants: Iterable[Grant],
    permission: Permission,
    model: str,
) -> AccessDecision:
    """Decide whether a principal may do something to a model.

    Args:
        principal: Name of the caller.
        groups: Result of ``groups_of``.
        grants: At least those of the principal and its groups; with those of others, a refusal
            says whom to ask.
        model: Name of the model; a pattern stands for all models that it matches.
    """
    giving = sorted(grant for grant in grants if gives(grant, permission, model))
    own = [grant for grant in giving if grant.holder == principal or grant.holder in groups]
    if not own:
        return AccessDecision(False, _refusal(principal, permission, model, giving), None)
    # Prefer a grant of the permission itself, then that of the nearest holder.
    nearest = min(
        own, key=lambda g: (g.permission != permission, len(_way(principal, groups, g.holder)))
    )
    way = _way(principal, groups, nearest.holder)
    through = f", in which {principal} is through {' and '.join(way[1:-1])}" if way[2:] else ""
    return AccessDecision(True, f"allowed by the grant to {nearest}{through}", nearest)


def gives(grant: Grant, permission: Permission, model: str) -> bool:
    """Return whether a grant gives a permission on a model, or on all that a pattern matches."""
    implies = permission == Permission.READ or grant.permission in (permission, Permission.ADMIN)
    return implies and covers(grant.pattern, model)


def covers(pattern: str, model: str) -> bool:
    """Return whether a pattern matches a name, or every name that another pattern matches."""
    # Only a star of this pattern can match a star of the other one, and it also matches whatever
    # that star stands for.
    return fnmatchcase(model, pattern)


def groups_of(principal: str, memberships: Iterable[Membership]) -> dict[str, str]:
    """Return all groups of a principal, nearest first, each with the member that links to it."""
    joined: dict[str, list[str]] = defaultdict(list)
    for membership in memberships:
        joined[membership.member].append(membership.group)
    return _reached(principal, joined)


def members_of(group: str, memberships: Iterable[Membership]) -> frozenset[str]:
    """Return every principal in a group, also through groups within it."""
    held: dict[str, list[str]] = defaultdict(list)
    for membership in memberships:
        held[membership.group].append(membership.member)
    return frozenset(_reached(group, held))


def refusal_of(
    member: tuple[str, Kind], group: tuple[str, Kind], memberships: Sequence[Membership]
) -> str | None:
    """Return why one principal cannot be added to another; None if it can.

    Args:
        member: Name and kind of the member; likewise for the group.
        memberships: All existing memberships.
    """
    (name, kind), (group_name, group_kind) = member, group
    if group_kind == Kind.PERSON:
        return f"{group_name} is a person and cannot have members; name a team or a department"
    if kind not in HOLDS[group_kind]:
        held = " and ".join(f"{kind}s" for kind in HOLDS[group_kind])
        return f"{group_name} is a {group_kind}, which can only have {held}; {name} is a {kind}"
    if name == group_name:
        return f"{name} cannot be in itself"
    if group_name in members_of(name, memberships):
        return f"{group_name} is already in {name}, so {name} cannot be in {group_name}"
    return None


def _reached(start: str, edges: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        here = waiting.popleft()
        for there in edges.get(here, ()):
            if there not in found and there != start:
                found[there] = here
                waiting.append(there)
    return found


def _way(principal: str, groups: Mapping[str, str], holder: str) -> list[str]:
    """Return the path from the principal up to the holder of a grant, both included."""
    way = [holder]
    while way[0] != principal:
        way.insert(0, groups[way[0]])
    return way


def _refusal(principal: str, permission: Permission, model: str, holders: Sequence[Grant]) -> str:
    missing = f"{principal} lacks the permission {permission} on {model}"
    if not holders:
        return f"{missing}, and no person or group has it"
    named = [str(grant) for grant in holders[:MAX_HOLDERS_TOLD]]
    more = len(holders) - len(named)
    others = [f"{more} more"] if more else []
    return f"{missing}; ask {_listed(named + others)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
