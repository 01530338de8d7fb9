"""Conflicts of identity: everything is kept and found, listed, and settled by a person."""

from pathlib import Path

import pytest

from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts, EntryNotFound
from pacs.core.journal import INSTANCE, SERIES, STUDY, ConflictRow
from pacs.core.records import StoreOutcome
from tests.keeping import ADMIN, data_set, delivered, keep, listed, object_ids, opened


def kinds(archive: Archive, *, settled_too: bool = False) -> list[str]:
    found = archive.conflicts.list(ADMIN, settled_too=settled_too)
    return sorted(one.kind for one in found)


def the_only(archive: Archive) -> ConflictRow:
    (found,) = archive.conflicts.list(ADMIN, settled_too=True)
    return found


def test_a_study_of_two_patients(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", PatientID="P2"))
        conflict = the_only(archive)
        assert (conflict.kind, conflict.uid, conflict.open) == (STUDY, "1.1", True)
        assert {one["PatientID"] for one in listed(archive, Level.STUDY)} == {"P1", "P2"}
        _, members = archive.conflicts.show(ADMIN, conflict.id, 10)
        assert [one.patient_id for one in members] == ["P1", "P2"]


def test_a_series_of_two_studies(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.2", "1.1.1", "1.1.1.2"))
        assert kinds(archive) == [SERIES]
        assert len(listed(archive, Level.SERIES, SeriesInstanceUID="1.1.1")) == 2


def test_an_instance_of_two_contents_under_each_policy(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        for text, source in (("a", "CT1"), ("b", "CT1"), ("c", "RELAY")):
            made = data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription=text)
            outcome = keep(archive, made, source=source)
            assert outcome is (StoreOutcome.KEPT if text == "a" else StoreOutcome.KEPT_AS_VERSION)
        assert kinds(archive) == [INSTANCE]
        first, second, third = object_ids(archive, "1.1.1.1")
        assert delivered(archive, "1.1.1.1") == [first]
        (series,) = listed(archive, Level.SERIES)
        assert series["NumberOfSeriesRelatedInstances"] == "1"
    for policy, chosen in (("latest", third), ("latest-from-same-source", second)):
        with opened(tmp_path, url, retrieve__versions=policy) as archive:
            archive.reindex.recover()
            assert delivered(archive, "1.1.1.1") == [chosen], policy


@pytest.mark.parametrize(
    ("policy", "chosen"), [("first", 0), ("latest", 2), ("latest-from-same-source", 1)]
)
def test_policies_at_arrival(tmp_path: Path, policy: str, chosen: int) -> None:
    with opened(tmp_path, retrieve__versions=policy) as archive:
        for text, source in (("a", "CT1"), ("b", "CT1"), ("c", "RELAY")):
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription=text), source=source)
        assert delivered(archive, "1.1.1.1") == [object_ids(archive, "1.1.1.1")[chosen]]


def test_the_same_again_is_no_conflict(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        assert keep(archive, data_set("1.1", "1.1.1", "1.1.1.1")) is StoreOutcome.ALREADY_HELD
        assert kinds(archive, settled_too=True) == []


def test_accepted_and_opened_again_by_a_newer_member(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        for text in "ab":
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription=text))
        archive.conflicts.accept(ADMIN, the_only(archive).id, reason="both are right")
        assert kinds(archive) == []
        assert kinds(archive, settled_too=True) == [INSTANCE]
        assert archive.statistics.read(ADMIN)["open_conflicts"] == 0
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="c"))
        assert kinds(archive) == [INSTANCE]
        assert archive.statistics.read(ADMIN)["open_conflicts"] == 1


def test_the_chosen_version_is_delivered_from_now_on(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        for text in "abc":
            keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription=text))
        versions = object_ids(archive, "1.1.1.1")
        conflict = the_only(archive)
        archive.conflicts.deliver(ADMIN, conflict.id, versions[1], reason="the corrected one")
        assert delivered(archive, "1.1.1.1") == [versions[1]]
        assert kinds(archive) == []
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="d"))
        assert delivered(archive, "1.1.1.1") == [versions[1]], "the choice outlives arrivals"
        archive.conflicts.deliver(ADMIN, conflict.id, versions[2], reason="no, this one")
        assert delivered(archive, "1.1.1.1") == [versions[2]], "the latest choice wins"


def test_a_conflict_goes_with_its_members_and_comes_back_as_it_was(
    url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", PatientID="P2"))
        entry, _ = archive.deletions.delete(ADMIN, Level.SERIES, "1.1.2", reason="r")
        assert kinds(archive, settled_too=True) == []
        archive.deletions.undo(ADMIN, entry.id, reason="r")
        assert kinds(archive) == [STUDY]
        archive.conflicts.accept(ADMIN, the_only(archive).id, reason="twins")
        entry, _ = archive.deletions.delete(ADMIN, Level.SERIES, "1.1.2", reason="r")
        assert kinds(archive, settled_too=True) == []
        archive.deletions.undo(ADMIN, entry.id, reason="r")
        assert kinds(archive) == [], "nothing came since it was settled"
        assert kinds(archive, settled_too=True) == [STUDY]


def test_a_purged_conflict_is_gone(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, storage__deletion_delay_s="0") as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.2", "1.1.1", "1.1.1.2"))
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        archive.deletions.purge(ADMIN)
        assert kinds(archive, settled_too=True) == []


def test_what_cannot_be_settled_is_refused(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.2", "1.1.1", "1.1.1.2"))
        conflict = the_only(archive)
        with pytest.raises(EntryConflicts):
            archive.conflicts.accept(ADMIN, conflict.id, reason=" ")
        with pytest.raises(EntryConflicts):
            archive.conflicts.deliver(ADMIN, conflict.id, "x", reason="r")
        with pytest.raises(EntryNotFound):
            archive.conflicts.accept(ADMIN, 999, reason="r")
        assert kinds(archive) == [SERIES]
