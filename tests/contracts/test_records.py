"""The promises of ``Records``, ``Unit`` and ``RetrieveIndex``, kept by both back ends."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.attributes import Level
from pacs.core.caller import SubscriberName, Visibility
from pacs.core.errors import EntryNotFound, RecordsFailed
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Job, Peer, PeerEncoding, Selection
from pacs.core.usage import Connected
from storage.database.connection import Database
from storage.database.peer import PeerTable
from storage.database.retrieve import DatabaseRetrieveIndex
from storage.database.snapshot import DatabaseSnapshots
from storage.database.store import DatabaseRecords
from tests.contracts.test_find_index import instance

ALL = Visibility(everything=True)
USED = Connected(subscriber=SubscriberName("s"), association="1", asked_by="CT1", duration_ms=1)
_VALUES = {"PatientID": "A1", "PatientName": "Doe^Jane", "Modality": "CT", "StudyDate": "20240101"}
ONE = instance("1.1", "1.1.1", "1.1.1.1", values=_VALUES)
TWO = instance("1.1", "1.1.1", "1.1.1.2", values=_VALUES)
OTHERS = instance("1.1", "1.1.1", "1.1.1.1", values=_VALUES, registrant="two")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    made = Database(DatabaseSettings(url=url, timeout_s=60), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def records(database: Database) -> DatabaseRecords:
    return DatabaseRecords(database, "first")


@pytest.fixture
def index(database: Database) -> DatabaseRetrieveIndex:
    return DatabaseRetrieveIndex(database)


def count(database: Database, table: str) -> int:
    return int(next(database.execute(f"SELECT COUNT(*) FROM {table}"))[0])


def test_everything_in_a_transaction_is_committed_or_nothing(
    database: Database, records: DatabaseRecords, index: DatabaseRetrieveIndex
) -> None:
    def interrupted() -> None:
        with records.transaction() as unit:
            assert unit.add_instance(ONE)
            unit.record_usage(USED)
            unit.enqueue(Job(kind="k", payload="{}"))
            raise KeyError("the caller failed")

    with pytest.raises(KeyError):
        interrupted()
    for table in ("patient", "study", "series", "instance", "usage_fact", "job", "study_modality"):
        assert count(database, table) == 0, table
    with records.transaction() as unit:
        assert unit.add_instance(ONE)
        unit.record_usage(USED)
        unit.enqueue(Job(kind="k", payload="{}"))
    assert index.has_object(ONE.place.object_id)
    assert (count(database, "usage_fact"), count(database, "job")) == (1, 1)


def test_the_same_digest_is_held_once(records: DatabaseRecords, database: Database) -> None:
    again = replace(ONE, place=TWO.place)
    with records.transaction() as unit:
        assert not unit.holds_digest(ONE)
        assert unit.add_instance(ONE)
        assert unit.holds_digest(again)
        assert not unit.add_instance(again)
        assert [one.place for one in unit.versions(again)] == [ONE.place]
        assert not unit.holds_digest(OTHERS)
    assert count(database, "instance") == 1


def test_a_waiting_job_is_not_doubled(records: DatabaseRecords, database: Database) -> None:
    for key in ("once", "once", None, None):
        with records.transaction() as unit:
            unit.enqueue(Job(kind="k", payload="{}", unique_key=key))
    assert count(database, "job") == 3


def test_selecting_and_fetching(records: DatabaseRecords, index: DatabaseRetrieveIndex) -> None:
    with records.transaction() as unit:
        for one in (ONE, TWO, OTHERS):
            unit.add_instance(one)
    study = Selection(level=Level.STUDY, study_instance_uids=("1.1", "9.9"))
    own = Visibility(registrants=frozenset({Registrant("one")}))
    assert not index.is_ambiguous(study, own)
    assert not index.is_ambiguous(study, Visibility())
    assert len(index.select(study, ALL, 10)) == 3
    assert len(index.select(study, ALL, 1)) == 2, "one more than the limit says that there is more"
    rows = [row for row, *_ in index.select(study, own, 10)]
    held = index.fetch(list(reversed(rows)))
    assert [one.place for one in held] == [TWO.place, ONE.place]
    assert index.fetch([999_999]) == []
    image = Selection(level=Level.IMAGE, sop_instance_uids=("1.1.1.1",), patient_id="A1")
    assert len(index.select(image, own, 10)) == 1
    assert index.select(replace(image, patient_id="A2"), ALL, 10) == []


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", "?", "%s", "x'; DROP TABLE study; --"])
def test_no_text_is_taken_for_sql(
    records: DatabaseRecords, index: DatabaseRetrieveIndex, text: str
) -> None:
    odd = instance("1.7", "1.7.1", "1.7.1.7", values={**_VALUES, "PatientID": text})
    with records.transaction() as unit:
        unit.add_instance(ONE)
        unit.add_instance(odd)
    chosen = Selection(level=Level.PATIENT, patient_id=text)
    rows = [row for row, *_ in index.select(chosen, ALL, 10)]
    assert [one.place for one in index.fetch(rows)] == [odd.place]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udcff\0"])
def test_text_that_is_no_text_never_fails_a_store(
    records: DatabaseRecords, index: DatabaseRetrieveIndex, text: str
) -> None:
    values = {**_VALUES, "PatientID": text, "PatientName": text, "StudyDescription": text}
    odd = instance("1.8", "1.8.1", "1.8.1.8", values=values)
    with records.transaction() as unit:
        assert unit.add_instance(odd)
    assert [one.place for one in index.versions(odd)] == [odd.place]
    assert len(index.select(Selection(level=Level.PATIENT, patient_id=text), ALL, 10)) == 1


def test_a_failure_says_its_class_and_no_data(database: Database) -> None:
    def twice() -> None:
        with database.transaction():
            for _ in range(2):
                database.write(
                    "INSERT INTO peer (ae_title, host, port, added_utc) VALUES (?, ?, ?, ?)",
                    ("SECRET^NAME", "h", 1, ""),
                )

    with pytest.raises(RecordsFailed, match="IntegrityError") as failure:
        twice()
    assert "SECRET" not in str(failure.value)
    with pytest.raises(RecordsFailed, match="Error") as failure:
        database.execute("SELECT nothing FROM nowhere WHERE x = 'SECRET'")
    assert "SECRET" not in str(failure.value)
    assert count(database, "peer") == 0


def test_a_second_writer_waits_and_is_told_when_it_waited_too_long(tmp_path: Path) -> None:
    slow, quick = (Database(DatabaseSettings(timeout_s=seconds), tmp_path) for seconds in (5, 0.2))
    slow.migrate()
    with slow.transaction():
        slow.write("UPDATE revision SET number = number + 1")
        with pytest.raises(RecordsFailed, match="SQLITE_BUSY"), quick.transaction():
            pass
        assert next(quick.execute("SELECT number FROM revision"))[0] == 1, "readers never wait"
    with quick.transaction():
        quick.write("UPDATE revision SET number = number + 1")
    assert next(slow.execute("SELECT number FROM revision"))[0] == 3
    slow.close()
    quick.close()


def test_connections_that_died_are_replaced(postgres_url: str, tmp_path: Path) -> None:
    database = Database(DatabaseSettings(url=postgres_url), tmp_path)
    database.migrate()
    kill = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    with database.connection():
        nested = Database(DatabaseSettings(url=postgres_url), tmp_path)
        nested.execute("SELECT 1")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        assert len(admin.execute(kill).fetchall()) == 2
        for opened in (database, nested):
            assert next(opened.execute("SELECT COUNT(*) FROM peer"))[0] == 0
        with pytest.raises(RecordsFailed), database.transaction():
            database.write("SELECT 1")
            admin.execute(kill)
            database.write("UPDATE revision SET number = 9")
        with database.transaction():
            database.write("UPDATE revision SET number = number + 1")
    assert next(database.execute("SELECT number FROM revision"))[0] == 2
    nested.close()
    database.close()


def test_a_peer_from_before_its_associations_were_counted_takes_one(database: Database) -> None:
    with database.transaction():
        database.write(
            "INSERT INTO peer (ae_title, host, port, added_utc) VALUES (?, ?, ?, ?)",
            ("OLD", "10.0.0.9", 104, "2026-01-01T00:00:00+00:00"),
        )
    assert [one.associations for one in PeerTable(database).list()] == [1]
    PeerTable(database).put(
        Peer(ae_title=AETitle("OLD"), host="10.0.0.9", port=104, associations=4)
    )
    assert [one.associations for one in PeerTable(database).list()] == [4]


def test_peers_of_before_get_what_is_stored_at_any_rate(database: Database) -> None:
    with database.transaction():
        database.write(
            "INSERT INTO peer (ae_title, host, port, added_utc) VALUES (?, ?, ?, ?)",
            ("OLD", "10.0.0.9", 104, "2026-01-01T00:00:00+00:00"),
        )
    (old,) = PeerTable(database).list()
    assert (old.encoding, old.rate_mbit_s) == (PeerEncoding.AS_STORED, None)
    changed = replace(old, encoding=PeerEncoding.UNCOMPRESSED, rate_mbit_s=0.5)
    PeerTable(database).put(changed)
    assert PeerTable(database).list() == [changed]
    assert DatabaseSnapshots(database).current().peers["OLD"] == changed


def test_peers_and_their_snapshot(database: Database) -> None:
    peers, snapshots = PeerTable(database), DatabaseSnapshots(database)
    before = snapshots.current().revision
    peers.put(Peer(ae_title=AETitle("DEST"), host="10.0.0.1", port=104))
    peers.put(Peer(ae_title=AETitle("DEST"), host="10.0.0.2", port=105))
    assert [(one.host, one.port) for one in peers.list()] == [("10.0.0.2", 105)]
    fresh = DatabaseSnapshots(database).current()
    assert fresh.revision == before + 2
    assert set(fresh.peers) == {"DEST"}
    peers.remove(AETitle("DEST"))
    with pytest.raises(EntryNotFound):
        peers.remove(AETitle("DEST"))
    assert DatabaseSnapshots(database).current().revision == before + 3
