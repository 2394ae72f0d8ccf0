"""What models cost, and alerts, for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ops import alerts, grants, usage
from ops.access import Access, Actor, Attempt
from ops.alerts import Alert
from ops.cost import ALL_COLUMNS, NO_TEAM, Bill, Column, PriceTable, summarise
from ops.permissions import EVERYTHING, Grant, Kind, Permission, gives

# Only hours are told then.
FREE = PriceTable(cpu_hour=0.0)


class Costs(NamedTuple):
    """Bills of some days.

    Attributes:
        since: The beginning of the first day, in UTC.
        currency: None where there are no prices; all money is 0 then.
    """

    since: datetime
    currency: str | None
    bills: list[Bill]


class CostVerbs:
    """Costs as one person may read them."""

    def __init__(self, access: Access, prices: PriceTable | None) -> None:
        self._access = access
        self._prices = prices

    def bills(
        self,
        actor: Actor,
        *,
        model: str | None = None,
        days: int = 1,
        by: Sequence[Column] = ALL_COLUMNS,
    ) -> Costs:
        """What was used and what it cost; takes ``read`` on the model, or on all models.

        Args:
            days: Today and those before, in UTC.
        Raises:
            NotAllowed: Not retriable.
        """
        now = self._access.clock().astimezone(UTC)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        since = today - timedelta(days=days - 1)
        attempt = Attempt("cost.read", Permission.READ, model or EVERYTHING)
        with self._access.look(actor, attempt) as connection:
            rows = usage.between(connection, since, today + timedelta(days=1), model=model)
            held = grants.in_force(connection)
        teams = {name: paying_team(name, held) for name in {row.source.model for row in rows}}
        bills = summarise(rows, self._prices or FREE, teams, by=by)
        return Costs(since, self._prices.currency if self._prices else None, bills)


class AlertVerbs:
    """Alerts as anybody with a token may read them: they name models and no content."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def page(
        self,
        actor: Actor,
        *,
        closed_too: bool = False,
        limit: int = 50,
        before_id: int | None = None,
    ) -> list[Alert]:
        """The newest first."""
        with self._access.look(actor, Attempt("alerts.read", None)) as connection:
            return alerts.page(
                connection, open_only=not closed_too, limit=limit, before_id=before_id
            )


def paying_team(model: str, held: Sequence[Grant]) -> str:
    """The team or department that may release a model; the one whose grant is about the fewest.

    Returns:
        ``NO_TEAM`` where persons alone may.
    """
    releasing = [
        grant
        for grant in held
        if grant.kind is not Kind.PERSON
        and grant.permission is Permission.RELEASE
        and gives(grant, Permission.RELEASE, model)
    ]
    named = min(releasing, key=lambda g: (-len(g.pattern), g.holder), default=None)
    return named.holder if named else NO_TEAM
