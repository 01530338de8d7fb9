"""What one AE asks for holds up no other and is changed in no other's name; on both databases."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from pacs.app.archive import Archive
from pacs.core.caller import Caller, Right, SubscriberName, Visibility, on_behalf
from pacs.core.contract import Agreement, Contract
from pacs.core.errors import NotAuthorized
from pacs.core.identifiers import AETitle, StudyInstanceUID
from pacs.core.records import Job, StoreOutcome
from pacs.core.workitem_errors import (
    AlreadyInProgress,
    AttributeNotAllowed,
    TransactionUIDWrong,
    WorkitemUnknown,
)
from pacs.core.workitem_ports import Watch
from pacs.core.workitems import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION
from pacs.services.workitems import Workitems
from pacs.services.workitems.matching import Keys
from storage.database.workitem_watch import WorkitemWatchTable
from tests.contracts.test_workitems import limited, posted, subscriber
from tests.keeping import data_set, keep, opened
from tests.legitimacy import contract
from tests.workitems import code, performed, progress, scheduled

PAGE, THERE = 100, 230
NUMBERS = count(1)
SEER = replace(subscriber("seer"), visibility=Visibility(everything=True), known_device=True)
"""Whose agreement shows it the whole archive."""


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


# --- watching everything ----------------------------------------------------------------


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


# --- what is only seen ------------------------------------------------------------------


def test_who_sees_others_workitems_changes_none(archive: Archive) -> None:
    maker, worklist = subscriber(f"j{next(NUMBERS)}"), archive.workitems
    scheduled_ = worklist.create(maker, "", scheduled()).uid
    begun = worklist.create(maker, "", scheduled()).uid
    worklist.claim(maker, begun, "1.2.3.1")
    before = [worklist.get(SEER, one) for one in (scheduled_, begun)]
    for ask in (
        lambda: worklist.claim(SEER, scheduled_, "1.2.3.2"),
        lambda: worklist.claim(SEER, begun, "1.2.3.2"),
        lambda: worklist.modify(SEER, scheduled_, "", of(ProcedureStepLabel="Mine")),
        lambda: worklist.request_cancel(SEER, scheduled_, Dataset()),
        lambda: worklist.request_cancel(SEER, begun, Dataset()),
        lambda: worklist.abandon(SEER, begun, Dataset()),
    ):
        with pytest.raises(NotAuthorized):
            ask()
    for change in (
        lambda: worklist.modify(SEER, begun, "1.2.3.2", progress("10")),
        lambda: worklist.complete(SEER, begun, "1.2.3.2"),
        lambda: worklist.cancel(SEER, begun, ""),
    ):
        with pytest.raises(TransactionUIDWrong):
            change()
    assert [worklist.get(maker, one) for one in (scheduled_, begun)] == before
    administrator = replace(SEER, rights=SEER.rights | {Right.ADMINISTER})
    worklist.modify(administrator, scheduled_, "", of(ProcedureStepLabel="Put right"))
    worklist.request_cancel(administrator, scheduled_, Dataset())
    assert worklist.get(maker, scheduled_).ProcedureStepState == "CANCELED"


def test_another_s_device_performs_what_names_it_as_station(archive: Archive) -> None:
    maker, worklist = subscriber(f"j{next(NUMBERS)}"), archive.workitems
    station = [code("STATION1"), code("DEVICE")]
    uid = worklist.create(maker, "", scheduled(ScheduledStationNameCodeSequence=station)).uid
    unknown = replace(SEER, known_device=False)  # a user says what AE title it likes
    elsewhere = replace(SEER, ae_title=AETitle("DEVICE2"))
    blind = replace(subscriber("blind"), known_device=True)
    for other, error in (
        (unknown, NotAuthorized),
        (elsewhere, NotAuthorized),
        (blind, WorkitemUnknown),
    ):
        with pytest.raises(error):
            worklist.claim(other, uid, "1.2.3.1")
    with pytest.raises(NotAuthorized):
        worklist.modify(SEER, uid, "", of(ProcedureStepLabel="Mine"))
    worklist.claim(SEER, uid, "1.2.3.1")
    with pytest.raises(AlreadyInProgress):
        worklist.claim(SEER, uid, "1.2.3.1")
    worklist.modify(SEER, uid, "1.2.3.1", performed())
    worklist.complete(SEER, uid, "1.2.3.1")
    assert worklist.get(maker, uid).ProcedureStepState == "COMPLETED"


def test_who_watches_another_s_workitem_hears_of_it_while_an_agreement_shows_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, worklist = subscriber(f"j{next(NUMBERS)}"), archive.workitems
    uid = worklist.create(maker, "", scheduled()).uid
    watcher = replace(SEER, subscriber=SubscriberName(f"j{next(NUMBERS)}"))
    whole = contract(str(watcher.subscriber), agreements=(Agreement(owner=None),))
    snapshot = archive.snapshots.current()

    def stand(one: Contract) -> None:
        now = replace(snapshot, contracts={one.subscriber: one})
        monkeypatch.setattr(archive.snapshots, "current", lambda: now)

    stand(whole)
    worklist.watching.subscribe(watcher, uid, "DEVICE", deletion_lock=False)
    assert len(posted(archive, watcher)) == 1
    for contract_ in (
        replace(whole, agreements=()),
        replace(
            whole, agreements=(Agreement(owner=None, study_instance_uid=StudyInstanceUID("1.2.3")),)
        ),
        replace(whole, rights=frozenset(Right) - {Right.PROCESS}),
    ):
        stand(contract_)
        worklist.modify(maker, uid, "", of(InputReadinessState="INCOMPLETE"))
        worklist.watching.restarted()
        worklist.modify(maker, uid, "", of(InputReadinessState="READY"))
    stand(whole)
    worklist.request_cancel(maker, uid, Dataset())
    told = [one.event_type_id for one in posted(archive, watcher)]
    assert sorted(told) == [1, 1, 1, 2, 4, 4]


# --- what is ordered --------------------------------------------------------------------


@pytest.fixture
def ours(archive: Archive) -> Workitems:
    """The worklist, with a performer of ours that takes up everything."""
    made = limited(archive)
    made.add_on_created(lambda *_: [Job(kind="test.work", payload="{}")])
    return made


def orders() -> dict[str, Any]:
    destination, store = Dataset(), Dataset()
    store.DestinationAE = "ELSEWHERE"
    destination.DICOMStorageSequence = [store]
    return {
        "OutputDestinationSequence": [destination],
        "InputInformationSequence": [destination],
        "ScheduledProcessingParametersSequence": [code("P")],
        "ScheduledWorkitemCodeSequence": [code("ANOTHER")],
        "StudyInstanceUID": "1.2.4",
    }


def of(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def changed_by(archive: Archive, uid: str) -> list[str]:
    lines = [
        json.loads(line)
        for file in sorted((archive.home / "audit").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    return [
        one["ae_title"]
        for one in lines
        if (one.get("workitem"), one.get("what")) == (uid, "changed")
    ]


@pytest.mark.parametrize("keyword", orders())
def test_what_is_done_in_one_s_name_no_other_changes(
    archive: Archive, ours: Workitems, keyword: str
) -> None:
    maker = subscriber(f"j{next(NUMBERS)}")
    changed = of(**{keyword: orders()[keyword]})
    uid = ours.create(maker, "", scheduled()).uid
    before = ours.get(maker, uid)
    for other in (
        replace(maker, ae_title=AETitle("ANOTHER")),
        replace(maker, purpose="teaching"),
        replace(SEER, rights=SEER.rights | {Right.ADMINISTER}),
    ):
        with pytest.raises(AttributeNotAllowed) as refused:
            ours.modify(other, uid, "", changed)
        assert [keyword_for_tag(one) for one in refused.value.attributes] == [keyword]
        assert ours.get(maker, uid) == before
    assert changed_by(archive, uid) == []
    ours.modify(maker, uid, "", changed)
    assert ours.get(maker, uid)[keyword] == changed[keyword]
    assert changed_by(archive, uid) == ["DEVICE"]


def test_what_is_ordered_of_nobody_of_ours_any_ae_of_the_subscriber_changes(
    archive: Archive,
) -> None:
    maker = subscriber(f"j{next(NUMBERS)}")
    uid = archive.workitems.create(maker, "", scheduled()).uid
    another = replace(maker, ae_title=AETitle("ANOTHER"))
    archive.workitems.modify(another, uid, "", of(**orders()))
    assert archive.workitems.get(maker, uid).StudyInstanceUID == "1.2.4"
    assert changed_by(archive, uid) == ["ANOTHER"]


def test_another_ae_still_says_what_changes_no_order(archive: Archive, ours: Workitems) -> None:
    maker = subscriber(f"j{next(NUMBERS)}")
    uid = ours.create(maker, "", scheduled()).uid
    another = replace(maker, ae_title=AETitle("ANOTHER"))
    ours.modify(
        another, uid, "", of(ScheduledProcedureStepPriority="LOW", StudyInstanceUID="1.2.3")
    )
    assert ours.get(maker, uid).ScheduledProcedureStepPriority == "LOW"
    ours.claim(another, uid, "1.2.3.1")
    ours.modify(another, uid, "1.2.3.1", progress("10"))
    assert changed_by(archive, uid) == ["ANOTHER", "ANOTHER"]


def test_our_own_performer_says_how_far_it_is_without_a_line_each_time(
    archive: Archive, ours: Workitems
) -> None:
    maker = subscriber(f"j{next(NUMBERS)}")
    uid = ours.create(maker, "", scheduled()).uid
    performer = on_behalf(maker.registrant, "process")
    ours.claim(performer, uid, "1.2.3.1")
    ours.modify(performer, uid, "1.2.3.1", progress("10"))
    assert changed_by(archive, uid) == []
