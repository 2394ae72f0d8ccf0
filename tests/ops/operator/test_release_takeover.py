"""Operators that die, and operators that are two."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ops.access.ledger import entries, verify
from ops.errors import ReleaseMoved
from ops.releases import releases
from ops.releases.routes import all_routes, unpublished
from ops.sql.database import Database
from ops.sql.tables import deployments, ledger, routes
from tests.ops.scripted_operator import MODEL, Fuse, Killed, Operator, Topic, cut_off, register

DEADLINE_S = 60.0
ROOT = Path(__file__).resolve().parents[3]
# Every transition of the script, in order: version, action, from, to.
TRANSITIONS = """
1 start None draft
1 gates_passed draft gated
1 approved gated scheduled
1 may_go scheduled loading
1 loaded loading live
2 start None draft
2 gates_passed draft gated
2 approved gated scheduled
2 may_go scheduled loading
2 loaded loading canary
2 step_passed canary bake
1 supersede live superseded
2 step_passed bake live
3 start None draft
3 gates_passed draft gated
3 approved gated scheduled
3 may_go scheduled loading
3 loaded loading canary
3 step_failed canary rolling_back
3 restored rolling_back rolled_back
"""
# The weights that consumers saw, in order; the number is the epoch.
TRAFFIC = [
    {"1": 1.0},
    {"1": 0.75, "2": 0.25},
    {"1": 0.0, "2": 1.0},
    {"2": 1.0},
    {"2": 0.75, "3": 0.25},
    {"2": 1.0},
]
# In a start, in a move with a route and in one without, before and after a record goes out.
KILLED_AT = (15, 54, 61, 123, 232)


def image(database: Database) -> list[dict[str, Any]]:
    """All that a release writes; without numbers that PostgreSQL gives to no second row."""
    counted = {"id", "release_id", "hash", "previous_hash"}
    with database.read() as connection:
        return [
            {key: value for key, value in row.items() if key not in counted}
            for table, order in (
                (releases.releases, "created_at"),
                (routes, "model"),
                (ledger, "id"),
                (deployments, "label"),
            )
            for row in connection.execute(select(table).order_by(order)).mappings()
        ]


def check_releases(database: Database) -> None:
    """All went as if nobody had ever died."""
    with database.read() as connection:
        found = {r.version: str(r.position.state) for r in releases.history(connection, MODEL)}
        assert found == {1: "superseded", 2: "live", 3: "rolled_back"}
        assert verify(connection) is None
        rows = entries(connection)[::-1]
        numbers = {r.id: r.version for r in releases.history(connection, MODEL)}
    transitions = [
        f"{row.version} {row.action.removeprefix('release.')} {row.from_state} {row.to_state}"
        for row in rows
    ]
    assert transitions == TRANSITIONS.strip().splitlines()
    assert all(numbers[row.release_id or 0] == row.version for row in rows)


def check_topic(database: Database, topic: Topic) -> None:
    """Epochs only rise, but for a record that is told again, and end with what is in force."""
    told = topic.records()
    for before, after in pairwise(told):
        assert after == before or after.epoch == before.epoch + 1
    seen = {record.epoch: {v: way.weight for v, way in record.versions.items()} for record in told}
    assert seen == dict(enumerate(TRAFFIC, start=1))
    with database.read() as connection:
        assert unpublished(connection) == []
        assert all_routes(connection) == {MODEL: told[-1]}


@pytest.mark.slow
def test_operator_can_be_killed_before_any_statement(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """At every point in turn; each time another, with a connection of its own, goes on.

    What the dead one leaves is what it found, so that all the rest is as if it had never been.
    """
    register(database)
    topic = Topic(tmp_path / "topic")
    point, kills, before, more = 1, 0, image(database), True
    while more:
        fuse = Fuse(point, cut_off)
        with closing(Database(database_url)) as own:
            try:
                with fuse.lit():
                    more = Operator(own, topic, fuse).step()
            except Killed:
                assert image(database) == before
                point, kills = point + 1, kills + 1
                continue
        point, before = 1, image(database)

    check_releases(database)
    check_topic(database, topic)
    # A move is nine statements at least, and its commit.
    assert kills > 8 * len(TRANSITIONS.strip().splitlines())


@pytest.mark.slow
def test_killed_processes_leave_nothing_half_done(sqlite_template: Path, tmp_path: Path) -> None:
    children = []
    for point in KILLED_AT:
        shutil.copyfile(sqlite_template, tmp_path / f"{point}.db")
        url = f"sqlite:///{tmp_path / f'{point}.db'}"
        with closing(Database(url)) as database:
            register(database)
        arguments = [url, str(tmp_path / f"{point}.topic"), str(point)]
        command = [sys.executable, "-m", "tests.ops.scripted_operator", *arguments]
        children.append(subprocess.Popen(command, cwd=ROOT))
    try:
        codes = [child.wait(DEADLINE_S) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait(DEADLINE_S)
    assert codes == [-signal.SIGKILL] * len(KILLED_AT)

    for point in KILLED_AT:
        topic = Topic(tmp_path / f"{point}.topic")
        with closing(Database(f"sqlite:///{tmp_path / f'{point}.db'}")) as database:
            with database.read() as connection:
                assert verify(connection) is None
                left = len(entries(connection))
            assert left < len(TRANSITIONS.strip().splitlines())
            Operator(database, topic).run()
            check_releases(database)
            check_topic(database, topic)


def test_two_operators_by_mistake_move_a_release_once(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    register(database)
    start = threading.Barrier(2, timeout=DEADLINE_S)

    def run(number: int) -> None:
        topic = Topic(tmp_path / f"{number}.topic")
        with closing(Database(database_url)) as own:
            operator, more = Operator(own, topic), True
            start.wait()
            while more:
                try:
                    more = operator.step()
                except ReleaseMoved:
                    continue

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, number) for number in range(2)]:
            done.result(DEADLINE_S)
    check_releases(database)
