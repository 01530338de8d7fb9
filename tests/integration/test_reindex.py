"""``pacs reindex``: the index is what files and journal say, and no record is touched."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pacs.app import subscriber as attached
from pacs.app.archive import Archive
from pacs.core.attributes import Level
from pacs.core.caller import Candidate, SubscriberName
from pacs.core.contract import Agreement, Contract, ContractState, Purpose
from pacs.core.errors import RecordsFailed
from pacs.core.identifiers import AETitle, ObjectId, new_object_id
from pacs.core.records import StoreOutcome
from storage.database.tables import Kind
from storage.instances import disk
from storage.journal import Journal
from tests.keeping import ADMIN, data_set, delivered, keep, listed, object_ids, opened, tables


def nothing() -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def reversed_ids(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let object ids of files run backwards from a time on."""

    def begin(milliseconds: int) -> None:
        clock = [milliseconds]

        def issue() -> ObjectId:
            clock[0] -= 10
            return new_object_id(clock[0])

        monkeypatch.setattr(disk, "new_object_id", issue)

    return begin


def lived(archive: Archive) -> None:
    """A life: versions, three kinds of conflict, deletions hidden, undone, purged, sent again."""
    archive.reindex.recover()  # as a start does
    for number in range(1, 4):
        keep(archive, data_set("1.1", "1.1.1", f"1.1.1.{number}", InstanceNumber=str(number)))
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="SR"))
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="another content"))
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.8", PatientID="P2", PatientName="Roe^Rick"))
    keep(archive, data_set("1.9", "1.1.1", "1.1.1.9", PatientID="P2"))
    keep(archive, data_set("1.4", "1.4.1", "1.4.1.1", PatientID=""))
    keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"), registrant="other")
    for conflict in archive.conflicts.list(ADMIN)[:2]:
        archive.conflicts.accept(ADMIN, conflict.id, reason="seen")
    (contents,) = (one for one in archive.conflicts.list(ADMIN, settled_too=True)
                   if one.kind == "instance-of-two-contents")  # fmt: skip
    second = object_ids_of_local(archive)[1]
    archive.conflicts.deliver(ADMIN, contents.id, second, reason="the better one")
    deletions = archive.deletions
    undone, _ = deletions.delete(ADMIN, Level.SERIES, "1.1.1", reason="r", registrant="local")
    deletions.undo(ADMIN, undone.id, reason="not so")
    deletions.delete(ADMIN, Level.IMAGE, "1.1.1.3", reason="r")
    assert keep(archive, data_set("1.1", "1.1.1", "1.1.1.3", InstanceNumber="3")) is (
        StoreOutcome.KEPT
    )
    deletions.delete(ADMIN, Level.STUDY, "1.4", reason="r")
    again, _ = deletions.delete(ADMIN, Level.IMAGE, "1.1.2.1", reason="r")
    keep(archive, data_set("1.1", "1.1.2", "1.1.2.1", Modality="SR"))
    with pytest.raises(Exception, match="can be undone"):
        deletions.undo(ADMIN, again.id, reason="it has come again")
    archive.peers.add(ADMIN, "DEST", "127.0.0.1", 104)
    agreed(archive)


def agreed(archive: Archive) -> None:
    """Contracts with all they may have, and a device that waits."""
    name = SubscriberName("other")
    attached.contracts(archive).add(
        ADMIN,
        Contract(
            subscriber=name,
            state=ContractState.ACTIVE,
            agreements=(Agreement(owner=SubscriberName("local")),),
            purposes=(Purpose(name="teaching"),),
            destinations=frozenset({AETitle("DEST")}),
        ),
    )
    attached.terms(archive).add_user(ADMIN, name, "jane", None)
    desk = attached.enrolments(archive.database, archive.audit, archive.settings.subscriber)
    code = desk.add_code(ADMIN, rights=frozenset(), until_utc=None, uses=1).code
    device = Candidate(
        calling_ae_title=AETitle("US1"), called_ae_title=AETitle("PACS"), address="::1", port=5000
    )
    assert desk.enrol(code.encode(), device) == "US1"


def object_ids_of_local(archive: Archive) -> list[str]:
    rows = archive.database.execute(
        "SELECT object_id FROM instance WHERE sop_instance_uid = '1.1.1.1' "
        "AND registrant = 'local' ORDER BY object_id"
    )
    return [row[0] for row in rows]


def test_index_is_equal_before_and_after_and_records_are_untouched(
    url: str, tmp_path: Path
) -> None:
    with opened(tmp_path, url) as archive:
        lived(archive)
        index, records = tables(archive.database, Kind.INDEX), tables(archive.database, Kind.RECORD)
        assert archive.reindex.run(ADMIN, nothing) == []
        assert tables(archive.database, Kind.INDEX) == index
        assert tables(archive.database, Kind.RECORD) == records
        assert records["usage_fact"] and records["peer"] and index["conflict"]
        assert all(rows for table, rows in records.items() if table.startswith("subscriber"))
        assert records["contract_history"] and records["enrolment_code"]
        assert list(archive.verification.run(ADMIN, nothing)) == []


def test_equal_after_a_purge_too(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        lived(archive)
    with opened(tmp_path, url, storage__deletion_delay_s="0") as archive:
        assert archive.deletions.purge(ADMIN) == 3
        index = tables(archive.database, Kind.INDEX)
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.INDEX) == index


def test_rows_destroyed_and_corrupted_come_back(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        lived(archive)
        index = tables(archive.database, Kind.INDEX)
        with archive.database.transaction():
            write = archive.database.write
            write("DELETE FROM study_modality")
            write("DELETE FROM conflict")
            write("DELETE FROM journal_applied")
            write("UPDATE patient SET name_alphabetic = 'x', patient_id = 'wrong' || id")
            write("UPDATE series SET instance_count = 77, modality = NULL")
            write("UPDATE instance SET digest = object_id, delivered = 0, deleted_by = NULL")
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.INDEX) == index
        with archive.database.transaction():
            for table in ("study_modality", "instance", "series", "study", "patient"):
                archive.database.write(f"DELETE FROM {table}")
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.INDEX) == index


def test_object_ids_out_of_the_order_of_arrival(
    url: str, tmp_path: Path, reversed_ids: Callable[[int], None]
) -> None:
    with opened(tmp_path, url) as archive:
        archive.reindex.recover()
        reversed_ids(int(datetime(2025, 3, 1, tzinfo=UTC).timestamp() * 1000))
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", PatientName="Late", Modality="MR"))
        keep(
            archive, data_set("1.1", "1.1.1", "1.1.1.2", PatientName="Early", StudyDate="20230101")
        )
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.2", PatientName="Earliest"))
        (study,) = listed(archive, Level.STUDY)
        assert study["PatientName"] == "Earliest"
        assert study["StudyDate"] == "20240501"
        assert study["ModalitiesInStudy"] == "CT"
        assert listed(archive, Level.STUDY, PatientName="earliest", ModalitiesInStudy="CT")
        assert not listed(archive, Level.STUDY, PatientName="Late")
        index = tables(archive.database, Kind.INDEX)
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.INDEX) == index


def test_a_crash_in_the_middle_leaves_the_old_index(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        lived(archive)
        index = tables(archive.database, Kind.INDEX)
        seen: list[None] = []

        def stop() -> None:
            seen.append(None)
            if len(seen) == 3:
                raise RecordsFailed("power is gone")

        with pytest.raises(RecordsFailed):
            archive.reindex.run(ADMIN, stop)
        assert tables(archive.database, Kind.INDEX) == index


def test_an_unreadable_file_is_told_and_the_rest_is_indexed(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        for number in (1, 2):
            keep(archive, data_set("1.1", "1.1.1", f"1.1.1.{number}"))
        damaged = sorted((tmp_path / "store").rglob("*.dcm"))[0]
        damaged.write_bytes(damaged.read_bytes()[:50])
        (damage,) = archive.reindex.run(ADMIN, nothing)
        assert (damage.kind, damage.file) == (
            "unreadable",
            str(damaged.relative_to(tmp_path / "store")),
        )
        assert [one["NumberOfStudyRelatedInstances"] for one in listed(archive, Level.STUDY)] == [
            "1"
        ]


def test_start_obeys_entries_whose_effect_was_lost(url: str, tmp_path: Path) -> None:
    """An entry is durable before its effect; two administrators may be interrupted in any order."""
    with opened(tmp_path, url) as archive:
        for number in (1, 2):
            keep(archive, data_set("1.1", "1.1.1", f"1.1.1.{number}"))
        journal = Journal(tmp_path / "store" / "journal")
        journal.append(
            "delete", made_by="admin", reason="r",
            about={"level": "IMAGE", "uid": "1.1.1.1", "registrant": "local"},
            object_ids=[ObjectId(one) for one in object_ids(archive, "1.1.1.1")],
        )  # fmt: skip
        archive.deletions.delete(ADMIN, Level.IMAGE, "1.1.1.2", reason="later, and obeyed")
        assert delivered(archive, "1.1.1.1")
        assert archive.reindex.recover() == 0
        assert not delivered(archive, "1.1.1.1")
        assert listed(archive, Level.STUDY) == []


def test_another_versions_policy_holds_from_the_next_start(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        archive.reindex.recover()
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1", StudyDescription="new"))
        assert delivered(archive, "1.1.1.1") == object_ids(archive, "1.1.1.1")[:1]
    with opened(tmp_path, url, retrieve__versions="latest") as archive:
        archive.reindex.recover()
        assert delivered(archive, "1.1.1.1") == object_ids(archive, "1.1.1.1")[1:]
        index = tables(archive.database, Kind.INDEX)
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.INDEX) == index


def test_records_written_while_nobody_rebuilds_stay_after_it(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url) as archive:
        with archive.database.transaction():
            archive.database.write(
                "INSERT INTO job (kind, payload, asked_utc) VALUES ('k', 'p', ?)",
                ((datetime.now(UTC) - timedelta(days=1)).isoformat(),),
            )
        records = tables(archive.database, Kind.RECORD)
        archive.reindex.run(ADMIN, nothing)
        assert tables(archive.database, Kind.RECORD) == records
        assert len(records["job"]) == 1
