"""Owns who is in a consumer group, and which of them are not a pipeline's own. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CONSUMER_PROTOCOL = "consumer"


class Member(NamedTuple):
    """A member of a group.

    Attributes:
        instance: Of a static member; None for others.
        client: As it calls itself.
        host: Where it connects from.
    """

    instance: str | None
    client: str
    host: str

    def __str__(self) -> str:
        return f"{self.instance or self.client} at {self.host}"


class Group(NamedTuple):
    """A group as its broker describes it.

    Attributes:
        protocol: ``consumer`` for readers of topics, another for others such as Kafka Connect;
            empty for a group that is not there.
        kind: ``classic`` as ours, or another that no classic member can join.
        members: Empty where nobody says who they are.
        is_in_use: Somebody is in it.
    """

    protocol: str
    kind: str
    members: Sequence[Member]
    is_in_use: bool


def own_client(instance: str) -> str:
    """What a consumer calls itself to the brokers."""
    return f"bertstream-{instance}"


def foreign(name: str, group: Group) -> str | None:
    """Why a pipeline of this name cannot use the group; None where none but its own are in it."""
    if not group.is_in_use:
        return None
    if group.kind != "classic":
        return f"members of the {group.kind} protocol"
    if group.protocol != CONSUMER_PROTOCOL:
        return f"members that speak {group.protocol}"
    others = [member for member in group.members if not is_own(name, member)]
    return ", ".join(map(str, others)) or None


def is_own(name: str, member: Member) -> bool:
    """Whether a member is a consumer of a pipeline of this name, of whatever installation."""
    instance = member.instance or ""
    by_rank = re.fullmatch(rf"{re.escape(name)}-\d+", instance)
    return by_rank is not None and member.client == own_client(instance)
