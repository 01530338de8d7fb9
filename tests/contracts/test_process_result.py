"""The record of what pieces gave keeps its promises on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.identifiers import AETitle, Registrant, StudyInstanceUID
from pacs.core.process_results import Made, PieceDone
from storage.database.process_result import ProcessResultTable
from tests.keeping import opened

OWNER = Registrant("radiology")
FIRST = PieceDone(
    session="1.2",
    number=0,
    pieces=2,
    key="k",
    operation="mip",
    registrant=OWNER,
    study_instance_uid=StudyInstanceUID("1"),
    made=(Made(series_instance_uid="1.9", instances=(("1.5", "1.9.1"), ("1.5", "1.9.2"))),),
    reasons=(),
    images=7,
    size_bytes=1 << 40,
    duration_ms=3,
)
SECOND = replace(FIRST, number=1, made=())


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    with opened(tmp_path, url) as made:
        yield made


@pytest.fixture
def table(archive: Archive) -> ProcessResultTable:
    return ProcessResultTable(archive.database)


def note(archive: Archive, *pieces: PieceDone) -> None:
    with archive.database.transaction():
        for one in pieces:
            ProcessResultTable(archive.database).note(one)


def test_a_piece_is_noted_once_and_as_it_was_noted_last(
    archive: Archive, table: ProcessResultTable
) -> None:
    note(archive, SECOND, FIRST)
    note(archive, replace(FIRST, images=8))
    assert table.of("1.2") == [replace(FIRST, images=8), SECOND]
    assert (table.ended("1.2"), table.ended("1.3"), list(table.of("1.3"))) == (2, 0, [])


def test_only_what_is_whole_is_given_again(archive: Archive, table: ProcessResultTable) -> None:
    note(archive, FIRST)
    assert table.whole(OWNER, "k", 60) == ()
    note(archive, SECOND)
    assert table.whole(OWNER, "k", 60) == (), "its workitem may yet end otherwise"
    table.complete("1.2")
    assert table.whole(OWNER, "k", 60) == [FIRST, SECOND]
    assert table.whole(Registrant("other"), "k", 60) == ()
    assert table.whole(OWNER, "l", 60) == ()
    assert table.whole(OWNER, "k", -60) == (), "too long ago"
    note(archive, replace(SECOND, reasons=("refused",)))
    assert table.whole(OWNER, "k", 60) == ()
    again = [replace(one, session="1.3") for one in (FIRST, SECOND)]
    note(archive, *again)
    table.complete("1.3")
    assert table.whole(OWNER, "k", 60) == again


def test_what_is_old_is_forgotten(archive: Archive, table: ProcessResultTable) -> None:
    note(archive, *(replace(FIRST, number=one) for one in range(1_500)))
    assert table.purge(60) == 0
    assert table.purge(-60) == 1_500
    assert table.ended("1.2") == 0


def test_where_nothing_waits_and_nothing_is_held_nothing_is_found(
    archive: Archive, table: ProcessResultTable
) -> None:
    note(archive, FIRST)
    assert (table.idle(0, 10), table.given_up(10)) == ([], [])
    assert table.files(OWNER, AETitle("PACS"), "1.9", ["1.9.1", "1.9.2"]) == []
