"""Connections to SQLite or PostgreSQL: the same text of SQL on both, durable commits, bounded pools.

Owns pooling, placeholders, transactions and migrations; knows no table. SQLite
commits with synchronous FULL in WAL mode, PostgreSQL with synchronous_commit on.
"""

import fcntl
import re
import select
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import peewee
from playhouse.migrations import MigrationError, Runner
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase, PooledSqliteDatabase

from config.settings import Database as DatabaseSettings
from pacs.core.errors import RecordsFailed, SettingsInvalid
from storage.database.turns import TurnNeverCame, WriteTurns

Dialect = Literal["sqlite", "postgresql"]
INDEX_LOCK = 0x50414358
"""The PostgreSQL advisory lock that arrivals share and everybody else who changes the index takes."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x50414353  # "PACS", the advisory lock all nodes agree on
_UNSAYABLE = re.compile("[\x00\ud800-\udfff]")


class Database:
    """One process's door to the database. Safe to use from many threads."""

    def __init__(self, settings: DatabaseSettings, home: Path) -> None:
        self._lock_path = home / "migrate.lock"
        self.dialect: Dialect = "postgresql" if settings.url else "sqlite"
        self.peewee: Any = _postgresql(settings) if settings.url else _sqlite(settings, home)
        self._turns = None if settings.url else WriteTurns(home / "write.lock", settings.timeout_s)
        # SQLite finds some failures only while rows are read, past peewee's own wrapping.
        self._failures: tuple[type[Exception], ...] = (
            peewee.PeeweeException,
            MaxConnectionsExceeded,
            TurnNeverCame,
            sqlite3.Error,
            *_driver_errors(self.dialect),
        )

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Hold a pooled connection in this thread. Nested uses share it."""
        if not self.peewee.is_closed():
            yield
            return
        try:
            self.peewee.connect()
        except self._failures as error:
            raise RecordsFailed(f"no database connection: {_cause(error)}") from error
        try:
            yield
        finally:
            self.peewee.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Begin, and commit durably at the end. Raises ``RecordsFailed``."""
        # DEFERRED would let two readers deadlock on becoming writers.
        with self._said(), self._turn(), self.connection(), self.peewee.atomic(*self._begin()):
            yield

    def in_transaction(self) -> bool:
        """Tell whether this thread is within a transaction."""
        return not self.peewee.is_closed() and bool(self.peewee.in_transaction())

    def _turn(self) -> AbstractContextManager[None]:
        """Wait in line at SQLite, which has one writer; what is nested has its turn already."""
        if self._turns is None or self.peewee.in_transaction():
            return nullcontext()
        return self._turns.turn()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Begin a transaction in which nobody else changes the index. Raises ``RecordsFailed``."""
        with self.transaction():
            if self.dialect == "postgresql":  # SQLite has one writer anyway
                self.write("SELECT pg_advisory_xact_lock(?)", (INDEX_LOCK,))
            yield

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise RecordsFailed(f"the database refused: {_cause(error)}") from error

    def _begin(self) -> tuple[str, ...]:
        return ("IMMEDIATE",) if self.dialect == "sqlite" else ()

    def write(self, sql: str, params: Sequence[object] = ()) -> Any:
        """Run one statement inside a transaction; gives the cursor. ``?`` marks parameters."""
        return self.peewee.execute_sql(self._placed(sql), _sayable(params))

    def execute(self, sql: str, params: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Run one reading statement on its own and give its rows. Raises ``RecordsFailed``."""
        with self.connection(), self._said():
            rows = self.peewee.execute_sql(self._placed(sql), _sayable(params)).fetchall()
        return iter(rows)

    def _placed(self, sql: str) -> str:
        return sql if self.dialect == "sqlite" else sql.replace("%", "%%").replace("?", "%s")

    def migrate(self, further: Mapping[str, Path] | None = None) -> list[str]:
        """Bring the schema up to date; one process at a time, on any number of nodes.

        ``further`` maps the names of extensions to the folders of their scripts.
        """
        with self._lock_path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with self.connection(), self._one_node():
                try:
                    applied = list(Runner(self.peewee, str(_MIGRATIONS)).up())
                    for name, folder in (further or {}).items():
                        history = f"{name}_migration"
                        applied += Runner(self.peewee, str(folder), table_name=history).up()
                except (*self._failures, MigrationError) as error:
                    raise RecordsFailed(f"the schema cannot be brought up: {error}") from error
                return applied

    @contextmanager
    def _one_node(self) -> Iterator[None]:
        """Let other nodes wait, however long our migration takes."""
        if self.dialect == "sqlite":
            yield
            return
        with self._said():
            self.write("SET lock_timeout = 0")
            self.write("SELECT pg_advisory_lock(?)", (_MIGRATION_LOCK,))
            try:
                yield
            finally:
                self.write("SELECT pg_advisory_unlock(?)", (_MIGRATION_LOCK,))
                self.write("RESET lock_timeout")

    def close(self) -> None:
        """Close every pooled connection of this process."""
        self.peewee.close_all()
        if self._turns is not None:
            self._turns.close()


def _sayable(params: Sequence[object]) -> Sequence[object]:
    """Make text both back ends can hold: no NUL, no half of a surrogate pair."""
    said = "".join([one for one in params if isinstance(one, str)])
    if said.isascii() and "\0" not in said:
        return params
    return tuple(
        _UNSAYABLE.sub("\ufffd", one) if isinstance(one, str) and _UNSAYABLE.search(one) else one
        for one in params
    )


def _cause(error: BaseException) -> str:
    """Name the class of a failure and the code the database gives it; never its text, it may quote data."""
    driver = error.__cause__ or error.__context__ or error
    code = getattr(driver, "sqlite_errorname", None) or getattr(driver, "sqlstate", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__


def _driver_errors(dialect: Dialect) -> tuple[type[Exception], ...]:
    if dialect == "sqlite":
        return ()
    import psycopg

    return (psycopg.Error,)


def _sqlite(settings: DatabaseSettings, home: Path) -> PooledSqliteDatabase:
    return PooledSqliteDatabase(
        str(home / "index.sqlite"),
        max_connections=settings.max_connections,
        timeout=settings.timeout_s,
        check_same_thread=False,  # the pool hands a connection to one thread at a time
        pragmas=(
            ("busy_timeout", int(settings.timeout_s * 1000)),
            ("journal_mode", "wal"),
            ("synchronous", "full"),
            ("foreign_keys", 1),
            ("cache_size", -64_000),
            ("wal_autocheckpoint", 4_000),
        ),
    )


class _PostgresqlPool(PooledPostgresqlDatabase):  # type: ignore[misc]  # peewee has no types
    """Knows a connection that died while nobody used it without asking the server."""

    def _is_closed(self, conn: Any) -> bool:
        if conn.closed:
            return True
        # A server speaks to an idle connection only to say that it ends.
        poll = select.poll()
        poll.register(conn.fileno(), select.POLLIN)
        if not poll.poll(0):
            return False
        conn.close()
        return True


def _postgresql(settings: DatabaseSettings) -> PooledPostgresqlDatabase:
    try:
        url = urlsplit(settings.url)
        _ = url.port
    except ValueError as error:
        raise SettingsInvalid("database.url: not a URL: its host or port is malformed") from error
    if url.scheme not in ("postgresql", "postgres"):
        raise SettingsInvalid(
            "database.url: only postgresql:// is known; leave it empty for SQLite"
        )
    try:
        _driver_errors("postgresql")
    except ImportError as error:
        raise SettingsInvalid(
            "database.url: PostgreSQL needs psycopg: pip install 'pacs-archive[postgres]'"
        ) from error
    lock_timeout_ms = int(settings.timeout_s * 1000)
    return _PostgresqlPool(
        urlunsplit(url._replace(scheme="postgresql")),
        prefer_psycopg3=True,
        max_connections=settings.max_connections,
        timeout=settings.timeout_s,
        options=f"-c synchronous_commit=on -c jit=off -c lock_timeout={lock_timeout_ms}",
        connect_timeout=int(settings.timeout_s) or 1,
    )
