"""The rows of polls and the memory of polled peers keep their promises on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.errors import EntryNotFound
from pacs.core.identifiers import AETitle, Registrant, SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import InstanceMemory, StudyMemory
from pacs.core.polling import FetchBy, Poll
from storage.database.connection import Database
from storage.database.poll import PollTable
from storage.database.poll_memory import PollMemory
from storage.database.snapshot import DatabaseSnapshots
from tests.keeping import data_set, keep, opened

HERE, THERE = AETitle("PEER"), AETitle("OTHER")
STUDY = StudyInstanceUID("1.2.3")
NOW = datetime.now(UTC)
POLL = Poll(
    name="night",
    ae_title=HERE,
    cron="0 3 * * *",
    window_days=2,
    by=FetchBy.GET,
    filters=(("ModalitiesInStudy", "CT"), ("PatientName", "Ä*")),
    max_instances=7,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    made = Database(DatabaseSettings(url=url), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def memory(database: Database) -> PollMemory:
    return PollMemory(database)


def uid(number: int) -> SOPInstanceUID:
    return SOPInstanceUID(f"1.2.3.4.{number}")


def test_a_poll_is_kept_whole_changed_and_removed(database: Database) -> None:
    table = PollTable(database)
    table.put(POLL)
    table.put(replace(POLL, name="day", filters=()))
    assert table.list() == [replace(POLL, name="day", filters=()), POLL]
    changed = replace(POLL, by=FetchBy.MOVE, active=False, cron="")
    table.put(changed)
    table.remove("day")
    assert table.list() == [changed]
    with pytest.raises(EntryNotFound):
        table.remove("day")


def test_what_an_admin_changes_is_in_the_next_snapshot(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.snapshot._LOOK_AGAIN_S", 0.0)
    snapshots, table = DatabaseSnapshots(database), PollTable(database)
    before = snapshots.current()
    table.put(POLL)
    after = snapshots.current()
    assert (before.polls, after.polls) == ((), (POLL,))
    table.note_run("night", {"fetched": 3}, "")
    assert snapshots.current().revision == after.revision
    table.remove("night")
    assert snapshots.current().polls == ()


def test_the_last_result_stays_until_there_is_another(database: Database) -> None:
    table = PollTable(database)
    table.put(POLL)
    assert table.last_runs() == {}
    table.note_run("night", {"fetched": 3}, "")
    table.note_run("night", None, "away")
    table.put(replace(POLL, window_days=5))
    last = table.last_runs()["night"]
    assert (last.result, last.trouble) == ({"fetched": 3}, "away")
    table.note_run("night", {"fetched": 0}, "")
    last = table.last_runs()["night"]
    assert (last.result, last.trouble) == ({"fetched": 0}, "")


def test_studies_are_remembered_by_peer(memory: PollMemory) -> None:
    due = NOW + timedelta(hours=1)
    left = StudyMemory(instances=12, due_utc=due, breaks=2)
    memory.remember(HERE, STUDY, StudyMemory())
    memory.remember(HERE, STUDY, left)
    assert memory.studies(HERE, [STUDY, StudyInstanceUID("9")]) == {STUDY: left}
    assert memory.studies(THERE, [STUDY]) == {}
    assert memory.studies(HERE, []) == {}


def test_what_came_once_came(memory: PollMemory) -> None:
    """A failure noted late takes nothing back."""
    failing = InstanceMemory(came=False, attempts=1, due_utc=NOW)
    memory.note(HERE, STUDY, {uid(1): failing, uid(2): failing}, "0xB000")
    memory.note(HERE, STUDY, {uid(1): InstanceMemory(came=True)})
    again = replace(failing, attempts=2)
    memory.note(HERE, STUDY, {uid(1): again, uid(2): again}, "0xB001")
    known = memory.instances(HERE, STUDY)
    assert known == {uid(1): InstanceMemory(came=True), uid(2): again}
    (failed,) = memory.failed(HERE, 10)
    assert (failed.sop_instance_uid, failed.attempts, failed.trouble) == (uid(2), 2, "0xB001")
    assert memory.instances(THERE, STUDY) == {}


def test_more_instances_than_one_statement_takes(memory: PollMemory) -> None:
    many = {uid(one): InstanceMemory(came=True) for one in range(1_234)}
    memory.note(HERE, STUDY, many)
    assert memory.instances(HERE, STUDY) == many
    assert memory.counts(HERE).came == 1_234


def test_failures_are_forgotten_when_asked_and_nothing_else(memory: PollMemory) -> None:
    memory.remember(HERE, STUDY, StudyMemory(instances=2, breaks=1, due_utc=NOW))
    memory.note(HERE, STUDY, {uid(1): InstanceMemory(came=True)})
    memory.note(HERE, STUDY, {uid(2): InstanceMemory(came=False, attempts=8)})
    memory.note(THERE, STUDY, {uid(2): InstanceMemory(came=False, attempts=8)})
    counts = memory.counts(HERE)
    assert (counts.studies, counts.came, counts.failed) == (1, 1, 1)
    assert memory.retry(HERE, gone=False) == 1
    assert memory.instances(HERE, STUDY) == {uid(1): InstanceMemory(came=True)}
    assert memory.studies(HERE, [STUDY]) == {STUDY: StudyMemory()}
    assert memory.counts(THERE).failed == 1
    assert memory.retry(HERE, gone=True) == 0
    assert memory.instances(HERE, STUDY) == {}
    assert memory.counts(THERE).failed == 1


def test_what_no_peer_shows_any_more_is_forgotten(memory: PollMemory, database: Database) -> None:
    shown, gone = StudyInstanceUID("1.1"), StudyInstanceUID("1.2")
    for study in (shown, gone):
        memory.remember(HERE, study, StudyMemory(instances=1))
        memory.note(HERE, study, {uid(1): InstanceMemory(came=True)})
    with database.transaction():
        database.write("UPDATE poll_study SET seen_utc = '2020-01-01T00:00:00.000000Z'")
    memory.studies(HERE, [shown])
    assert memory.forget(NOW - timedelta(days=2)) == 1
    assert set(memory.studies(HERE, [shown, gone])) == {shown}
    assert (len(memory.instances(HERE, shown)), memory.instances(HERE, gone)) == (1, {})


def test_held_is_what_the_registrant_has_or_has_deleted(url: str, tmp_path: Path) -> None:
    with opened(tmp_path / "home", url) as archive:
        memory, local = PollMemory(archive.database), Registrant("local")
        keep(archive, data_set("1.2.3", "1.2.3.4", uid(1)))
        keep(archive, data_set("9.9", "9.9.1", uid(2)))
        keep(archive, data_set("1.2.3", "1.2.3.4", uid(3)), registrant="other")
        keep(archive, data_set("1.2.3", "1.2.3.4", uid(4)))
        with archive.database.transaction():
            archive.database.write(
                "UPDATE instance SET deleted_by = 'entry' WHERE sop_instance_uid = ?", (uid(4),)
            )
        asked = [uid(one) for one in range(1_000)]
        assert memory.held(local, STUDY, asked) == {uid(1), uid(2), uid(4)}
        assert memory.held(local, STUDY, []) == frozenset()
