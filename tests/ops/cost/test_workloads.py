"""What versions did, in SQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from ops.cost import workloads
from ops.cost.advice import Workload
from ops.sql.database import Database
from tests.ops.cost.loads import HOUR, SIZE, workload

SECOND = timedelta(seconds=1)


def both(row: Workload, other: Workload) -> Workload:
    sums = {name: getattr(row, name) + getattr(other, name) for name in workloads.AMOUNTS}
    return other._replace(**sums)


def test_amounts_add_up_within_an_hour_version_and_size(database: Database) -> None:
    first, second = workload(0), workload(0)._replace(until=HOUR + SECOND)
    with database.begin() as connection:
        workloads.add(connection, [])
        workloads.add(connection, [first, workload(0, label="4")])
        workloads.add(connection, [second])
        workloads.add(connection, [workload(1)])
        assert workloads.since(connection, HOUR) == [
            workload(0, label="4"),
            both(first, second),
            workload(1),
        ]
        assert workloads.since(connection, HOUR + SECOND) == [workload(1)]
        assert workloads.since(connection, HOUR, model="other") == []


def test_size_that_was_seen_last_stands_last(database: Database) -> None:
    """Also where it was there before, within the same hour."""
    other = replace(SIZE, precision="f32")
    with database.begin() as connection:
        for second, size in enumerate((SIZE, other, SIZE)):
            row = workload(0, size=size)._replace(until=HOUR + second * SECOND)
            workloads.add(connection, [row])
        assert [row.size for row in workloads.since(connection, HOUR)] == [other, SIZE]


def test_what_nobody_can_ask_for_any_more_goes(database: Database) -> None:
    late = workload(0)._replace(hour=HOUR + workloads.KEPT)
    later = late._replace(hour=late.hour + timedelta(hours=1))
    with database.begin() as connection:
        workloads.add(connection, [workload(0)])
        workloads.add(connection, [late])
        assert workloads.since(connection, HOUR) == [workload(0), late]
        workloads.add(connection, [later])
        assert workloads.since(connection, HOUR) == [late, later]
