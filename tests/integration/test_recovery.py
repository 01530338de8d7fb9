"""What ``serve`` does at start with what a crash left behind, state by state.

The states are made by hand: each is what the disk and the database hold when
the process ends at one point of the way in.
"""

import os
import sqlite3
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from config.load import load
from pacs.app.archive import Archive
from pacs.app.serve import prepared
from pacs.core.attributes import Level
from pacs.core.caller import admin
from pacs.core.errors import InstanceNotFound
from pacs.core.identifiers import ObjectId, new_object_id
from tests.crash import (
    arriving,
    ct,
    find_instances,
    get_study,
    in_process,
    kept,
    pacs,
    store,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def found(port: int, one: Dataset) -> set[str]:
    return find_instances(port, one.StudyInstanceUID, [one.SeriesInstanceUID])


def damages(archive: Archive) -> list[Any]:
    return list(archive.verification.run(admin("test"), lambda: None))


def test_kept_but_never_committed_is_taken_in(home: Path) -> None:
    """A crash between name and commit: never acknowledged, but whole, so nothing is thrown away."""
    one = ct()
    with in_process(home) as (archive, port):
        assert store(port, one).Status == 0x0000
    _forget_rows(home)
    _mark_arriving(home)
    with in_process(home) as (archive, port):
        assert arriving(home) == [] and len(kept(home)) == 1
        noted = list(
            archive.database.execute(
                "SELECT subscriber, kind FROM usage_fact WHERE kind <> 'connect'"
            )
        )
        assert noted == [("local", "register")], "as if it had arrived now"
        assert found(port, one) == {str(one.SOPInstanceUID)}
        assert get_study(port, one.StudyInstanceUID) == {str(one.SOPInstanceUID): _body(one)}
        assert damages(archive) == []


def test_directories_are_durable_before_rows_are_taken_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash may have come before their fsync; once there are rows, a sender is told 0000."""
    one = ct()
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    _forget_rows(home)
    _mark_arriving(home)
    (path,) = kept(home)
    events: list[str] = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        fsync(descriptor)
        events.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    from storage.database.store import DatabaseUnit

    add_instance = DatabaseUnit.add_instance

    def adding(*arguments: Any) -> bool:
        events.append("rows")
        return add_instance(*arguments)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(DatabaseUnit, "add_instance", adding)
    with prepared(home, load(home, {})):
        pass
    before = events[: events.index("rows")]
    assert [str(folder) in before for folder in path.parents[:5]] == [True] * 5


def test_committed_but_not_settled_is_left_as_it_is(home: Path) -> None:
    """A crash between commit and settle: the mark goes, the file and its rows stay."""
    one = ct()
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    _mark_arriving(home)
    before = _rows(home)
    with in_process(home) as (archive, port):
        assert arriving(home) == [] and len(kept(home)) == 1
        assert _rows(home) == before
        assert found(port, one) == {str(one.SOPInstanceUID)}
        assert damages(archive) == []


def test_half_received_files_go(home: Path) -> None:
    with in_process(home):
        pass
    for content in (b"", bytes(128) + b"DICM", os.urandom(10_000)):
        (home / "store" / "incoming" / f"{new_object_id()}.part").write_bytes(content)
    with in_process(home) as (archive, _):
        assert arriving(home) == [] and kept(home) == []
        assert damages(archive) == []


def test_sent_again_after_the_crash_is_kept_once(home: Path) -> None:
    """The file of the first try has rows of the second one beside it: one of the two stays."""
    one = ct()
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    (first,) = kept(home)
    aside = home / "aside"
    first.rename(aside)
    _forget_rows(home)
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    (second,) = kept(home)
    aside.rename(first)
    os.link(first, home / "store" / "incoming" / f"{first.stem[:36]}.part")
    with in_process(home) as (archive, port):
        assert arriving(home) == []
        assert kept(home) == [second]
        assert get_study(port, one.StudyInstanceUID) == {str(one.SOPInstanceUID): _body(one)}
        assert damages(archive) == []


def test_a_kept_file_that_cannot_be_read_was_never_acknowledged_and_goes(home: Path) -> None:
    with in_process(home) as (_, port):
        assert store(port, ct()).Status == 0x0000
    _forget_rows(home)
    _mark_arriving(home)
    (path,) = kept(home)
    path.write_bytes(path.read_bytes()[:400])
    with in_process(home) as (archive, _):
        assert arriving(home) == [] and kept(home) == []
        assert damages(archive) == []


def test_a_deletion_written_but_not_applied_is_applied(home: Path) -> None:
    """A crash between the journal entry and its effect: the decision was made."""
    gone, stays = ct(), ct()
    with in_process(home) as (archive, port):
        for one in (gone, stays):
            assert store(port, one).Status == 0x0000
        archive.deletions.delete(
            admin("test"), Level.STUDY, str(gone.StudyInstanceUID), reason="test"
        )
    _unapply(home)
    with in_process(home) as (_, port):
        assert found(port, gone) == set()
        assert found(port, stays) == {str(stays.SOPInstanceUID)}


def test_an_older_deletion_is_applied_although_a_newer_one_was(home: Path) -> None:
    """Start-up and ``reindex`` obey the same entries, whichever process ended in between."""
    gone, newer = ct(), ct()
    with in_process(home) as (archive, port):
        for one in (gone, newer):
            assert store(port, one).Status == 0x0000
        for one in (gone, newer):
            study = str(one.StudyInstanceUID)
            archive.deletions.delete(admin("test"), Level.STUDY, study, reason="test")
    _unapply(home, only_oldest=True)
    with in_process(home) as (_, port):
        assert found(port, gone) == set()
        assert found(port, newer) == set()


def test_recovery_twice_changes_nothing(home: Path) -> None:
    one = ct()
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    _mark_arriving(home)
    with in_process(home):
        first = _rows(home)
    with in_process(home) as (archive, _):
        assert _rows(home) == first
        assert damages(archive) == []


def test_a_file_that_is_on_its_way_is_no_damage(home: Path) -> None:
    """``pacs verify`` beside a running server must not report what has not been committed yet."""
    with in_process(home) as (_, port):
        assert store(port, ct()).Status == 0x0000
    _forget_rows(home)
    _mark_arriving(home)
    done = pacs(home, "verify")
    assert done.returncode == 0, done.stdout
    arriving(home)[0].unlink()
    done = pacs(home, "verify")
    assert done.returncode == 3
    assert "not-indexed" in done.stdout


def test_the_store_survives_the_loss_of_its_database(home: Path) -> None:
    """Files are the truth: without index.sqlite, ``pacs reindex`` finds everything again."""
    one = ct()
    with in_process(home) as (_, port):
        assert store(port, one).Status == 0x0000
    for path in home.glob("index.sqlite*"):
        path.unlink()
    assert pacs(home, "init").returncode == 0
    assert pacs(home, "reindex").returncode == 0
    with in_process(home) as (archive, port):
        assert get_study(port, one.StudyInstanceUID) == {str(one.SOPInstanceUID): _body(one)}
        assert damages(archive) == []


def test_what_was_removed_is_not_found(home: Path) -> None:
    with in_process(home) as (archive, port):
        assert store(port, ct()).Status == 0x0000
        (place,) = archive.store.places()
        archive.store.remove(place)
        archive.store.remove(place)
        with pytest.raises(InstanceNotFound):
            archive.store.open(place)
        assert [one.kind for one in damages(archive)] == ["missing"]


def _body(one: Dataset) -> bytes:
    part10 = BytesIO()
    pydicom.dcmwrite(part10, one, enforce_file_format=True)
    content = part10.getvalue()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def _mark_arriving(home: Path) -> None:
    """Give every kept file its second name again, as before ``settle``."""
    for path in kept(home):
        os.link(path, home / "store" / "incoming" / f"{ObjectId(path.stem[:36])}.part")


def _changed(home: Path, *statements: str) -> None:
    database = sqlite3.connect(home / "index.sqlite")
    try:
        with database:
            for statement in statements:
                database.execute(statement)
    finally:
        database.close()


def _forget_rows(home: Path) -> None:
    """Take back the commit."""
    tables = ("study_modality", "instance", "series", "study", "patient", "conflict")
    _changed(home, *(f"DELETE FROM {table}" for table in tables), "DELETE FROM usage_fact")


def _unapply(home: Path, *, only_oldest: bool = False) -> None:
    """Take back the effect of deletions, not their journal entries."""
    oldest = "(SELECT MIN(entry_id) FROM journal_applied)"
    which = f"= {oldest}" if only_oldest else "IS NOT NULL"
    _changed(
        home,
        "UPDATE series SET instance_count = 1 WHERE id IN "
        f"(SELECT series_row FROM instance WHERE deleted_by {which})",
        f"UPDATE instance SET deleted_by = NULL, delivered = 1 WHERE deleted_by {which}",
        f"DELETE FROM journal_applied WHERE entry_id {which}",
    )


def _rows(home: Path) -> list[Any]:
    database = sqlite3.connect(home / "index.sqlite")
    try:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("patient", "study", "series", "instance", "usage_fact")
        ]
    finally:
        database.close()
