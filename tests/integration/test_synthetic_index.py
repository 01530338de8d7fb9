"""The made-up index of the benchmark is one the archive itself could have written, and is always the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.index_questions import study_question
from bench.synthetic_index import LONG_SERIES, build
from config.settings import Database as DatabaseSettings
from config.settings import Query
from pacs.core.caller import admin
from pacs.core.errors import InstanceNotFound
from pacs.core.identifiers import AETitle
from pacs.services.find import Find
from storage.database.connection import Database
from storage.database.find import DatabaseFindIndex

STUDIES = 40


def built(home: Path) -> Database:
    home.mkdir()
    database = Database(DatabaseSettings(), home)
    database.migrate()
    build(database, STUDIES)
    return database


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = built(tmp_path_factory.mktemp("synthetic") / "home")
    yield opened
    opened.close()


def rows(database: Database, sql: str) -> list[tuple[object, ...]]:
    return list(database.execute(sql))


def test_the_same_rows_come_from_the_same_seed(database: Database, tmp_path: Path) -> None:
    again = built(tmp_path / "again")
    for table in ("patient", "study", "series", "instance", "study_modality"):
        every = f"SELECT * FROM {table}"
        assert rows(again, every) == rows(database, every)
    again.close()


def test_counts_and_indexes_are_those_of_a_real_one(database: Database, tmp_path: Path) -> None:
    assert rows(database, "PRAGMA foreign_key_check") == []
    assert rows(database, "PRAGMA integrity_check") == [("ok",)]
    wrong = (
        "SELECT id FROM series WHERE instance_count <> "
        "(SELECT COUNT(*) FROM instance WHERE series_row = series.id AND delivered = 1)"
    )
    assert rows(database, wrong) == []
    assert rows(database, "SELECT MAX(instance_count) FROM series") == [(LONG_SERIES,)]
    empty = Database(DatabaseSettings(), tmp_path)
    empty.migrate()
    names = "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"
    assert rows(empty, names) == rows(database, names)
    empty.close()


def test_durability_comes_back_after_loading(database: Database) -> None:
    assert rows(database, "PRAGMA synchronous") == [(2,)]
    assert rows(database, "PRAGMA journal_mode") == [("wal",)]
    assert rows(database, "PRAGMA foreign_keys") == [(1,)]


def test_every_study_is_found(database: Database) -> None:
    def no_header(*_: object) -> None:
        raise InstanceNotFound

    find = Find(
        index=DatabaseFindIndex(database),
        read_header=no_header,  # type: ignore[arg-type]
        settings=Query(),
        ae_title=AETitle("PACS"),
    )
    found = [one.identifier for one in find.search(admin("test"), study_question())]
    assert len({one.StudyInstanceUID for one in found}) == STUDIES
    assert {one.StudyDate for one in found} == {"20260630"}
