"""Actions of the control API: people, teams, departments, grants and tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta

from ops.access import grants, people, tokens
from ops.access.grants import GrantRow
from ops.access.people import Principal
from ops.access.permissions import Kind, Membership, Permission, groups_of
from ops.access.tokens import Issued, Token
from ops.access.transactions import Access, Actor, Attempt


@dataclass(frozen=True, slots=True)
class PrincipalProfile(Principal):
    """One principal with its groups, members and grants.

    Attributes:
        groups: Groups that contain it, directly or through others, nearest first.
        members: Its direct members.
        grants: Its own grants, and those of its groups.
    """

    groups: list[str]
    members: list[str]
    grants: list[GrantRow]


class PeopleActions:
    """People as one of them may see and change them.

    Memberships decide permissions and approvals, so changing them requires ``admin`` on all
    models. An actor with ``admin`` on any model sees everyone; all others see themselves and
    their groups.
    """

    def __init__(self, access: Access) -> None:
        self._access = access

    def add(self, actor: Actor, name: str, kind: Kind) -> Principal:
        """Add a principal.

        Raises:
            NotAllowed, Invalid, Conflict: Not retriable.
        """
        attempt = Attempt("principal.add", Permission.ADMIN)
        with self._access.change(actor, attempt, rights=True) as change:
            change.describe(evidence={"name": name, "kind": kind})
            return people.add(change.connection, name, kind, now=change.now)

    def disable(self, actor: Actor, name: str) -> Principal:
        """Disable a principal: its tokens and grants have no effect until it is enabled.

        Raises:
            NotAllowed, NotFound, Conflict: Not retriable.
        """
        attempt = Attempt("principal.disable", Permission.ADMIN)
        with self._access.change(actor, attempt, rights=True) as change:
            change.describe(evidence={"name": name})
            people.disable(change.connection, name, now=change.now)
            grants.require_an_admin(change.connection)
            return people.find(change.connection, name)

    def enable(self, actor: Actor, name: str) -> Principal:
        """Enable a disabled principal.

        Raises:
            NotAllowed, NotFound, Conflict: Not retriable.
        """
        attempt = Attempt("principal.enable", Permission.ADMIN)
        with self._access.change(actor, attempt, rights=True) as change:
            change.describe(evidence={"name": name})
            people.enable(change.connection, name)
            return people.find(change.connection, name)

    def principals(
        self, actor: Actor, kinds: tuple[Kind, ...], *, limit: int, after: str = ""
    ) -> list[Principal]:
        """Return the principals after ``after`` that the actor may see, sorted by name."""
        with self._access.reading(actor, Attempt("principal.list", None)) as connection:
            if _sees_all(actor):
                return people.page(connection, kinds=kinds, limit=limit, after=after)
            own = [people.find(connection, name) for name in sorted(_own(actor)) if name > after]
        return [principal for principal in own if principal.kind in kinds][:limit]

    def show(self, actor: Actor, name: str) -> PrincipalProfile:
        """Return a principal with its groups, members and grants; requires ``admin`` unless it is
        the actor or one of the actor's groups.

        Raises:
            NotAllowed, NotFound: Not retriable.
        """
        permission = None if _sees_all(actor) or name in _own(actor) else Permission.ADMIN
        attempt = Attempt("principal.show", permission, is_read=True)
        with self._access.reading(actor, attempt) as connection:
            principal = people.find(connection, name)
            groups = groups_of(name, people.memberships_above(connection, name))
            inside = people.all_memberships(connection)
            held = grants.held_by(connection, [name, *groups])
        direct = [membership.member for membership in inside if membership.group == name]
        return PrincipalProfile(
            **asdict(principal), groups=list(groups), members=direct, grants=held
        )

    def join(self, actor: Actor, member: str, group: str) -> None:
        """Add a principal to a team or department.

        Raises:
            NotAllowed, NotFound, Invalid, Conflict: Not retriable.
        """
        attempt = Attempt("membership.add", Permission.ADMIN)
        with self._access.change(actor, attempt, rights=True) as change:
            change.describe(evidence=Membership(member, group)._asdict())
            people.join(change.connection, member, group)

    def leave(self, actor: Actor, member: str, group: str) -> None:
        """Remove a principal from a team or department.

        Raises:
            NotAllowed, NotFound, Conflict: Not retriable.
        """
        attempt = Attempt("membership.remove", Permission.ADMIN)
        with self._access.change(actor, attempt, rights=True) as change:
            change.describe(evidence=Membership(member, group)._asdict())
            people.leave(change.connection, member, group)
            grants.require_an_admin(change.connection)

    def give(self, actor: Actor, holder: str, permission: Permission, pattern: str) -> GrantRow:
        """Grant a permission; requires ``admin`` on every model that the pattern matches.

        Raises:
            NotAllowed, NotFound, Invalid, Conflict: Not retriable.
        """
        grants.require_pattern(pattern)
        attempt = Attempt("grant.add", Permission.ADMIN, pattern)
        with self._access.change(actor, attempt, rights=True) as change:
            row = grants.give(
                change.connection, holder, permission, pattern, by=actor.name, now=change.now
            )
            change.describe(evidence=_given(row))
            return row

    def take(self, actor: Actor, number: int) -> GrantRow:
        """Revoke a permission; requires ``admin`` on every model that its pattern matches.

        Raises:
            NotAllowed, NotFound, Conflict: Not retriable.
        """
        with self._access.reading(actor, Attempt("grant.show", None)) as connection:
            pattern = grants.find_row(connection, number).pattern  # it never changes
        attempt = Attempt("grant.remove", Permission.ADMIN, pattern)
        with self._access.change(actor, attempt, rights=True) as change:
            row = grants.find_row(change.connection, number)
            change.describe(evidence=_given(row))
            grants.take(change.connection, row)
            return row

    def grants(
        self, actor: Actor, *, holder: str | None, limit: int, after_id: int = 0
    ) -> list[GrantRow]:
        """Return the grants after ``after_id`` that the actor may see, sorted by ID."""
        with self._access.reading(actor, Attempt("grant.list", None)) as connection:
            if _sees_all(actor):
                return grants.page(connection, holder=holder, limit=limit, after_id=after_id)
            rows = grants.page(connection, holder=holder, after_id=after_id)
        return [row for row in rows if row.holder in _own(actor)][:limit]

    def issue(self, actor: Actor, holder: str, *, lifetime: timedelta | None) -> Issued:
        """Create a token; one of another person requires ``admin`` on all models.

        It expires no later than the token that creates it.

        Args:
            lifetime: Time until it expires; None for a token that never expires.
        Raises:
            NotAllowed, NotFound, Invalid: Not retriable.
        """
        attempt = Attempt("token.create", _of_another(actor, holder))
        with self._access.change(actor, attempt, rights=True) as change:
            maker = tokens.by_id(change.connection, actor.token_id)
            issued = tokens.issue(
                change.connection, holder, lifetime=lifetime, now=change.now, maker=maker
            )
            change.describe(evidence=_evidence(issued.token))
            return issued

    def revoke(self, actor: Actor, number: int) -> Token:
        """Revoke a token; one of another person requires ``admin`` on all models.

        Raises:
            NotAllowed, NotFound, Conflict: Not retriable.
        """
        with self._access.reading(actor, Attempt("token.show", None)) as connection:
            holder = tokens.by_id(connection, number).holder  # it never changes
        attempt = Attempt("token.revoke", _of_another(actor, holder))
        with self._access.change(actor, attempt, rights=True) as change:
            token = tokens.by_id(change.connection, number)
            change.describe(evidence=_evidence(token))
            tokens.revoke(change.connection, token, now=change.now)
            return tokens.by_id(change.connection, number)

    def tokens(
        self, actor: Actor, *, holder: str | None, limit: int, after_id: int = 0
    ) -> list[Token]:
        """Return tokens without secrets; those of others require ``admin`` on all models.

        Raises:
            NotAllowed: Not retriable.
        """
        attempt = Attempt("token.list", _of_another(actor, holder), is_read=True)
        with self._access.reading(actor, attempt) as connection:
            return tokens.page(connection, holder=holder, limit=limit, after_id=after_id)


def _sees_all(actor: Actor) -> bool:
    """Return whether an actor may grant permissions and therefore needs to see everyone."""
    return any(grant.permission is Permission.ADMIN for grant in actor.grants)


def _own(actor: Actor) -> set[str]:
    return {actor.name, *actor.groups}


def _of_another(actor: Actor, holder: str | None) -> Permission | None:
    """Return the permission that a holder's tokens require: none for the actor's own."""
    return None if holder == actor.name else Permission.ADMIN


def _given(row: GrantRow) -> dict[str, object]:
    named = ("id", "holder", "kind", "permission", "pattern")
    return {name: getattr(row, name) for name in named}


def _evidence(token: Token) -> dict[str, object]:
    ends = token.expires_at and token.expires_at.isoformat()
    return {"id": token.id, "holder": token.holder, "prefix": token.prefix, "expires_at": ends}
