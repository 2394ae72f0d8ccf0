"""Records the usage of models in SQL and compares its cost with their ceilings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from ops.access.ledger import OPERATOR, Entry, append
from ops.config.prices import PriceTable
from ops.cost import usage
from ops.cost.billing import (
    Ceiling,
    CeilingState,
    Spending,
    Usage,
    UsageSample,
    UsageSource,
    ceiling,
    money,
    summarise,
    usage_of,
)
from ops.health import alerts, kinds
from ops.health.alerts import raise_alert
from ops.health.findings import Finding, Severity
from ops.policy import store as policy_store
from ops.serving.nodes import Machines
from ops.serving.observed_app import ObservedApp
from ops.view import PlatformView
from serve.contract import AppName
from stream.settings import PipelineSettings

EVERY = timedelta(seconds=15)
# Usage between samples further apart is unknown.
MAX_GAP = timedelta(seconds=60)
HOUR_S = 3600.0
# Prefix of the keys of alerts about cost.
KEYS = "cost/"


class UsageMeter:
    """Samples all running apps every few seconds; used by the leading operator only.

    Attributes:
        caps: Upper limits of replicas, by model, if its ceiling is reached.
    """

    def __init__(
        self,
        view: PlatformView,
        machines: Machines,
        *,
        least: Mapping[str, int],
        pipelines: Sequence[PipelineSettings],
        prices: PriceTable | None,
    ) -> None:
        """Begin without samples.

        Args:
            least: Replicas of each model that run regardless of cost.
            prices: None if only hours are counted.
        """
        self._database, self._observations, self._apps = view
        self._machines = machines
        self._least = least
        self._pipelines = {pipeline.app_name: pipeline for pipeline in pipelines}
        self._prices = prices
        self._before: list[UsageSample] = []
        self._next: datetime | None = None
        self.caps: Mapping[str, int] = {}

    def tick(self, now: datetime) -> None:
        """Record usage since the last sample, if a sample is due.

        Raises:
            OpsError: The database does not answer; the usage is recorded later.
        """
        if self._next is not None and now < self._next:
            return
        samples = [
            sample for name, app in self._apps.found.items() for sample in self._of(name, app, now)
        ]
        used = usage_of([*self._before, *samples], max_gap=MAX_GAP)
        with self._database.begin() as connection:
            usage.add(connection, used)
            ceilings = self._ceilings(connection, samples, now)
            _alert(connection, ceilings, now)
        self.caps = {
            model: found.max_replicas
            for model, found in ceilings.items()
            if found is not None and found.max_replicas is not None
        }
        self._before, self._next = samples, now + EVERY

    def _of(self, name: str, app: ObservedApp, now: datetime) -> Iterator[UsageSample]:
        """Yield one sample for each node type that an app runs on."""
        pipeline = self._pipelines.get(name)
        model, label, _ = AppName.parse(name)
        if pipeline is not None:
            source, predictions = UsageSource(pipeline.model, pipeline=pipeline.name), 0
        elif model in self._least:
            source, predictions = (
                UsageSource(model, label),
                self._observations.answers(model, label),
            )
        else:
            return
        kinds: Counter[str | None] = Counter({None: 0})
        for node, replicas in app.nodes.items():
            kinds[self._machines.kind(node)] += replicas
        for kind, replicas in kinds.items():
            yield UsageSample(
                now,
                source._replace(node_type=kind),
                replicas,
                num_cpus=app.resources.get("CPU", 0.0),
                num_gpus=app.resources.get("GPU", 0.0),
                # Counted once, regardless of the nodes that made them.
                predictions=predictions if kind is None else 0,
            )

    def _ceilings(
        self, connection: Connection, samples: Sequence[UsageSample], now: datetime
    ) -> dict[str, Ceiling | None]:
        """Return the ceiling of each model that has one; None if prices are unknown."""
        kept = policy_store.all_in_force(connection, [*self._least])
        limits = {model: held.policy().cost for model, held in kept.items()}
        limits = {model: cost for model, cost in limits.items() if cost.ceiling_per_day is not None}
        if self._prices is None or not limits:
            return dict.fromkeys(limits)
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        bills = summarise(usage.totals(connection, midnight), self._prices, {}, by=("model",))
        spent = {bill.model: bill.money for bill in bills}
        return {
            model: ceiling(
                Spending(
                    spent.get(model, 0.0), self._per_hour(model, samples), self._prices.currency
                ),
                now,
                ceiling_per_day=limit.ceiling_per_day,
                warn_at=limit.warn_at,
                min_replicas=self._least[model],
            )
            for model, limit in limits.items()
        }

    def _per_hour(self, model: str, samples: Sequence[UsageSample]) -> float:
        """Return the cost per hour at the present size."""
        assert self._prices is not None  # called only if there are prices
        return sum(
            money(
                Usage(
                    sample.at,
                    sample.source,
                    cpu_s=HOUR_S * sample.replicas * sample.num_cpus,
                    gpu_s=HOUR_S * sample.replicas * sample.num_gpus,
                ),
                self._prices,
            )
            for sample in samples
            if sample.source.model == model
        )


def _alert(connection: Connection, ceilings: Mapping[str, Ceiling | None], now: datetime) -> None:
    """Update the alerts to the ceilings; each new alert also gets a row in the ledger."""
    found = {model: _finding(model, known, now) for model, known in ceilings.items()}
    notices = {model: notice for model, notice in found.items() if notice is not None}
    keys = {notice.key for notice in notices.values()}
    for key in alerts.open_keys(connection, KEYS) - keys:
        alerts.close(connection, key, now)
    begun = [(m, notice) for m, notice in notices.items() if raise_alert(connection, notice, now)]
    for model, notice in begun:
        action = notice.key.removeprefix(KEYS).partition("/")[0]
        entry = Entry(
            at=now, actor=OPERATOR, action=f"cost.{action}", model=model, reason=notice.what
        )
        append(connection, entry)


def _finding(model: str, found: Ceiling | None, now: datetime) -> Finding | None:
    if found is None:
        what = f"the policy of {model} has a cost ceiling, but the configuration has no prices"
        return kinds.CEILING_UNPRICED.found(Severity.DEGRADED, what, now, model=model)
    if found.state is CeilingState.OK:
        return None
    capped = found.state is CeilingState.CAP
    kind = kinds.CEILING_REACHED if capped else kinds.CEILING_NEAR
    return kind.found(Severity.DEGRADED, f"{model}: {found.sentence}", now, model=model)
