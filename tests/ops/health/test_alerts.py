"""Alerts in SQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ops.health import alerts
from ops.health.alerts import raise_alert
from ops.health.findings import Finding, Severity
from ops.sql.database import Database

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NOTICE = Finding("repair/app", Severity.DOWN, "it is broken", NOW, "records wait", "look")


def test_alert_is_opened_once_brought_up_to_date_and_closed(database: Database) -> None:
    with database.begin() as connection:
        assert raise_alert(connection, NOTICE, NOW)
        later = replace(NOTICE, what="still", since=NOW + MINUTE)
        assert not raise_alert(connection, later, NOW + MINUTE)
        (found,) = alerts.page(connection)
        assert (found.what, found.since, found.opened_at) == ("still", NOW, NOW)
        assert found.severity is Severity.DOWN
        assert alerts.close(connection, NOTICE.key, NOW + 2 * MINUTE)
        assert not alerts.close(connection, NOTICE.key, NOW + 3 * MINUTE)
        assert alerts.page(connection) == []
        (over,) = alerts.page(connection, open_only=False)
        assert over.closed_at == NOW + 2 * MINUTE
        assert raise_alert(connection, NOTICE, NOW + 4 * MINUTE)


def test_pages_and_keys(database: Database) -> None:
    with database.begin() as connection:
        for number in range(5):
            raise_alert(connection, replace(NOTICE, key=f"cost/{number}"), NOW)
        raise_alert(connection, NOTICE, NOW)
        alerts.close(connection, "cost/3", NOW)
        assert alerts.open_keys(connection, "cost/") == {"cost/0", "cost/1", "cost/2", "cost/4"}
        newest = alerts.page(connection, limit=2)
        assert [found.key for found in newest] == ["repair/app", "cost/4"]
        rest = alerts.page(connection, before_id=newest[-1].id)
        assert [found.key for found in rest] == ["cost/2", "cost/1", "cost/0"]
