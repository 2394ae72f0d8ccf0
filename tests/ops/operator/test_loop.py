"""The operator's rounds while something that it needs is away, and on a stream without records."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import select

from ops.access import ledger
from ops.errors import DatabaseUnavailable
from ops.operator.loop import Operator
from ops.releases import releases
from ops.releases.releases import Release
from ops.releases.routes import all_routes
from ops.releases.state_machine import Event, ReleaseState
from ops.serving import apps
from ops.sql.database import Database
from ops.sql.tables import routes
from ops.view import PlatformView
from stream.errors import BrokerUnreachable
from stream.schema import ControlRecord
from tests.ops.installation import NOW, install
from tests.ops.operator.serve import Serve
from tests.ops.releases.under_way import TO_CANARY, Releases

DEADLINE_S = 20.0


class Topic:
    """The control topic, on a broker that may be away."""

    def __init__(self) -> None:
        self.away = False
        self.records: list[ControlRecord] = []

    def publish(self, record: ControlRecord) -> None:
        if self.away:
            raise BrokerUnreachable("no broker answers")
        self.records.append(record)


class Ended(Serve):
    def close(self) -> None:
        pass


class Canary:
    """A canary under way, and the operator that sees to it."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.there = Releases(install(database, folder), folder)
        self.database, self.topic, self.now = database, Topic(), NOW
        self.release = self.there.start(*TO_CANARY)
        self.operator = Operator(
            PlatformView(database, self.there.told, cast(apps.Apps, Ended())),
            self.topic,
            self.there.finder(),
            {},
            clock=lambda: self.now,
        )
        self.operator.tick()

    def tick(self, later: timedelta = timedelta(seconds=1)) -> Release:
        self.now += later
        self.operator.tick()
        return self.reread()

    def reread(self) -> Release:
        with self.database.read() as connection:
            return releases.get(connection, self.release.id)

    def roll_back(self) -> None:
        self.there.move(self.reread(), Event.ROLLBACK)

    def epochs(self) -> tuple[int, int | None]:
        """In force, and on the topic as far as is known."""
        with self.database.read() as connection:
            row = connection.execute(select(routes.c.epoch, routes.c.published_epoch)).one()
        return row.epoch, row.published_epoch


@pytest.fixture
def canary(database: Database, tmp_path: Path) -> Canary:
    return Canary(database, tmp_path)


def test_route_of_a_rollback_waits_for_a_broker_that_is_gone_in_mid_canary(canary: Canary) -> None:
    assert canary.tick().position.state is ReleaseState.CANARY
    before = canary.topic.records[-1].epoch
    canary.topic.away = True
    canary.roll_back()
    for _ in range(3):
        with pytest.raises(BrokerUnreachable):
            canary.tick()
    assert canary.reread().position.state is ReleaseState.ROLLING_BACK
    assert canary.epochs() == (before + 1, before)

    canary.topic.away = False
    assert canary.tick().position.state is ReleaseState.ROLLED_BACK
    assert [record.epoch for record in canary.topic.records] == [before, before + 1]
    assert canary.topic.records[-1].versions.keys() == {"1"}
    assert canary.epochs() == (before + 1, before + 1)


def test_rollback_is_not_over_before_it_is_read_what_the_consumers_told(canary: Canary) -> None:
    assert canary.tick().position.state is ReleaseState.CANARY
    canary.there.told.is_current = False
    canary.roll_back()
    assert canary.tick().position.state is ReleaseState.ROLLING_BACK
    canary.there.told.is_current = True
    assert canary.tick().position.state is ReleaseState.ROLLED_BACK


def test_canary_that_never_gets_a_record_is_paused_and_keeps_its_traffic(canary: Canary) -> None:
    assert canary.tick(timedelta(minutes=9)).position.state is ReleaseState.CANARY
    paused = canary.tick(timedelta(minutes=2))
    assert (paused.position.state, paused.position.resume) == (
        ReleaseState.PAUSED,
        ReleaseState.CANARY,
    )
    with canary.database.read() as connection:
        assert ledger.verify(connection) is None
        last = ledger.entries(connection, ledger.LedgerQuery(release_id=paused.id))[0]
        assert all_routes(connection)["sentiment"].versions["2"].weight == 0.5
    assert (last.action, last.actor) == ("release.step_inconclusive", "operator")
    assert last.reason.startswith("records: version 2 had 0 of the 1,000 that the step requires")


def test_release_goes_on_from_its_row_when_the_database_comes_back(
    sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ops.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}", timeout_s=0.5)
    canary = Canary(database, tmp_path)
    canary.roll_back()
    before = canary.reread()

    database.close()
    path.rename(tmp_path / "away.db")
    path.mkdir()
    with pytest.raises(DatabaseUnavailable):
        canary.tick()
    path.rmdir()
    (tmp_path / "away.db").rename(path)

    assert canary.reread() == before
    assert canary.tick().position.state is ReleaseState.ROLLED_BACK
    database.close()


def test_rounds_go_on_whatever_is_away(canary: Canary, caplog: pytest.LogCaptureFixture) -> None:
    """In the thread that the platform's process gives it."""
    stopping, told = threading.Event(), threading.Event()
    canary.topic.away = True
    canary.roll_back()

    def clock() -> datetime:
        if "no broker answers" in caplog.text:
            canary.topic.away = False
        if canary.topic.records[1:]:
            told.set()
        return canary.now

    canary.operator._clock = clock
    thread = threading.Thread(target=canary.operator.run, args=(stopping,), kwargs={"tick_s": 0.01})
    thread.start()
    try:
        assert told.wait(DEADLINE_S)
    finally:
        stopping.set()
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert canary.topic.records[-1].versions.keys() == {"1"}


def test_told_to_end_between_two_rounds_it_begins_no_other(canary: Canary) -> None:
    class FromNowOn(threading.Event):
        """Set as soon as somebody has asked whether it is."""

        def is_set(self) -> bool:
            was = super().is_set()
            self.set()
            return was

    canary.roll_back()
    before = canary.epochs()
    canary.operator.wake()
    canary.operator.run(FromNowOn(), tick_s=3_600.0)
    assert canary.epochs() == before
