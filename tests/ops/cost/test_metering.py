"""What models use and cost while the operator looks on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from ops.access.ledger import entries
from ops.config.prices import NodePrice, PriceTable
from ops.cost import usage
from ops.cost.metering import UsageMeter
from ops.errors import NotRunning
from ops.health import alerts
from ops.policy import store as policy_store
from ops.policy.file import load
from ops.serving import apps
from ops.serving.cluster import Node
from ops.serving.nodes import Machines
from ops.sql.database import Database
from ops.sql.tables import models
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from stream.settings import PipelineSettings
from tests.ops.scaling.windows import window
from tests.ops.upkeep import NODES, NOW, Apps, Clock, running

WORDS = PipelineSettings(name="words", model="m", input_topics=("in",), output_topic="out")
PRICES = PriceTable(cpu_hour=100.0, node_types={"big": NodePrice(cpu_hour=1000.0)})


class Platform:
    """One version with half a CPU and one consumer, and who counts them."""

    def __init__(self, database: Database, *, prices: PriceTable | None = PRICES) -> None:
        self.database, self.clock = database, Clock()
        self.apps = Apps({"m@1": running(2), "pipeline-words": running(), "stranger": running()})
        self.told = Observations(counted_from_ms=5_000)
        machines = Machines(lambda: NODES, grows=False)
        machines.refresh()
        self.accounts = UsageMeter(
            PlatformView(database, self.told, cast(apps.Apps, self.apps)),
            machines,
            least={"m": 1},
            pipelines=[WORDS],
            prices=prices,
        )
        with database.begin() as connection:
            connection.execute(models.insert().values(name="m", created_at=NOW, created_by="root"))

    def run(self, seconds: int, *, step: int = 1) -> None:
        for _ in range(0, seconds, step):
            self.accounts.tick(self.clock.advance(step))

    def limit(self, per_day: float) -> None:
        text = f"model: m\ncost: {{ceiling_per_day: {per_day}, warn_at: 0.5}}\n"
        with self.database.begin() as connection:
            policy = load(text, now=NOW)
            policy_store.put(connection, policy, text, author="root", now=NOW)

    def used(self) -> list[Any]:
        with self.database.read() as connection:
            rows = usage.totals(connection, NOW - timedelta(days=1))
        return [(*row.source[1:], row.replica_s, row.cpu_s, row.predictions) for row in rows]

    def alerts(self) -> list[str]:
        with self.database.read() as connection:
            return [alert.key for alert in alerts.page(connection)]


@pytest.fixture
def platform(database: Database) -> Platform:
    return Platform(database)


def test_replicas_consumers_and_predictions_are_counted(platform: Platform) -> None:
    platform.run(1)
    platform.told.add([window("1", answers=700), window("2", answers=5)])
    platform.run(60)
    assert platform.used() == [
        (None, "words", None, 60.0, 30.0, 0),
        ("1", None, None, 120.0, 60.0, 700),
    ]


def test_windows_of_before_were_counted_by_who_was_there(platform: Platform) -> None:
    platform.run(1)
    platform.told.add([window("1").model_copy(update={"end_ms": 4_999})])
    platform.run(60)
    assert {row[-1] for row in platform.used()} == {0}


def test_time_that_nobody_watched_is_not_counted(platform: Platform) -> None:
    platform.run(600, step=300)
    assert [row[3] for row in platform.used()] == [0.0, 0.0]


def test_nodes_of_another_kind_have_their_own_row(platform: Platform) -> None:
    platform.apps.found["m@1"] = running(3, nodes={"node-a": 1, "node-b": 2})
    platform.run(61)
    rows = {row[:3]: row[3] for row in platform.used()}
    assert rows["1", None, None] == 60.0
    assert rows["1", None, "big"] == 120.0


def test_ceiling_warns_then_caps_and_ends_with_the_day(platform: Platform) -> None:
    # 1.5 CPUs are 150 an hour.
    platform.limit(50)
    platform.run(8 * 60)
    assert (platform.alerts(), platform.accounts.caps) == ([], {})
    platform.run(4 * 60)
    assert (platform.alerts(), platform.accounts.caps) == (["cost/warn/m"], {})
    platform.run(10 * 60)
    assert (platform.alerts(), platform.accounts.caps) == (["cost/cap/m"], {"m": 1})
    with platform.database.read() as connection:
        rows = [(row.action, row.model) for row in entries(connection)][::-1]
    assert rows == [("cost.warn", "m"), ("cost.cap", "m")]
    platform.run(16 * 3600, step=3600)
    assert (platform.alerts(), platform.accounts.caps) == ([], {})


def test_ceiling_without_prices_is_an_alert(database: Database) -> None:
    platform = Platform(database, prices=None)
    platform.limit(50)
    platform.run(60)
    assert (platform.alerts(), platform.accounts.caps) == (["cost/unpriced/m"], {})


def test_machines_of_a_cluster_that_does_not_grow() -> None:
    found: list[Node] = [*NODES]

    def ask() -> list[Node]:
        if not found:
            raise NotRunning("away")
        return found

    machines = Machines(ask, grows=False)
    assert machines.total() is None
    machines.refresh()
    assert machines.total() == {"CPU": 10.0, "GPU": 1.0}
    assert [machines.kind(node) for node in ("node-a", "node-b", "node-c")] == [None, "big", None]
    found.clear()
    machines.refresh()
    assert machines.total() == {"CPU": 10.0, "GPU": 1.0}  # the last answer holds
    growing = Machines(lambda: [*NODES], grows=True)
    growing.refresh()
    assert growing.total() is None
