"""One SQL database, SQLite or PostgreSQL: transactions, schema, and errors of our own.

Every wait is limited: for a connection, for another writer, for an unavailable server. The tables
are in ``tables``.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from ops.errors import ConfigError, DatabaseIncompatible, DatabaseUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
TIMEOUT_S = 10.0
POOL_SIZE = 10
# Key of a PostgreSQL advisory lock; any number that no other program uses.
MIGRATION_LOCK = 0x62657274
MIGRATION_TIMEOUT_S = 600
MAX_REASON_CHARS = 300
WRITES = "bertstream_writes"
FORMS = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
# PostgreSQL's SQLSTATE codes.
READ_ONLY = "25006"
NO_SUCH = frozenset(("42P01", "42703"))


class Transactions(Protocol):
    """Transactions for readers and writers; ``Database`` documents how they behave."""

    def begin(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that writes."""
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that reads."""
        ...


class Database:
    """A database that is accessed through transactions only.

    Threads may share it; processes that fork may not.

    Attributes:
        place: Its location for people, without user and password.
        dialect: ``sqlite`` or ``postgresql``.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Prepare; nothing is opened yet.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST:PORT/NAME``.
            timeout_s: How long to wait for a connection, and for another writer.
        Raises:
            ConfigError: The URL cannot be parsed, or names another kind of database.
        """
        self._url = _parsed(url)
        self._timeout_s = timeout_s
        self.dialect = self._url.get_backend_name()
        self.place = _place(self._url)
        self._reader, self._writer = _engines(self._url, timeout_s)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction that writes: committed at the end, rolled back by any error.

        On SQLite it is the only writer from its beginning on, and the next one waits: do not
        begin another inside.

        Raises:
            DatabaseUnavailable: The database is unavailable or was busy for too long. Retriable.
            DatabaseIncompatible: Its tables do not match this version. Not retriable.
        """
        with self._plain_errors(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that reads: it sees one snapshot and cannot write.

        Raises:
            DatabaseUnavailable: The database is unavailable or was busy for too long. Retriable.
            DatabaseIncompatible: Its tables do not match this version. Not retriable.
        """
        with self._plain_errors(), self._reader.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Migrate the tables to this version; a concurrent call waits and finds it done.

        Raises:
            DatabaseUnavailable: The database is unavailable or was busy for too long. Retriable.
            DatabaseIncompatible: A newer version of bertstream created the tables. Not retriable.
        """
        if self.dialect == "sqlite":
            self._prepare_file()
        with self.read() as connection:
            if _revision(connection) == _newest():
                return
        self._upgrade()

    def _upgrade(self) -> None:
        # These take as long to load as everything else here, and are rarely needed.
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        with self.begin() as connection:
            if self.dialect == "postgresql":
                limit = str(MIGRATION_TIMEOUT_S * 1000)
                connection.execute(select(func.set_config("statement_timeout", limit, True)))
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as exc:
                raise DatabaseIncompatible(
                    f"the database {self.place} cannot be migrated to this version ({exc}); a "
                    "newer bertstream created its tables: update this installation"
                ) from exc

    def close(self) -> None:
        """Close what is open; a later transaction opens it again."""
        self._reader.dispose()

    def _prepare_file(self) -> None:
        """Allow readers alongside a writer: a lasting mode that no transaction can set."""
        with self._plain_errors():
            Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            with closing(self._reader.raw_connection()) as connection:
                _keep_ahead_log(connection.cursor(), self._timeout_s)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as exc:
            raise DatabaseUnavailable(
                f"the database {self.place}: all connections of this process were in use for "
                f"{self._timeout_s:g} s; try again"
            ) from exc
        except DBAPIError as exc:
            if _has_no_such_table(exc.orig):
                raise DatabaseIncompatible(
                    f"the database {self.place} lacks the tables of this version "
                    f"({self._reason(exc)}); `bertstream up` creates them"
                ) from exc
            if not _is_gone(exc):
                raise
            raise DatabaseUnavailable(
                f"the database {self.place} does not answer: {self._reason(exc)}; check that it "
                "runs and can be reached from here, then try again"
            ) from exc
        except sqlite3.Error as exc:
            raise DatabaseUnavailable(f"the database {self.place}: {exc}; try again") from exc

    def _reason(self, error: DBAPIError) -> str:
        reason = " ".join(str(error.orig).split())[:MAX_REASON_CHARS]
        for secret in (self._url.password, self._url.query.get("password")):
            if secret:
                reason = reason.replace(str(secret), "***")
        return reason


def _revision(connection: Connection) -> str | None:
    """Return the revision of the existing tables, by Alembic's note; None if there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _newest() -> str:
    """Return the revision of this version's tables: names of migration files begin with theirs."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("*.py")).partition("_")[0]


def _keep_ahead_log(cursor: Any, timeout_s: float) -> None:
    """Turn on write-ahead logging; SQLite does not wait for others here, whatever its timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # Without its cause, which shows the URL and in it the password.
        raise ConfigError(f"the URL of the database cannot be read; {FORMS}") from None
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ConfigError(f"databases of the kind {backend} are not supported; {FORMS}")
    if parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"a database in memory differs for each connection; {FORMS}")
    return parsed


def _place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{url.host or url.query.get('host', 'localhost')}{port}/{url.database}"


def _engines(url: URL, timeout_s: float) -> tuple[Engine, Engine]:
    """Return the engines for reading and for writing, over one pool."""
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url,
        connect_args={"timeout": timeout_s} if sqlite else _postgres_arguments(timeout_s),
        pool_pre_ping=not sqlite,
        pool_size=POOL_SIZE,
        pool_timeout=timeout_s,
        json_serializer=lambda value: dumped(value).decode(),
        json_deserializer=orjson.loads,
    )
    if sqlite:
        event.listen(engine, "connect", _prepare_connection)
        event.listen(engine, "begin", _begin)
        return engine, engine.execution_options(**{WRITES: True})
    snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine.execution_options(**snapshot), engine


def dumped(value: Any) -> bytes:
    """Return JSON as the tables store it: equal content gives equal text; NaN becomes null."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return orjson.dumps(value, option=options)


def _postgres_arguments(timeout_s: float) -> dict[str, Any]:
    """Return limits of every wait: for the server, a lock, a statement, and a stuck client."""
    milliseconds = int(timeout_s * 1000)
    limits = {
        "lock_timeout": milliseconds,
        "statement_timeout": 3 * milliseconds,
        "idle_in_transaction_session_timeout": 6 * milliseconds,
    }
    return {
        "application_name": "bertstream",
        "connect_timeout": max(2, round(timeout_s)),  # libpq takes whole seconds from 2
        "keepalives_idle": max(1, round(timeout_s)),
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds,
        "options": " ".join(f"-c {name}={limit}" for name, limit in limits.items()),
    }


def _prepare_connection(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # The driver would begin transactions itself, but only before the first change.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    """Take the write lock first: requesting it later, after a read, fails instead of waiting."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _has_no_such_table(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith(("no such table", "no such column"))
    return getattr(error, "sqlstate", None) in NO_SUCH


def _is_gone(error: DBAPIError) -> bool:
    """Return whether another try may succeed; mistakes of the statement itself do not count."""
    damaged = type(error) is DatabaseError and isinstance(error.orig, sqlite3.DatabaseError)
    read_only = getattr(error.orig, "sqlstate", None) == READ_ONLY  # such as a standby
    kinds = (OperationalError, InterfaceError)
    return isinstance(error, kinds) or error.connection_invalidated or damaged or read_only
