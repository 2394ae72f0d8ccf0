"""The operator's round: what it publishes, and who leads after a death."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import insert

from ops.operator.loop import LEASE_LASTS, Operator
from ops.releases.facts import FactFinder
from ops.releases.routes import put_route, unpublished
from ops.serving import apps
from ops.sql.database import Database
from ops.sql.tables import models
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from stream.errors import BrokerUnreachable
from stream.schema import ControlRecord, VersionRoute
from tests.ops.upkeep import NOW, Clock

NAMES = ("a", "b", "c")


@dataclass
class Topic:
    """The control topic, on a broker that goes away after some records."""

    room: int = 100
    records: list[str] = field(default_factory=list)

    def publish(self, record: ControlRecord) -> None:
        if len(self.records) >= self.room:
            raise BrokerUnreachable("it is gone")
        self.records.append(record.model)


class NoReleases:
    def refresh(self, found: object) -> None:
        pass


class NoApps:
    found: dict[str, apps.ObservedApp] = {}  # noqa: RUF012

    def refresh(self) -> None:
        pass

    def reconcile(self, *_: object) -> None:
        pass


def operator_of(database: Database, topic: Topic, clock: Clock, holder: str) -> Operator:
    return Operator(
        PlatformView(database, Observations(), cast(apps.Apps, NoApps())),
        topic,
        cast(FactFinder, NoReleases()),
        {},
        clock=lambda: clock.now,
        holder=holder,
    )


def test_routes_that_the_broker_has_are_not_sent_again(database: Database) -> None:
    with database.begin() as connection:
        for name in NAMES:
            row = {"name": name, "created_at": NOW, "created_by": "ada"}
            connection.execute(insert(models).values(row))
            versions = {"1": VersionRoute(weight=1.0)}
            put_route(connection, ControlRecord(model=name, epoch=1, versions=versions))
    topic = Topic(room=2)
    operator = operator_of(database, topic, Clock(), "first")
    with pytest.raises(BrokerUnreachable):
        operator.publish()
    with database.read() as connection:
        assert len(unpublished(connection)) == 1
    topic.room = 100
    operator.publish()
    assert sorted(topic.records) == [*NAMES]
    with database.read() as connection:
        assert unpublished(connection) == []


def test_successor_of_a_dead_one_leads_at_once_under_its_name(database: Database) -> None:
    clock = Clock()
    operator_of(database, Topic(), clock, "ours").tick()  # and is killed
    clock.advance(2)
    successor, other = (operator_of(database, Topic(), clock, name) for name in ("ours", "other"))
    for one in (other, successor):
        one.tick()
    assert (successor.leads, other.leads) == (True, False)
    clock.advance(LEASE_LASTS / timedelta(seconds=1) + 1)
    other.tick()
    assert other.leads
