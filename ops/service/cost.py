"""Actions of the control API: costs of models, cost advice and alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ops.access import grants
from ops.access.permissions import EVERYTHING, Grant, Kind, Permission, gives
from ops.access.transactions import Access, Actor, Attempt
from ops.catalogue.versions import number_of
from ops.config.prices import PriceTable
from ops.cost import usage, workloads
from ops.cost.advice import (
    LOWER_AFTER_H,
    RAISE_AFTER_H,
    Advice,
    Measurement,
    Workload,
    advise,
    measured,
)
from ops.cost.billing import ALL_COLUMNS, NO_TEAM, Bill, Column, Usage, summarise
from ops.health import alerts
from ops.health.alerts import Alert
from ops.service.health import may_read_key

# Without prices only hours are reported.
FREE = PriceTable(cpu_hour=0.0)
# A version without measurements for longer than this is no longer running.
STILL_RUNNING = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Costs:
    """Bills of some days.

    Attributes:
        since: Beginning of the first day, in UTC.
        currency: Currency of all costs; None if there are no prices, and then all costs are 0.
    """

    since: datetime
    currency: str | None
    bills: list[Bill]


@dataclass(frozen=True, slots=True)
class Advised:
    """Advice on what to change, and the measurements behind it.

    Attributes:
        since: Beginning of the first day, in UTC.
        currency: Currency of savings; None if there are no prices, and then advice has no costs.
        raise_after_h, lower_after_h: Hours for which a version is measured before advice to make
            something larger, or smaller.
        watched: Measurements of the running versions.
        advice: Advice, largest saving first.
    """

    since: datetime
    currency: str | None
    watched: list[Measurement]
    advice: list[Advice]
    raise_after_h: float = RAISE_AFTER_H
    lower_after_h: float = LOWER_AFTER_H


class CostActions:
    """Costs and cost advice as one person may read them."""

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
        """Return usage and costs; requires ``read`` on the model, or on all models.

        Args:
            days: Number of days up to today, in UTC.
        Raises:
            NotAllowed: Not retriable.
        """
        since, tomorrow = self._days(days)
        attempt = Attempt("cost.read", Permission.READ, model or EVERYTHING)
        with self._access.reading(actor, attempt) as connection:
            rows = usage.between(connection, since, tomorrow, model=model)
            held = grants.in_force(connection)
        teams = {name: paying_team(name, held) for name in {row.source.model for row in rows}}
        bills = summarise(rows, self._prices or FREE, teams, by=by)
        return Costs(since, self._currency, bills)

    def advice(self, actor: Actor, *, model: str | None = None, days: int = 7) -> Advised:
        """Return what would be cheaper or faster; requires ``read`` on the model, or on all models.

        Args:
            days: Number of days up to today, in UTC, whose load counts.
        Raises:
            NotAllowed: Not retriable.
        """
        since, tomorrow = self._days(days)
        attempt = Attempt("cost.read", Permission.READ, model or EVERYTHING)
        with self._access.reading(actor, attempt) as connection:
            done = workloads.since(connection, since, model=model)
            used = usage.between(connection, since, tomorrow, model=model)
        newest = {(row.model, row.label): row.until for row in done}
        running_since = self._access.clock() - STILL_RUNNING
        rows = [row for row in done if newest[row.model, row.label] >= running_since]
        watched = measured(rows, _node_types(rows, used))
        return Advised(since, self._currency, watched, advise(watched, self._prices))

    @property
    def _currency(self) -> str | None:
        return self._prices.currency if self._prices else None

    def _days(self, days: int) -> tuple[datetime, datetime]:
        """Return the beginning of the first day and the end of today, in UTC."""
        now = self._access.clock().astimezone(UTC)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=days - 1), today + timedelta(days=1)


class AlertActions:
    """Alerts as one person may read them: ``read`` on the model, else on all models."""

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
        """Return alerts that the actor may read, newest first."""
        shown: list[Alert] = []
        with self._access.reading(actor, Attempt("alerts.read", None)) as connection:
            while len(shown) < limit:
                found = alerts.page(
                    connection, open_only=not closed_too, limit=limit, before_id=before_id
                )
                if not found:
                    break
                shown += [alert for alert in found if may_read_key(actor, alert.key, {})]
                before_id = found[-1].id
        return shown[:limit]


def _node_types(
    rows: Sequence[Workload], used: Sequence[Usage]
) -> dict[tuple[str, str], str | None]:
    """Return the node type on which each version's replicas ran longest."""
    seconds: dict[tuple[str, str | None], dict[str | None, float]] = {}
    for row in used:
        source = row.source
        own = seconds.setdefault((source.model, source.version), {})
        own[source.node_type] = own.get(source.node_type, 0.0) + row.replica_s
    return {
        (row.model, row.label): max(kinds, key=kinds.__getitem__)
        for row in rows
        if (kinds := seconds.get((row.model, str(number_of(row.label)))))
    }


def paying_team(model: str, held: Sequence[Grant]) -> str:
    """Return the team or department that may release a model, by its most specific grant.

    Returns:
        Its name; ``NO_TEAM`` if only individual people may release the model.
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
