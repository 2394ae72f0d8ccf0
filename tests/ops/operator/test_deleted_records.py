"""Records that were deleted before they were read: told, written down once, and shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from ops.operator.deleted_records import ACTION, DeletedRecordsLog
from ops.sql.database import Database
from ops.sql.tables import ledger
from ops.telemetry.observations import MAX_LOSSES, DeletedRecords, Observations
from stream.records import Deleted, Partition
from stream.telemetry import TelemetryWindow

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def telling(first: int, following: int, *, end_ms: int = 5) -> Observations:
    window = TelemetryWindow(pipeline="p", consumer=0, model="m", version=None)
    window.observe_deleted(Deleted(Partition("in", 3), first, following))
    found = Observations()
    found.add([window.to_record(0, end_ms, replica=None)])
    return found


def test_what_is_told_names_partition_and_offsets() -> None:
    (loss,) = telling(10, 1_510).losses()
    assert loss == DeletedRecords("p", "in/3/10", 1_500, 5)
    assert loss.sentence() == (
        "1,500 records of in/3, offsets 10 to 1509, were deleted before pipeline p read them"
    )


def test_what_is_kept_of_them_is_bounded() -> None:
    found = Observations()
    for first in range(MAX_LOSSES + 5):
        window = TelemetryWindow(pipeline="p", consumer=0, model="m", version=None)
        window.observe_deleted(Deleted(Partition("in", 0), first, first + 1))
        found.add([window.to_record(0, first, replica=None)])
    losses = found.losses()
    assert len(losses) == MAX_LOSSES
    assert losses[-1].place == f"in/0/{MAX_LOSSES + 4}"


def test_each_is_one_row_of_the_ledger_whoever_writes_it(database: Database) -> None:
    found = telling(10, 12).losses()
    writer = DeletedRecordsLog(database)
    writer.record(found, NOW)
    writer.record(found, NOW + timedelta(seconds=5))
    DeletedRecordsLog(database).record(found, NOW + timedelta(hours=1))
    DeletedRecordsLog(database).record(telling(12, 13).losses(), NOW + timedelta(hours=2))
    with database.read() as connection:
        rows = connection.execute(select(ledger).where(ledger.c.action == ACTION)).all()
    assert [row.evidence["first"] for row in rows] == ["in/3/10", "in/3/12"]
    assert "offsets 10 to 11" in rows[0].reason
