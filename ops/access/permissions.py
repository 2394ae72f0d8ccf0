"""Who may do what to which model: permissions, patterns of names, groups. Pure.

A grant on a group reaches everybody in it, also through groups within it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

# A name of a model, in which any number of stars stand for any characters.
PATTERN = r"^[a-z0-9*][a-z0-9*-]{0,62}$"
EVERYTHING = "*"
MAX_HOLDERS_TOLD = 5


class Permission(StrEnum):
    """What may be done; whoever has any of them may also read."""

    READ = "read"
    REGISTER = "register"
    RELEASE = "release"
    APPROVE = "approve"
    ROLLBACK = "rollback"
    BREAK_GLASS = "break-glass"
    ADMIN = "admin"  # all of the above, and giving them to others


class Kind(StrEnum):
    """What holds grants."""

    PERSON = "person"
    TEAM = "team"
    DEPARTMENT = "department"


# What each kind of group may hold.
HOLDS: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.PERSON: (),
    Kind.TEAM: (Kind.PERSON,),
    Kind.DEPARTMENT: (Kind.TEAM, Kind.DEPARTMENT),
}


class Membership(NamedTuple):
    """That one principal is in another, by their names."""

    member: str
    group: str


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """A permission on every model whose name fits.

    Attributes:
        holder: Name of the principal.
        kind: Of the holder.
        pattern: Such as ``sentiment``, ``risk-*`` or ``*``.
    """

    holder: str
    kind: Kind
    permission: Permission
    pattern: str

    def __str__(self) -> str:
        holder = self.holder if self.kind == Kind.PERSON else f"{self.kind} {self.holder}"
        return f"{holder} ({self.permission} on {self.pattern})"


class AccessDecision(NamedTuple):
    """The answer.

    Attributes:
        why: A sentence without its full stop: which grant allows it; or what is missing, and who
            has it.
        grant: That allows it; None where none does.
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
    """Whether a principal may do something to a model.

    Args:
        principal: Name of who asks.
        groups: Of ``groups_of``.
        grants: Those of the principal and the groups at least; with those of others, a refusal
            says whom to ask.
        model: Its name; a pattern asks for all models that it fits.
    """
    giving = sorted(grant for grant in grants if gives(grant, permission, model))
    own = [grant for grant in giving if grant.holder == principal or grant.holder in groups]
    if not own:
        return AccessDecision(False, _refusal(principal, permission, model, giving), None)
    # The one that names the permission itself, of the nearest holder.
    nearest = min(
        own, key=lambda g: (g.permission != permission, len(_way(principal, groups, g.holder)))
    )
    way = _way(principal, groups, nearest.holder)
    through = f", in which {principal} is through {' and '.join(way[1:-1])}" if way[2:] else ""
    return AccessDecision(True, f"allowed by the grant to {nearest}{through}", nearest)


def gives(grant: Grant, permission: Permission, model: str) -> bool:
    """Whether a grant gives a permission on a model, or on all models that a pattern fits."""
    implies = permission == Permission.READ or grant.permission in (permission, Permission.ADMIN)
    return implies and covers(grant.pattern, model)


def covers(pattern: str, model: str) -> bool:
    """Whether a pattern fits a name, or every name that another pattern fits."""
    # A star of the other pattern can only be taken by a star of this one, which would take
    # whatever stands for it.
    return fnmatchcase(model, pattern)


def groups_of(principal: str, memberships: Iterable[Membership]) -> dict[str, str]:
    """Every group that a principal is in, the nearest first, each with the member it is in by."""
    joined: dict[str, list[str]] = defaultdict(list)
    for membership in memberships:
        joined[membership.member].append(membership.group)
    return _reached(principal, joined)


def members_of(group: str, memberships: Iterable[Membership]) -> frozenset[str]:
    """Every principal in a group, also through groups within it."""
    held: dict[str, list[str]] = defaultdict(list)
    for membership in memberships:
        held[membership.group].append(membership.member)
    return frozenset(_reached(group, held))


def refusal_of(
    member: tuple[str, Kind], group: tuple[str, Kind], memberships: Sequence[Membership]
) -> str | None:
    """Why one principal cannot be put into another; None where it can.

    Args:
        member: Name and kind; likewise the group.
        memberships: All that are there.
    """
    (name, kind), (group_name, group_kind) = member, group
    if group_kind == Kind.PERSON:
        return f"{group_name} is a person and holds nobody; name a team or a department"
    if kind not in HOLDS[group_kind]:
        held = " and ".join(f"{kind}s" for kind in HOLDS[group_kind])
        return f"{group_name} is a {group_kind} and holds {held}; {name} is a {kind}"
    if name == group_name:
        return f"{name} cannot be in itself"
    if group_name in members_of(name, memberships):
        return f"{group_name} is in {name} already, so {name} cannot be in {group_name}"
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
    """From the principal up to the holder of a grant, both included."""
    way = [holder]
    while way[0] != principal:
        way.insert(0, groups[way[0]])
    return way


def _refusal(principal: str, permission: Permission, model: str, holders: Sequence[Grant]) -> str:
    missing = f"{principal} has not the permission {permission} on {model}"
    if not holders:
        return f"{missing}, and nobody known has"
    told = [str(grant) for grant in holders[:MAX_HOLDERS_TOLD]]
    more = len(holders) - len(told)
    others = [f"{more} more"] if more else []
    return f"{missing}; ask {_listed(told + others)}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
