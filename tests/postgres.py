"""Databases for tests: SQLite in a file and a real PostgreSQL; one suite runs on both.

BERTSTREAM_TEST_POSTGRES names a server that is used instead of one that the tests start; its
user must be allowed to make databases.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine, delete, insert, make_url, text

from ops.sql.database import Database
from ops.sql.tables import ledger_head, metadata

EXTERNAL = "BERTSTREAM_TEST_POSTGRES"
KINDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
# For the transaction: no trigger fires, so that rows of the ledger can be taken out.
UNGUARDED = "SET LOCAL session_replication_role = replica"


class Postgres(NamedTuple):
    """A server that tests may make databases in.

    Attributes:
        url: Of its database ``postgres``.
    """

    url: str

    def create(self) -> str:
        """Make a database; returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Take a database away, also from those that are connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run a statement outside of a transaction."""
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The session's server. Shared: every test makes its own databases."""
    external = os.environ.get(EXTERNAL)
    if external:
        yield Postgres(_with_driver(external))
        return
    # Not under pytest's folder: run by root, the server is another user, who may not go there.
    locks = tmp_path_factory.mktemp("locks")
    folder = TemporaryDirectory(prefix="bertstream-postgres-")
    with folder as path, _server(Path(path), locks) as server:
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        yield Postgres(_with_driver(server.get_uri()))


@contextmanager
def _server(folder: Path, locks: Path) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        # Its package looks for a folder of the user when it is imported, and warns without.
        environment.setenv("XDG_RUNTIME_DIR", str(locks))
        from pgserver import get_server

        server = get_server(folder / "data")
    try:
        yield server
    finally:
        server.cleanup()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A database with all tables, which tests use one after the other."""
    url = postgres.create()
    with closing(Database(url)) as database:
        database.migrate()
    yield url
    postgres.drop(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that has the tables already."""
    path = tmp_path_factory.mktemp("database") / "template.db"
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
    return path


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ops.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create()
    yield url
    server.drop(url)


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a database of the test's own, with all tables."""
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), tmp_path / "ops.db")
        yield f"sqlite:///{tmp_path / 'ops.db'}"
        return
    url = request.getfixturevalue("postgres_url")
    _empty(url)
    yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of the test's own, with all tables."""
    with closing(Database(database_url)) as opened:
        yield opened


def _empty(url: str) -> None:
    """Take all rows out: a hundred times faster than making another database."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(UNGUARDED))
            for table in reversed(metadata.sorted_tables):
                connection.execute(delete(table))
            head = {"one": 1, "last_id": 0, "hash": "0" * 64}
            connection.execute(insert(ledger_head).values(head))
    finally:
        engine.dispose()


def _with_driver(url: str) -> str:
    driver = make_url(url).set(drivername="postgresql+psycopg")
    return driver.render_as_string(hide_password=False)
