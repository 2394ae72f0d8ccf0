"""Members of a consumer group, and which of them do not belong to a pipeline. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

CONSUMER_PROTOCOL = "consumer"


class Member(NamedTuple):
    """A member of a group.

    Attributes:
        instance: Instance id of a static member; None for other members.
        client: The member's client id.
        host: Host from which it connects.
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
            empty for a group that does not exist.
        kind: ``classic``, as used here, or another that no classic member can join.
        members: Members, if the broker reports them.
        is_in_use: Whether the group has members.
    """

    protocol: str
    kind: str
    members: Sequence[Member]
    is_in_use: bool


def own_client(instance: str) -> str:
    """Return the client id of a consumer."""
    return f"bertstream-{instance}"


def foreign(name: str, group: Group) -> str | None:
    """Return why a pipeline of this name cannot use the group; None if only its own are in it."""
    if not group.is_in_use:
        return None
    if group.kind != "classic":
        return f"members of the {group.kind} protocol"
    if group.protocol != CONSUMER_PROTOCOL:
        return f"members that speak {group.protocol}"
    others = [member for member in group.members if not is_own(name, member)]
    return ", ".join(map(str, others)) or None


def is_own(name: str, member: Member) -> bool:
    """Return whether a member is a consumer of a pipeline of this name, of any installation."""
    instance = member.instance or ""
    by_rank = re.fullmatch(rf"{re.escape(name)}-\d+", instance)
    return by_rank is not None and member.client == own_client(instance)
