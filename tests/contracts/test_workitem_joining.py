"""Who begins to watch everything misses nothing, hears nothing twice, and holds up nobody; on both databases."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from pacs.app.archive import Archive
from pacs.core.caller import Caller
from pacs.core.records import StoreOutcome
from pacs.core.workitem_ports import Watch
from pacs.core.workitems import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION
from pacs.services.workitems.matching import Keys
from storage.database.workitem_watch import WorkitemWatchTable
from tests.contracts.test_workitems import posted, subscriber
from tests.keeping import data_set, keep, opened
from tests.workitems import scheduled

PAGE, THERE = 100, 230
NUMBERS = count(1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    home: Path = tmp_path_factory.mktemp("joining")
    if request.param == "sqlite":
        with opened(home) as made:
            yield made
        return
    from tests.archive import database

    with database(request.getfixturevalue("postgres_cluster")) as url, opened(home, url) as made:
        yield made


@pytest.fixture
def caller(archive: Archive) -> Caller:
    """A subscriber with many workitems of one label and one of another."""
    made = subscriber(f"j{next(NUMBERS)}")
    first = archive.workitems.create(made, "", scheduled()).uid
    with archive.database.transaction():
        for number in range(1, THERE):
            archive.database.write(
                "INSERT INTO workitem (uid, registrant, state, created_utc, changed_utc, data_set) "
                "SELECT uid || ?, registrant, state, created_utc, changed_utc, data_set "
                "FROM workitem WHERE uid = ?",
                (f".{number}", first),
            )
    archive.workitems.create(made, "", scheduled(ProcedureStepLabel="Something else"))
    return made


def subscribe(archive: Archive, caller: Caller) -> None:
    keys = Dataset()
    keys.ProcedureStepLabel = "Smooth*"
    archive.workitems.watching.subscribe(
        caller, FILTERED_SUBSCRIPTION, "DEVICE", deletion_lock=True, keys=keys
    )


def watched(archive: Archive, caller: Caller) -> int:
    rows = archive.database.execute(
        "SELECT COUNT(*) FROM workitem_watch WHERE registrant = ?", (caller.registrant,)
    )
    return int(next(rows)[0])


def elsewhere(work: Callable[[], object]) -> None:
    """Do it in a thread of its own, so with a transaction of its own; it is not kept waiting."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result(30)


def once_at(
    monkeypatch: pytest.MonkeyPatch, archive: Archive, work: Callable[[], object]
) -> list[int]:
    """Have ``work`` done while the first page is matched; gives how many matched in no transaction."""
    matched = [0]
    match = Keys.match

    def spied(keys: Keys, one: Dataset) -> bool:
        if not archive.database.in_transaction():
            matched[0] += 1
            if matched[0] == 1:
                elsewhere(work)
        return match(keys, one)

    monkeypatch.setattr(Keys, "match", spied)
    return matched


def test_a_store_comes_between_and_pages_are_bounded(
    archive: Archive, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[StoreOutcome] = []
    matched = once_at(
        monkeypatch,
        archive,
        lambda: stored.append(keep(archive, data_set("1.9", "1.9.1", str(caller.subscriber)[1:]))),
    )
    joined: list[int] = []
    stands, join = WorkitemWatchTable.stands, WorkitemWatchTable.join

    def begun(table: WorkitemWatchTable, watch: object) -> bool:
        joined.append(0)
        return stands(table, watch)  # type: ignore[arg-type]

    def counted(table: WorkitemWatchTable, number: int, watch: Watch) -> bool:
        joined[-1] += 1
        return join(table, number, watch)

    monkeypatch.setattr(WorkitemWatchTable, "stands", begun)
    monkeypatch.setattr(WorkitemWatchTable, "join", counted)
    subscribe(archive, caller)
    assert len(stored) == 1 and matched == [THERE + 1]
    assert sum(joined) == THERE and max(joined) <= PAGE
    assert watched(archive, caller) == len(posted(archive, caller)) == THERE


def test_what_is_created_before_all_have_joined_is_told_once(
    archive: Archive, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    quiet = scheduled(ScheduledStationNameCodeSequence=[])
    once_at(
        monkeypatch,
        archive,
        lambda: made.append(archive.workitems.create(caller, "", quiet).uid),
    )
    subscribe(archive, caller)
    told = [str(one.sop_instance_uid) for one in posted(archive, caller)]
    assert told.count(made[0]) == 1
    assert len(told) == len(set(told)) == watched(archive, caller) == THERE + 1


def test_of_two_that_subscribe_the_same_at_once_each_event_is_one(
    archive: Archive, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_at(monkeypatch, archive, lambda: subscribe(archive, caller))
    subscribe(archive, caller)
    assert len(posted(archive, caller)) == watched(archive, caller) == THERE


def test_who_leaves_meanwhile_joins_nothing_more(
    archive: Archive, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_at(
        monkeypatch,
        archive,
        lambda: archive.workitems.watching.unsubscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE"),
    )
    subscribe(archive, caller)
    assert watched(archive, caller) == 0 and posted(archive, caller) == []


def test_what_changes_before_it_is_joined_is_looked_at_again(
    archive: Archive, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, changed = Dataset(), Dataset()
    question.SOPInstanceUID = ""
    changed.ProcedureStepLabel = "Not any more"
    one = next(iter(archive.workitems.finding.search(caller, question))).identifier.SOPInstanceUID
    once_at(
        monkeypatch,
        archive,
        lambda: archive.workitems.modify(caller, one, "", changed),
    )
    subscribe(archive, caller)
    told = {str(each.sop_instance_uid) for each in posted(archive, caller)}
    assert one not in told and len(told) == watched(archive, caller) == THERE - 1
