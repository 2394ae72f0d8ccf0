"""Apps that are deployed anew: on the ledger, with a limit, and then an alert."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ops.access.ledger import entries, verify
from ops.health import alerts
from ops.operator.repairs import Repairs, Round
from ops.releases.releases import Release
from ops.releases.state_machine import Position, ReleaseState
from ops.scaling.backlog import Backlog
from ops.serving import apps
from ops.sql.database import Database
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from stream.schema import ConsumerRecord
from stream.settings import PipelineSettings
from tests.ops.upkeep import NOW, Apps, Clock, Kafka, running

WORDS = PipelineSettings(
    name="words", model="m", input_topics=("in",), output_topic="out", telemetry_interval_s=1
)
APP, VERSION = "pipeline-words", "m@1"


class Platform:
    """A pipeline and a version, and what the operator does about them every second."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock()
        self.apps = Apps({APP: running(), VERSION: running()})
        self.kafka = Kafka({"words": Backlog(reachable_since_s=-1000.0)})
        self.told = Observations()
        self.at_work = False
        self.releases: list[Release] = []
        self.beats = True
        self.repairs = self.operator()

    def operator(self) -> Repairs:
        return Repairs(
            PlatformView(self.database, self.told, cast(apps.Apps, self.apps)),
            self.kafka,
            pipelines=[WORDS],
            deploys={APP: lambda cluster: None},
            deadline_s=10.0,
            may=lambda: not self.at_work,
            clock=self.clock,
        )

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            now = self.clock.advance(1)
            if self.beats:
                self.told.add([self.heartbeat()])
            wanted: dict[str, Any] = {VERSION: lambda: None}
            self.repairs.tick(Round(now, {}, self.releases, wanted))

    def heartbeat(self) -> ConsumerRecord:
        return ConsumerRecord(
            pipeline="words",
            consumer=0,
            model="m",
            pid=1,
            at_ms=int(self.clock.now.timestamp() * 1000),
            epoch=1,
            versions=("1",),
            waiting=0,
            committed_ago_s=1.0,
            trouble=None,
            ended=False,
        )

    def ledger(self) -> list[tuple[str, str, str | None]]:
        with self.database.read() as connection:
            assert verify(connection) is None
            return [(r.action, r.reason, r.model) for r in entries(connection)][::-1]

    def alerts(self) -> list[str]:
        with self.database.read() as connection:
            return [alert.what for alert in alerts.page(connection)]


@pytest.fixture
def platform(database: Database) -> Platform:
    return Platform(database)


def test_healthy_platform_is_left_alone(platform: Platform) -> None:
    platform.run(300)
    assert platform.apps.remade == []
    assert platform.ledger() == []


def test_pipeline_that_tells_nothing_is_restarted(platform: Platform) -> None:
    platform.run(100)
    platform.beats = False
    platform.run(50)
    assert platform.apps.remade == []
    platform.run(12)
    assert platform.apps.remade == [APP]
    ((action, reason, model),) = platform.ledger()
    assert (action, model) == ("app.repair", "m")
    assert reason.startswith("pipeline-words: consumer 0 sent no heartbeat for ")
    platform.beats = True
    platform.run(300)
    assert platform.apps.remade == [APP]


def test_broker_that_is_away_is_no_reason_to_restart(platform: Platform) -> None:
    platform.beats = False
    platform.kafka.backlogs["words"] = Backlog()
    platform.run(300)
    assert platform.apps.remade == []


def test_consumer_that_was_just_added_has_time_to_tell(platform: Platform) -> None:
    platform.run(100)
    platform.apps.found[APP] = running(2)
    platform.run(25)
    assert platform.apps.remade == []
    platform.run(60)
    assert platform.apps.remade == [APP]


def test_dead_version_is_deployed_anew_until_that_is_an_alert(platform: Platform) -> None:
    platform.apps.found[VERSION] = running(0, status="DEPLOY_FAILED", message="boom")
    platform.run(1000)
    assert platform.apps.remade == [VERSION] * 3
    rows = platform.ledger()
    assert [action for action, _, _ in rows] == ["app.repair"] * 3 + ["app.give_up"]
    assert rows[0][1] == "m@1: its deployment failed: boom; attempt 1 of 3"
    (alert,) = platform.alerts()
    assert "its deployment failed: boom, and it was redeployed 3 times within" in alert
    platform.run(7200)
    assert len(platform.apps.remade) == 3  # no loop, however long it lasts
    platform.apps.found[VERSION] = running()
    platform.run(1)
    assert platform.alerts() == []


def test_operator_that_takes_over_goes_on_counting(platform: Platform) -> None:
    platform.apps.found[VERSION] = running(0, status="DEPLOY_FAILED")
    platform.run(100)
    assert len(platform.apps.remade) == 2
    platform.repairs = platform.operator()
    platform.run(600)
    assert len(platform.apps.remade) == 3
    assert len(platform.alerts()) == 1
    platform.repairs = platform.operator()
    platform.run(7200)
    assert len(platform.apps.remade) == 3
    assert len(platform.alerts()) == 1


def test_app_that_could_not_be_deployed_says_why(platform: Platform) -> None:
    del platform.apps.found[APP]
    platform.apps.faults[APP] = "wants 64 CPU"
    platform.run(2)
    assert platform.ledger()[0][1] == (
        "pipeline-words: it could not be deployed: wants 64 CPU; attempt 1 of 3"
    )


def test_app_that_is_being_deployed_is_left_alone(platform: Platform) -> None:
    del platform.apps.found[APP]
    platform.apps.busy.add(APP)
    platform.run(100)
    assert platform.apps.remade == []


def test_nothing_is_done_while_up_or_down_is_at_work(platform: Platform) -> None:
    del platform.apps.found[APP]
    platform.at_work = True
    platform.run(100)
    assert platform.apps.remade == []
    platform.at_work = False
    platform.run(1)
    assert platform.apps.remade == [APP]


def test_version_that_a_release_loads_is_the_releases_affair(platform: Platform) -> None:
    class Loading:
        model, label, position = "m", "1", Position(ReleaseState.LOADING)

    platform.releases = [cast(Release, Loading())]
    platform.apps.found[VERSION] = running(0, status="DEPLOY_FAILED")
    platform.run(100)
    assert platform.apps.remade == []


def test_when_it_is_is_told_in_the_ledger(platform: Platform) -> None:
    del platform.apps.found[APP]
    platform.run(16)
    with platform.database.read() as connection:
        (row,) = entries(connection)
    assert (row.at - NOW).total_seconds() == 16
    assert row.evidence == {"app": APP}
