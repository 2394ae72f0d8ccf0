"""Watching versions for advice."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from ops.config.scaling import ScalingSettings
from ops.cost import workloads
from ops.cost.advice import Size, Workload
from ops.cost.utilisation import LoadSampler, computes_bf16
from ops.scaling.need import ScalingReading
from ops.scaling.scaler import ScalableApp
from ops.serving import apps
from ops.sql.database import Database
from ops.telemetry.observations import Observations
from ops.view import PlatformView
from tests.ops.scaling.windows import window
from tests.ops.upkeep import NOW, Apps, Clock, running

SETTINGS = ScalingSettings(min_replicas=1, max_replicas=3, target_drain_s=60)
# At the minimum, and busy for a quarter of the time.
LIGHT = ScalingReading(0.0, True, 1, 0, 25, 25, 100, 0.25)
# At the maximum, busy and behind.
HEAVY = ScalingReading(0.0, True, 3, 90_000, 500, 300, 100, 1.0)


class Platform:
    """A version of a quarter of an hour's life."""

    def __init__(self, database: Database, *, has_bf16: bool = True) -> None:
        self.database, self.clock, self.told = database, Clock(), Observations()
        found = cast(apps.Apps, Apps({"m@1": running()}))
        self.survey = LoadSampler(PlatformView(database, self.told, found), has_bf16=has_bf16)

    def answer(self, **fields: Any) -> None:
        now_ms = int(self.clock.now.timestamp() * 1000)
        times = {"start_ms": now_ms - 5_000, "end_ms": now_ms}
        self.told.add([window().model_copy(update={**times, **fields})])

    def run(self, seconds: int, reading: ScalingReading, *, step: int = 5, **part: Any) -> None:
        seen = ScalableApp("m@1", "m", "1", reading, SETTINGS)._replace(**part)
        for _ in range(0, seconds, step):
            self.survey.tick(self.clock.advance(step), [seen])

    def rows(self) -> list[Workload]:
        with self.database.read() as connection:
            return workloads.since(connection, NOW - timedelta(days=1))


@pytest.fixture
def platform(database: Database) -> Platform:
    made = Platform(database)
    made.answer(engine="openvino", precision="f32")
    return made


def test_load_is_noted_by_size(platform: Platform) -> None:
    platform.run(65, LIGHT)
    (row,) = platform.rows()
    assert row.size == Size("f32", True, 0.5, 0.0, 1, 3)
    assert (row.watched_s, row.replica_s, row.at_min_s) == (60.0, 60.0, 60.0)
    assert (row.busy_at_min_s, row.lagging_s) == (15.0, 0.0)
    platform.run(60, HEAVY)
    (row,) = platform.rows()
    # The last quarter of a minute of light load holds until it is looked at again.
    assert (row.watched_s, row.replica_s, row.at_min_s) == (120.0, 75.0 + 45.0 * 3, 75.0)
    assert (row.busy_at_min_s, row.lagging_s) == (18.75, 45.0)


@pytest.mark.parametrize(
    "change",
    [
        {"current": 2},
        {"busy": 0.4},  # something else is slow
        {"lag": 100},
    ],
)
def test_not_all_at_work_or_not_behind_is_no_lagging(
    platform: Platform, change: dict[str, Any]
) -> None:
    platform.run(65, HEAVY._replace(**change))
    (row,) = platform.rows()
    assert (row.watched_s, row.lagging_s) == (60.0, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        {"announced": True},
        {"weight": 0.5},
        {"reachable": False},
        {"age_s": 31.0},
        {"age_s": None},
        {"lag": None},
    ],
)
def test_what_is_not_known_or_not_the_whole_load_is_not_noted(
    platform: Platform, change: dict[str, Any]
) -> None:
    platform.run(65, LIGHT._replace(**change))
    assert platform.rows() == []


def test_consumers_are_not_noted(platform: Platform) -> None:
    platform.run(65, LIGHT, label=None)
    assert platform.rows() == []


def test_time_that_nobody_watched_is_not_noted(platform: Platform) -> None:
    platform.run(20, LIGHT)
    platform.run(1200, LIGHT, step=120)
    assert [row.watched_s for row in platform.rows()] == [15.0]


def test_version_that_has_answered_nothing_is_not_noted(database: Database) -> None:
    platform = Platform(database)
    platform.run(65, LIGHT)
    assert platform.rows() == []
    platform.answer(engine="torch", precision="f16")
    platform.run(65, LIGHT)
    platform.run(120, LIGHT)  # told once, and idle since
    (row,) = platform.rows()
    assert (row.size.precision, row.size.could_bf16, row.watched_s) == ("f16", False, 165.0)


def test_hours_are_told_apart(platform: Platform) -> None:
    platform.run(3600 + 60, LIGHT)
    assert [row.hour - NOW for row in platform.rows()] == [timedelta(0), timedelta(hours=1)]


def test_processor_tells_its_precision(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert not computes_bf16(info)
    info.write_text("model name: some\nflags\t: fpu avx512f amx_tile\n")
    assert not computes_bf16(info)
    info.write_text("model name: some\nflags\t: fpu avx512_bf16 sse\n")
    assert computes_bf16(info)
