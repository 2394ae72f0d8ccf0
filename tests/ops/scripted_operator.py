"""An operator for tests that finds every fact as its script has it, and can be killed.

It releases three versions: the first, one that passes every step, and one that fails.
``python -m tests.ops.scripted_operator URL TOPIC POINT`` kills itself with SIGKILL at a point.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, insert, select

from ops.analysis.evidence import StepOutcome, Verdict
from ops.releases import releases
from ops.releases.next_event import Condition, ReleaseFacts, due
from ops.releases.releases import Release, Start
from ops.releases.routes import mark_published, unpublished
from ops.serving.readiness import Readiness
from ops.sql.database import WRITES, Database
from ops.sql.tables import models, policies, versions
from stream.schema import ControlRecord

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
MODEL: Final = "sentiment"
POLICY: Final = f"model: {MODEL}\nrollout: {{shadow: null, canary: [{{weight: 0.25}}]}}\n"
OUTCOMES: Final = {1: StepOutcome.PASSED, 2: StepOutcome.PASSED, 3: StepOutcome.FAILED}
YES: Final = Condition(True, ("It is so.",))


class Killed(BaseException):
    """What works is cut off here."""


class Fuse:
    """Counts the points at which a process can be killed, and kills at one of them.

    Not those of transactions that only read: whoever dies there has done nothing.
    """

    def __init__(self, point: int, kill: Callable[[Connection | None], None]) -> None:
        self._left = point
        self._kill = kill

    def burn(self, connection: Connection | None = None, *_: Any) -> None:
        """A point is reached: a statement, a commit or a record is about to go out."""
        if connection is not None and not _writes(connection):
            return
        self._left -= 1
        if self._left == 0:
            self._kill(connection)

    @contextmanager
    def lit(self) -> Iterator[None]:
        """Every database of the process burns it down."""
        names = ("before_cursor_execute", "commit")
        for name in names:
            event.listen(Engine, name, self.burn)
        try:
            yield
        finally:
            for name in names:
                event.remove(Engine, name, self.burn)


def _writes(connection: Connection) -> bool:
    options = connection.get_execution_options()
    if connection.dialect.name == "sqlite":
        return bool(options.get(WRITES))
    return not options.get("postgresql_readonly")


def cut_off(connection: Connection | None) -> None:
    """Leave as a killed process does: the connection is gone, and nothing is undone by hand."""
    if connection is not None:
        connection.invalidate()
    raise Killed


def kill_process(_: Connection | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Topic:
    """The control topic in a file: a record is on it, whole, once ``publish`` is back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def publish(self, record: ControlRecord) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(record.to_bytes() + b"\n")

    def records(self) -> list[ControlRecord]:
        lines = self.path.read_bytes().splitlines()
        return [ControlRecord.model_validate_json(line) for line in lines]


class Operator:
    """Goes on from whatever it finds in the database; keeps nothing in between."""

    def __init__(self, database: Database, topic: Topic, fuse: Fuse | None = None) -> None:
        self._database = database
        self._topic = topic
        self._fuse = fuse

    def run(self) -> None:
        while self.step():
            pass

    def step(self) -> bool:
        """Do what is due next, one transaction at most; False where nothing is left to do."""
        with self._database.read() as connection:
            waiting = unpublished(connection)
            past = releases.history(connection, MODEL)
        if waiting:
            self._publish(waiting[0])
        elif past and past[0].ended_at is None:
            self._move(past[0])
        elif len(past) < len(OUTCOMES):
            self._start(len(past) + 1)
        else:
            return False
        return True

    def _publish(self, record: ControlRecord) -> None:
        if self._fuse is not None:
            self._fuse.burn()
        self._topic.publish(record)
        with self._database.begin() as connection:
            mark_published(connection, record)

    def _start(self, version: int) -> None:
        with self._database.begin() as connection:
            connection.execute(select(models.c.name).with_for_update())
            # Another may have started it since.
            if len(releases.history(connection, MODEL)) == version - 1:
                wanted = Start(model=MODEL, version=version, actor="ada")
                releases.start(connection, wanted, NOW)

    def _move(self, release: Release) -> None:
        facts = ReleaseFacts(
            gates=YES,
            approved=YES,
            may_go=YES,
            load=Readiness(ready=True),
            verdict=Verdict(OUTCOMES[release.version], ()),
            restored=YES,
        )
        found = due(release.position, facts)
        assert found is not None
        with self._database.begin() as connection:
            releases.move(
                connection,
                release,
                found.event,
                actor=releases.OPERATOR,
                reason=found.reason,
                evidence=found.evidence,
                now=NOW,
            )


def register(database: Database) -> None:
    """The versions, and a policy with one step of a canary and a bake."""
    with database.begin() as connection:
        connection.execute(insert(models).values(name=MODEL, created_at=NOW, created_by="ada"))
        for number in OUTCOMES:
            row = {"model": MODEL, "number": number, "digest": f"{number}" * 64, "uri": "file:///m"}
            row |= {"card": {}, "files": [], "size_bytes": 1, "author": "ada", "created_at": NOW}
            connection.execute(insert(versions).values(row | {"source": ""}))
        policy = {"model": MODEL, "digest": "p" * 64, "text": POLICY, "author": "eve"}
        connection.execute(insert(policies).values(policy | {"created_at": NOW}))


def main(url: str, topic: str, point: str) -> None:
    fuse = Fuse(int(point), kill_process)
    with fuse.lit(), closing(Database(url)) as database:
        Operator(database, Topic(Path(topic)), fuse).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
