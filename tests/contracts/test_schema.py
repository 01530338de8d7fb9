"""The schema: every table says what it is, every attribute has its column, migrations run once."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.attributes import INDEXED, Level
from storage.database.connection import Database
from storage.database.tables import TABLES
from tests.keeping import columns_of

_TABLE_OF = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.IMAGE: "instance",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    made = Database(DatabaseSettings(url=url), tmp_path)
    made.migrate()
    yield made
    made.close()


def names(database: Database) -> set[str]:
    sql = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
        "postgresql": "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'public'",
    }
    return {row[0] for row in database.execute(sql[database.dialect])}


def test_every_table_says_what_becomes_of_it(database: Database) -> None:
    assert names(database) - {"schema_migration"} == {one.name for one in TABLES}
    assert len(TABLES) == len({one.name for one in TABLES})
    assert all(one.about for one in TABLES)


def test_every_attribute_has_its_column(database: Database) -> None:
    for attribute in INDEXED:
        assert attribute.column in columns_of(database, _TABLE_OF[attribute.level]), attribute


def test_tables_can_be_emptied_in_their_order(database: Database) -> None:
    with database.transaction():
        for table in TABLES:
            database.write(f"DELETE FROM {table.name}")


def test_migrating_again_changes_nothing(database: Database) -> None:
    before = {table: columns_of(database, table) for table in names(database)}
    assert database.migrate() == []
    assert {table: columns_of(database, table) for table in names(database)} == before


def migrate_in_child(url: str, home: Path, started: object, answers: object) -> None:
    started.wait()  # type: ignore[attr-defined]
    made = Database(DatabaseSettings(url=url), home)
    answers.put(made.migrate())  # type: ignore[attr-defined]
    made.close()


@pytest.mark.parametrize("homes", [1, 4], ids=["one home", "four nodes"])
def test_four_processes_at_once(url: str, tmp_path: Path, homes: int) -> None:
    homes = homes if url else 1  # on SQLite every home has a database of its own
    context = multiprocessing.get_context("spawn")
    started, answers = context.Event(), context.Queue()
    children = []
    for number in range(4):
        home = tmp_path / str(number % homes)
        home.mkdir(exist_ok=True)
        children.append(
            context.Process(target=migrate_in_child, args=(url, home, started, answers))
        )
    for child in children:
        child.start()
    started.set()
    done = sorted((answers.get(timeout=60) for _ in children), key=len)
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [len(one) for one in done[:3]] == [0, 0, 0]
    assert "0001_archive" in done[3]


def test_tables_of_extensions_have_a_history_of_their_own(
    database: Database, tmp_path: Path
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "0001_first.py").write_text(
        "def up(migrator, db):\n    db.execute_sql('CREATE TABLE tally_count (n BIGINT)')\n"
    )
    assert database.migrate({"tally": scripts}) == ["0001_first"]
    assert database.migrate({"tally": scripts}) == []
    assert {"tally_count", "tally_migration"} <= names(database)
