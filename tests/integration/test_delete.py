"""``pacs delete``: hidden at once, undone in time, then the files are gone and the journal stays."""

from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.records import Selection, StoreOutcome
from storage.database.retrieve import DatabaseRetrieveIndex
from storage.database.tables import Kind
from tests.keeping import ADMIN, data_set, keep, listed, object_ids, opened, tables

NOW = {"storage__deletion_delay_s": "0"}


def retrieved(archive: Archive, study: str) -> int:
    """How many instances a C-MOVE or C-GET of a study delivers."""
    index = DatabaseRetrieveIndex(archive.database)
    chosen = Selection(level=Level.STUDY, study_instance_uids=(study,))
    return len(index.select(chosen, ADMIN.visibility, 100))


def files(home: Path) -> list[Path]:
    return sorted((home / "store").rglob("*.dcm"))


def fill(archive: Archive) -> None:
    for number in (1, 2):
        keep(archive, data_set("1.1", "1.1.1", f"1.1.1.{number}"))
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="SR"))


def test_hidden_at_once_and_back_after_undo(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        fill(archive)
        before = tables(archive.database, Kind.INDEX)["instance"]
        entry, count = archive.deletions.delete(
            ADMIN, Level.SERIES, "1.1.1", reason="wrong patient"
        )
        assert count == 2
        (study,) = listed(archive, Level.STUDY)
        assert study["NumberOfStudyRelatedInstances"] == "1"
        assert study["NumberOfStudyRelatedSeries"] == "1"
        assert study["ModalitiesInStudy"] == "SR"
        assert listed(archive, Level.IMAGE, SeriesInstanceUID="1.1.1") == []
        assert retrieved(archive, "1.1") == 1
        assert archive.statistics.read(ADMIN)["deleted_not_removed"] == 2
        assert [one.entry_id for one in archive.deletions.pending(ADMIN)] == [entry.id]
        assert archive.deletions.purge(ADMIN) == 0, "its time is not over"
        assert archive.deletions.undo(ADMIN, entry.id, reason="right after all")[1] == 2
        assert retrieved(archive, "1.1") == 3
        assert tables(archive.database, Kind.INDEX)["instance"] == before
        assert archive.deletions.pending(ADMIN) == []
        with pytest.raises(EntryNotFound):
            archive.deletions.undo(ADMIN, entry.id, reason="twice")


def test_purge_removes_files_and_rows_and_keeps_the_journal(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, **NOW) as archive:
        fill(archive)
        entry, _ = archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        with pytest.raises(EntryNotFound):
            archive.deletions.undo(ADMIN, entry.id, reason="too late")
        assert len(files(tmp_path)) == 3
        parts: list[int] = []
        assert archive.deletions.purge(ADMIN, parts.append) == sum(parts) == 3
        assert files(tmp_path) == []
        index = tables(archive.database, Kind.INDEX)
        for table in ("patient", "study", "series", "instance", "study_modality"):
            assert index[table] == [], table
        assert [one.stem for one in (tmp_path / "store" / "journal").rglob("*.json")] == [entry.id]
        assert list(archive.verification.run(ADMIN, lambda: None)) == []


def test_a_purge_that_was_interrupted_is_finished(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, **NOW) as archive:
        fill(archive)
        archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
        files(tmp_path)[0].unlink()  # the file is gone, its row is not: as after a crash
        assert list(archive.verification.run(ADMIN, lambda: None)) == []
        assert archive.deletions.purge(ADMIN) == 1
        assert len(object_ids(archive, "1.1.1.1")) == 0
        assert retrieved(archive, "1.1") == 2


def test_what_is_sent_again_is_new_and_survives_the_purge_of_the_old(
    url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, url, **NOW) as archive:
        fill(archive)
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        assert keep(archive, data_set("1.1", "1.1.1", "1.1.1.1")) is StoreOutcome.KEPT
        assert archive.deletions.purge(ADMIN) == 3
        assert retrieved(archive, "1.1") == 1
        assert len(files(tmp_path)) == 1
        assert list(archive.verification.run(ADMIN, lambda: None)) == []
        index = tables(archive.database, Kind.INDEX)
        archive.reindex.recover()
        archive.reindex.run(ADMIN, lambda: None)
        rebuilt = tables(archive.database, Kind.INDEX)
        assert {**rebuilt, "index_property": []} == {**index, "index_property": []}


def test_undo_brings_back_what_was_not_sent_again(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        fill(archive)
        entry, _ = archive.deletions.delete(ADMIN, Level.SERIES, "1.1.1", reason="r")
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        restored, count = archive.deletions.undo(ADMIN, entry.id, reason="r")
        assert (count, len(restored.object_ids)) == (1, 1)
        assert retrieved(archive, "1.1") == 3


def test_parents_inherit_from_the_next_earliest_file(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, **NOW) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDate="20200101", Modality="MR",
                               PatientName="First^Name"))  # fmt: skip
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.2", PatientName="Second^Name"))
        (study,) = listed(archive, Level.STUDY)
        assert (study["StudyDate"], study["ModalitiesInStudy"]) == ("20200101", "MR")
        archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
        archive.deletions.purge(ADMIN)
        (study,) = listed(archive, Level.STUDY, PatientName="second*", ModalitiesInStudy="CT")
        assert (study["StudyDate"], study["PatientName"]) == ("20240501", "Second^Name")
        assert listed(archive, Level.STUDY, PatientName="first*") == []
        assert listed(archive, Level.STUDY, ModalitiesInStudy="MR") == []


def test_a_damaged_successor_does_not_stop_the_purge(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, **NOW) as archive:
        fill(archive)
        archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.1", reason="r")
        files(tmp_path)[1].write_bytes(b"nothing")
        assert archive.deletions.purge(ADMIN) == 1
        (study,) = listed(archive, Level.STUDY)
        assert study["NumberOfStudyRelatedInstances"] == "2"


def test_several_registrants_must_be_named(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        for name in ("one", "two"):
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant=name)
        with pytest.raises(EntryConflicts, match="one, two"):
            archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        assert retrieved(archive, "1.1") == 2
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r", registrant="two")
        assert retrieved(archive, "1.1") == 1


def test_a_reason_and_something_to_delete_are_needed(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        fill(archive)
        with pytest.raises(EntryConflicts):
            archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="  ")
        with pytest.raises(EntryNotFound):
            archive.deletions.delete(ADMIN, Level.STUDY, "1.1' OR '1'='1", reason="r")
        with pytest.raises(EntryNotFound):
            archive.deletions.undo(ADMIN, "no-such-entry", reason="r")
        assert retrieved(archive, "1.1") == 3
        assert list((tmp_path / "store" / "journal").rglob("*.json")) == []


def test_many_instances_are_hidden_restored_and_purged_in_pieces(url: str, tmp_path: Path) -> None:
    """More than one piece of parameters and more than one part of a purge."""
    with opened(tmp_path, url, storage__deletion_delay_s="0") as archive:
        for number in range(230):
            keep(archive, data_set("1.1", f"1.1.{number % 3}", f"1.1.9.{number}"))
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        assert retrieved(archive, "1.1") == 0
        parts: list[int] = []
        assert archive.deletions.purge(ADMIN, parts.append) == 230
        assert len(parts) == 2
        assert files(tmp_path) == []
