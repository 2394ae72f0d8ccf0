"""Hours of use in SQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ops.cost import usage
from ops.cost.billing import Usage, UsageSource
from ops.sql.database import Database

HOUR = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NEXT = HOUR + timedelta(hours=1)
THIRD, CONSUMER = UsageSource("m", "3"), UsageSource("m", pipeline="words")


def test_hours_add_up(database: Database) -> None:
    with database.begin() as connection:
        usage.add(connection, [])
        usage.add(connection, [Usage(HOUR, THIRD, 10, 20, 5, 100), Usage(HOUR, CONSUMER, 10, 2.5)])
        usage.add(connection, [Usage(HOUR, THIRD, 1, 2, 3, 4), Usage(NEXT, THIRD, 7, 7, 0, 1)])
        assert usage.between(connection, HOUR, NEXT) == [
            Usage(HOUR, CONSUMER, 10, 2.5),
            Usage(HOUR, THIRD, 11, 22, 8, 104),
        ]
        assert usage.totals(connection, HOUR) == [
            Usage(HOUR, CONSUMER, 10, 2.5),
            Usage(HOUR, THIRD, 18, 29, 8, 105),
        ]
        assert usage.totals(connection, NEXT) == [Usage(NEXT, THIRD, 7, 7, 0, 1)]


def test_version_with_other_settings_is_the_same_version(database: Database) -> None:
    rows = [Usage(HOUR, UsageSource("m", label), 10, 10, 0, 5) for label in ("3", "3.1", "4")]
    with database.begin() as connection:
        usage.add(connection, rows)
        found = usage.between(connection, HOUR, NEXT)
    assert [(row.source.version, row.replica_s, row.predictions) for row in found] == [
        ("3", 20, 10),
        ("4", 10, 5),
    ]


def test_nodes_and_models_are_told_apart(database: Database) -> None:
    with database.begin() as connection:
        for source in (THIRD, THIRD._replace(node_type="big"), UsageSource("other", "1")):
            usage.add(connection, [Usage(HOUR, source, 1)])
        found = usage.between(connection, HOUR, NEXT, model="m")
    assert [row.source.node_type for row in found] == [None, "big"]
