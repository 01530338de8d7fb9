"""Bulk loading of a migrated database: no durability, indexes made at the end. For made-up data only."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from storage.database.connection import Database

Insert = Callable[[str, Sequence[str], Sequence[tuple[object, ...]]], None]
_INDEXES = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
    "postgresql": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
    "AND indexname NOT IN (SELECT conname FROM pg_constraint)",
}
_IDENTITIES = ("patient", "study", "series", "instance")


@contextmanager
def bulk(database: Database) -> Iterator[Insert]:
    """Give a function that inserts rows of a table; indexes and statistics are made at the end."""
    lite = database.dialect == "sqlite"
    with database.connection():
        indexes = list(database.execute(_INDEXES[database.dialect]))
        for name, _ in indexes:
            database.write(f"DROP INDEX {name}")
        if lite:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF"):
                database.write(f"PRAGMA {pragma}")
        else:
            database.write("SET session_replication_role = replica")  # no checks of foreign keys
            database.write("SET maintenance_work_mem = '512MB'")
        yield _sqlite(database) if lite else _postgresql(database)
        for _, definition in indexes:
            database.write(definition)
        if lite:
            database.write("PRAGMA journal_mode = WAL")
        else:
            for table in _IDENTITIES:
                last = f"(SELECT COALESCE(MAX(id), 1) FROM {table})"
                database.write(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {last})")
            database.write("VACUUM ANALYZE")
    database.close()  # what was relaxed is forgotten with the connection


def _sqlite(database: Database) -> Insert:
    connection = database.peewee.connection()

    def insert(table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        marks = ", ".join("?" * len(columns))
        connection.execute("BEGIN")
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        connection.execute("COMMIT")

    return insert


def _postgresql(database: Database) -> Insert:
    connection = database.peewee.connection()

    def insert(table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        names = ", ".join(f'"{column}"' for column in columns)
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
        if not connection.autocommit:
            connection.commit()

    return insert
