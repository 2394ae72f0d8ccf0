from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Table, insert, inspect, select, text, update
from sqlalchemy.exc import IntegrityError

from ops.errors import ConfigError, DatabaseIncompatible, DatabaseUnavailable
from ops.processes.ports import free_port
from ops.sql.database import Database
from ops.sql.tables import alerts, leases, metadata, models, releases, versions
from tests.postgres import Postgres

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
DEADLINE_S = 30.0
DIGEST = "a" * 64


def add_model(database: Database, name: str = "sentiment") -> None:
    with database.begin() as connection:
        connection.execute(insert(models).values(name=name, created_at=NOW, created_by="ada"))


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(models.c.name)))


def execute(database: Database, statement: Any) -> None:
    with database.begin() as connection:
        connection.execute(statement)


def together(*calls: Callable[[], object]) -> list[object]:
    """Run calls in threads that begin at one moment."""
    start = threading.Barrier(len(calls), timeout=DEADLINE_S)

    def run(call: Callable[[], object]) -> object:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(run, call) for call in calls]
        return [future.result(DEADLINE_S) for future in futures]


def test_migrated_tables_are_those_of_the_code(database: Database) -> None:
    options = {"compare_type": True, "compare_server_default": True}
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_indices_are_partial_where_the_code_says_so(database: Database) -> None:
    """Comparing metadata does not look at the conditions of indices."""
    with database.begin() as connection:
        values = {
            "opened_at": NOW,
            "severity": "warning",
            "what": "w",
            "since": NOW,
            "hurts": "h",
            "todo": "t",
        }
        connection.execute(insert(alerts).values(key="lag", closed_at=NOW, **values))
        connection.execute(insert(alerts).values(key="lag", **values))
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(insert(alerts).values(key="lag", **values))


def test_one_release_of_a_model_is_open_at_a_time(database: Database) -> None:
    add_model(database)
    release = {
        "model": "sentiment",
        "version": 1,
        "label": "1",
        "is_rollback": False,
        "version_digest": DIGEST,
        "policy_digest": DIGEST,
        "policy_text": "model: sentiment",
        "state": "draft",
        "author": "ada",
        "created_at": NOW,
        "entered_at": NOW,
        "evidence": {},
    }
    with database.begin() as connection:
        with pytest.raises(IntegrityError), connection.begin_nested():  # there is no version 1
            connection.execute(insert(releases).values(release))
        connection.execute(
            insert(versions).values(
                model="sentiment",
                number=1,
                digest=DIGEST,
                uri="file:///nowhere",
                card={},
                files={},
                size_bytes=0,
                author="ada",
                created_at=NOW,
                source="",
            )
        )
        connection.execute(insert(releases).values(release))
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(insert(releases).values(release))
        connection.execute(update(releases).values(ended_at=NOW))
        connection.execute(insert(releases).values(release))


def test_migrations_that_start_at_once_all_succeed(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(6)]
    together(*[database.migrate for database in databases])

    add_model(databases[0])
    databases[1].migrate()
    assert names(databases[2]) == ["sentiment"]
    for database in databases:
        database.close()


def test_migration_from_the_future_is_refused(empty_url: str) -> None:
    newer = pytest.raises(DatabaseIncompatible, match=r"'9999'.*newer bertstream.*update this")
    with closing(Database(empty_url)) as database:
        database.migrate()
        execute(database, text("UPDATE alembic_version SET version_num = '9999'"))
        with newer:
            database.migrate()


def test_database_without_tables_says_what_makes_them(empty_url: str) -> None:
    missing = pytest.raises(DatabaseIncompatible, match=r"models.*`bertstream up` creates them")
    with closing(Database(empty_url)) as database, missing:
        names(database)


def test_migration_that_fails_leaves_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(table_name: str, *columns: object, **options: object) -> None:
        raise DatabaseUnavailable("the power went")

    monkeypatch.setattr("alembic.op.create_index", fail)
    with closing(Database(empty_url)) as database:
        with pytest.raises(DatabaseUnavailable, match="power"):
            database.migrate()
        with database.read() as connection:
            assert inspect(connection).get_table_names() == []


def test_transaction_is_undone_by_an_error(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            connection.execute(insert(models).values(name="a", created_at=NOW, created_by="ada"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(database) == []


def test_reading_sees_one_moment_and_cannot_write(database: Database) -> None:
    with database.read() as connection:
        assert connection.scalars(select(models.c.name)).all() == []
        add_model(database)  # a writer does not wait for a reader, nor the other way round
        assert connection.scalars(select(models.c.name)).all() == []
    with pytest.raises(DatabaseUnavailable, match=r"read.?only"), database.read() as connection:
        connection.execute(insert(models).values(name="b", created_at=NOW, created_by="ada"))

    assert names(database) == ["sentiment"]


def test_writers_queue_instead_of_failing(database: Database) -> None:
    """Each reads before it writes, which without the lock fails on SQLite and loses counts."""
    with database.begin() as connection:
        values = {"name": "operator", "holder": "a", "until": NOW, "fence": 0}
        connection.execute(insert(leases).values(values))

    def add_ten() -> None:
        for _ in range(10):
            with database.begin() as connection:
                fence = connection.scalars(select(leases.c.fence).with_for_update()).one()
                connection.execute(update(leases).values(fence=fence + 1))

    together(add_ten, add_ten, add_ten, add_ten)
    with database.read() as connection:
        assert connection.scalars(select(leases.c.fence)).one() == 40


def test_waiting_for_a_writer_ends(database_url: str) -> None:
    with (
        closing(Database(database_url)) as holder,
        closing(Database(database_url, timeout_s=0.3)) as database,
    ):
        add_model(holder)
        with holder.begin() as connection:
            connection.execute(update(models).values(created_by="eve"))
            with pytest.raises(DatabaseUnavailable, match="lock") as caught:
                execute(database, update(models).values(created_by="bob"))
    assert caught.value.retriable


def test_waiting_for_a_free_connection_ends(database_url: str) -> None:
    with closing(Database(database_url, timeout_s=0.3)) as database:
        full = threading.Barrier(21, timeout=DEADLINE_S)
        done = threading.Event()

        def hold() -> None:
            with database.read():
                full.wait()
                done.wait(DEADLINE_S)

        with ThreadPoolExecutor(20) as threads:
            held = [threads.submit(hold) for _ in range(20)]
            full.wait()
            with pytest.raises(DatabaseUnavailable, match=r"all connections .* in use for 0\.3 s"):
                names(database)
            done.set()
            assert [future.result(DEADLINE_S) for future in held] == [None] * 20


@pytest.mark.postgres
def test_database_gone_in_the_middle_is_told(postgres: Postgres) -> None:
    url = postgres.create()
    with closing(Database(url)) as database:
        database.migrate()
        gone = pytest.raises(DatabaseUnavailable, match=r"does not answer: .*terminating")
        with gone, database.begin() as connection:
            postgres.drop(url)
            connection.execute(select(models.c.name))
        with pytest.raises(DatabaseUnavailable, match="does not exist"):
            names(database)


@pytest.mark.postgres
def test_connections_that_the_server_closed_are_replaced(postgres: Postgres) -> None:
    url = postgres.create()
    with closing(Database(url)) as database:
        database.migrate()
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'"
        )
        assert names(database) == []
    postgres.drop(url)


@pytest.mark.parametrize(
    "form", ["eve:s3cret@127.0.0.1:{}/ops", "127.0.0.1:{}/ops?password=s3cret"]
)
def test_password_is_never_shown(form: str) -> None:
    gone = pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:\d+/ops does not answer")
    url = f"postgresql://{form.format(free_port())}"
    with closing(Database(url, timeout_s=2)) as database, gone as caught:
        names(database)
    shown = str(caught.value) + repr(database) + repr(caught.value.__cause__)
    assert "s3cret" not in shown


def test_password_is_taken_out_of_what_the_server_says() -> None:
    url = f"postgresql://eve:refused@127.0.0.1:{free_port()}/ops"
    gone = pytest.raises(DatabaseUnavailable, match=r"Connection \*\*\*")
    with closing(Database(url, timeout_s=2)) as database, gone:
        names(database)


def test_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "ops.db").write_bytes(b"not a database" * 100)
    with closing(Database(f"sqlite:///{tmp_path / 'ops.db'}")) as database:
        with pytest.raises(DatabaseUnavailable, match=r"ops\.db.*file is not a database"):
            database.migrate()
        with pytest.raises(DatabaseUnavailable, match=r"ops\.db.*file is not a database"):
            names(database)


def test_missing_folder_is_made_by_migrating_only(tmp_path: Path) -> None:
    with closing(Database(f"sqlite:///{tmp_path / 'a' / 'b' / 'ops.db'}")) as database:
        with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
            names(database)
        database.migrate()
        assert names(database) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense s3cret", "cannot be read; write sqlite:///FILE or postgresql"),
        ("mysql://eve:s3cret@host/ops", "of the kind mysql are not supported; write"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_url_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Database(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_times_are_aware_and_in_utc(database: Database) -> None:
    with database.begin() as connection:
        moment = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
        connection.execute(insert(models).values(name="a", created_at=moment, created_by="ada"))
        found = connection.scalars(select(models.c.created_at)).one()
        assert (found, found.tzinfo) == (NOW, UTC)
        before = select(models.c.name).where(models.c.created_at < NOW + timedelta(microseconds=1))
        assert connection.scalars(before).all() == ["a"]
        with pytest.raises(Exception, match="no time zone"):
            connection.execute(
                insert(models).values(name="b", created_at=datetime(2026, 1, 1), created_by="x")
            )


def test_nothing_is_null_and_null_is_nothing(database: Database) -> None:
    """A document comes back as it went in, NaN as null, and a None is SQL's NULL."""
    add_model(database)
    document = {"z": [1, 2.5, None], "a": {"ü": float("nan")}}
    with database.begin() as connection:
        table: Table = metadata.tables["routes"]
        connection.execute(insert(table).values(model="sentiment", epoch=2**40, record=document))
        found = connection.execute(select(table.c.record, table.c.published_epoch)).one()
        assert found == ({"z": [1, 2.5, None], "a": {"ü": None}}, None)
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(insert(table).values(model="other", epoch=1, record=None))


def test_file_is_read_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "ops.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
