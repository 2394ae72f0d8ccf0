"""Deaths of the operator: written down once each, an alert and a finding where they repeat."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ops.access import ledger
from ops.access.ledger import OPERATOR
from ops.cli.health import without_operator
from ops.health import alerts
from ops.health.findings import Severity
from ops.health.probes import DatabaseProbe
from ops.health.readings import Expected, Readings
from ops.health.restarts import ACTION, KEY, WITHIN, record, update_alert
from ops.health.rules import judge
from ops.platform.supervisor import SupervisorNote
from ops.sql.database import Database

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NOTHING = Expected((), frozenset(), frozenset())


def died(*minutes_ago: float) -> SupervisorNote:
    moments = tuple((NOW - timedelta(minutes=ago)).timestamp() for ago in minutes_ago)
    return SupervisorNote(pid=1, deaths=moments, how="SIGKILL", lived_s=35.0)


def test_first_start_is_no_restart(database: Database) -> None:
    with database.begin() as connection:
        record(connection, SupervisorNote(pid=1), NOW)
    with database.read() as connection:
        assert ledger.entries(connection) == []
        assert alerts.open_keys(connection) == set()


def test_a_death_is_a_row_and_the_third_in_an_hour_an_alert(database: Database) -> None:
    for note in (died(50), died(50, 20)):
        with database.begin() as connection:
            record(connection, note, NOW)
    with database.read() as connection:
        assert alerts.open_keys(connection) == set()
    with database.begin() as connection:
        record(connection, died(50, 20, 1), NOW)
    with database.read() as connection:
        row, *others = ledger.entries(connection)
        (alert,) = alerts.page(connection)
    assert len(others) == 2
    assert (row.actor, row.action) == (OPERATOR, ACTION)
    assert "died 3 times, the last time after 35 s (SIGKILL)" in row.reason
    assert (alert.key, alert.severity) == (KEY, Severity.DEGRADED)
    assert alert.since == NOW - timedelta(minutes=50)


def test_health_tells_of_it_until_an_hour_has_passed(database: Database) -> None:
    note = died(50, 20, 1)
    with database.begin() as connection:
        record(connection, note, NOW)
    probe = DatabaseProbe(database, lambda: NOW)

    def troubles() -> dict[str, datetime]:
        readings = Readings(at=NOW, began=NOW, database=probe())
        return {f.key: f.since for f in judge(NOTHING, readings).findings if f.is_trouble}

    assert troubles() == {KEY: NOW - timedelta(minutes=50)}
    with database.begin() as connection:
        update_alert(connection, note, NOW + WITHIN - timedelta(minutes=19))
    assert troubles() == {}
    with database.read() as connection:
        assert len(ledger.entries(connection)) == 1  # looking adds no row


def test_health_without_an_operator_says_that_it_is_started_again(tmp_path: Path) -> None:
    died(1)._replace(pid=None, next_at=datetime.now(UTC).timestamp() + 30).save(tmp_path)
    (finding,) = without_operator("nobody listens", tmp_path, lives=False)["findings"]
    assert "nobody listens; it has died once" in finding["what"]
    assert "restarts automatically" in finding["todo"]
    assert "bertstream up" not in finding["todo"]


def test_health_beside_an_operator_that_has_just_started_says_to_wait(tmp_path: Path) -> None:
    died(1)._replace(pid=os.getpid(), next_at=None).save(tmp_path)
    (finding,) = without_operator("nobody listens", tmp_path, lives=False)["findings"]
    assert "a new operator has started" in finding["todo"]
    assert "bertstream up" not in finding["todo"]
