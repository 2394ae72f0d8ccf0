"""What the operator does beside releases, from the round to the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import insert

from ops.access.ledger import entries
from ops.catalogue.deployments import keep_deployment
from ops.config.scaling import ScalingSettings
from ops.cost import workloads
from ops.cost.metering import UsageMeter
from ops.cost.utilisation import LoadSampler
from ops.operator.loop import LEASE, LEASE_LASTS, Operator
from ops.operator.repairs import Repairs
from ops.operator.upkeep import Scaling, Upkeep
from ops.releases.facts import FactFinder
from ops.releases.routes import put_route
from ops.scaling.backlog import Backlog
from ops.scaling.rates import OffsetSample, Rates
from ops.scaling.scaler import Scaler
from ops.serving import apps
from ops.serving.nodes import Machines
from ops.sql.database import Database
from ops.sql.lease import acquire
from ops.sql.tables import models
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from serve.settings import ModelSettings
from stream.schema import ControlRecord, VersionRoute
from stream.settings import PipelineSettings
from tests.ops.operator.serve import Serve
from tests.ops.scaling.windows import window
from tests.ops.upkeep import NODES, NOW, Clock, Kafka, running

WORDS = PipelineSettings(name="words", model="m", input_topics=("in",), output_topic="out")
MODEL = ModelSettings(name="m", path=Path("."))
SCALING = ScalingSettings(max_replicas=50, target_drain_s=10, up_delay_s=0)
FULL = Rates(OffsetSample(0.0, 4000.0, 0.0), 0.0, 100.0)


class Topic:
    def publish(self, record: ControlRecord) -> None:
        pass


class NoReleases:
    def refresh(self, found: object) -> None:
        pass


class Platform:
    """A version with a backlog before it, and its operator."""

    def __init__(self, database: Database, *, scaling: ScalingSettings | None = SCALING) -> None:
        self.database, self.clock = database, Clock()
        self.serve = Serve({"m@1": running(), "pipeline-words": running()})
        self.kafka = Kafka({"words": Backlog(FULL, 4, 0.0, 0.0)})
        told = Observations()
        now_ms = int(NOW.timestamp() * 1000)
        engine = {"engine": "openvino", "precision": "f32"}
        times = {"start_ms": now_ms - 10_000, "end_ms": now_ms}
        told.add([window().model_copy(update=engine | times)])
        machines = Machines(lambda: NODES, grows=False)
        machines.refresh()
        deploys = {"pipeline-words": lambda cluster: None}
        view = PlatformView(database, told, cast(apps.Apps, self.serve))
        upkeep = Upkeep(
            UsageMeter(view, machines, least={"m": 1}, pipelines=[WORDS], prices=None),
            Repairs(
                view,
                self.kafka,
                pipelines=[WORDS],
                deploys=deploys,
                deadline_s=1.0,
                clock=self.clock,
            ),
            Scaling(
                view,
                Scaler(scaling, [MODEL], [WORDS]),
                machines,
                pipelines=[WORDS],
                backlogs=self.kafka,
                clock=self.clock,
            )
            if scaling
            else None,
            LoadSampler(view, has_bf16=False),
        )
        self.operator = Operator(
            view,
            Topic(),
            cast(FactFinder, NoReleases()),
            {"m": MODEL},
            clock=lambda: self.clock.now,
            upkeep=upkeep,
        )
        with database.begin() as connection:
            connection.execute(insert(models).values(name="m", created_at=NOW, created_by="ada"))
            keep_deployment(connection, "m", "1", {}, NOW)
            put_route(
                connection,
                ControlRecord(model="m", epoch=1, versions={"1": VersionRoute(weight=1.0)}),
            )

    def tick(self) -> None:
        self.clock.advance(1)
        self.operator.tick()

    def ledger(self) -> list[Any]:
        with self.database.read() as connection:
            return entries(connection)[::-1]


@pytest.fixture
def platform(database: Database) -> Platform:
    return Platform(database)


def test_each_change_of_size_is_one_row_of_the_ledger(platform: Platform) -> None:
    for _ in range(2):
        platform.tick()
    assert platform.serve.scaled == [("m@1", 4), ("m@1", 7)]  # in steps of four times at most
    first, second = platform.ledger()
    assert (first.actor, first.action, first.model, first.version) == (
        "operator",
        "app.scale",
        "m",
        1,
    )
    assert (first.from_state, first.to_state) == ("1", "4")
    assert first.reason.startswith("m@1: 4 replicas instead of 1: lag 4,000")
    assert first.evidence["rate_per_replica"] == 100.0
    assert (second.from_state, second.to_state) == ("4", "7")


def test_size_keeps_to_what_the_machines_have_left(platform: Platform) -> None:
    # Of 10 CPUs half a one is the consumer's; 19 replicas of half a CPU fit into the rest.
    platform.kafka.backlogs["words"] = Backlog(
        FULL._replace(sample=OffsetSample(0.0, 1e6, 0)), 4, 0, 0
    )
    for _ in range(5):
        platform.tick()
    assert platform.serve.scaled[-1] == ("m@1", 19)


def test_nothing_is_done_by_what_serve_said_before_it_went_away(platform: Platform) -> None:
    platform.serve.away = True
    platform.tick()
    assert platform.serve.scaled == []
    platform.serve.away = False
    platform.tick()
    assert platform.serve.scaled == [("m@1", 4)]


def test_what_replicas_do_is_watched_for_advice(platform: Platform) -> None:
    for _ in range(16):
        platform.tick()
    with platform.database.read() as connection:
        (row,) = workloads.since(connection, NOW)
    assert (row.label, row.size.max_replicas, row.watched_s) == ("1", 50, 15.0)


def test_without_scaling_sizes_stay(database: Database) -> None:
    platform = Platform(database, scaling=None)
    platform.tick()
    assert platform.serve.scaled == []


def test_operator_that_does_not_lead_leaves_everything_alone(platform: Platform) -> None:
    with platform.database.begin() as connection:
        assert acquire(connection, LEASE, "another", now=NOW, lasts=LEASE_LASTS)
    platform.tick()
    assert platform.serve.scaled == []


def test_faults_of_repaired_apps_are_remembered(platform: Platform) -> None:
    platform.tick()
    assert "pipeline-words" in platform.serve.others
    assert set(platform.serve.wanted) == {"m@1"}
