"""What the worklist promises whoever asks, kept on both databases; each test is a subscriber of its own."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from pacs.app.archive import Archive
from pacs.core.caller import Caller, Right, SubscriberName, Visibility, on_behalf
from pacs.core.contract import ContractState
from pacs.core.errors import PacsError, TooManyMatches
from pacs.core.events import Addressee, PostedEvent
from pacs.core.identifiers import AETitle, Registrant
from pacs.core.records import Job
from pacs.core.workitem_errors import (
    AlreadyCompleted,
    AttributeNotAllowed,
    AttributeValueInvalid,
    FinalStateUnmet,
    NotEnded,
    PerformerAway,
    ReceiverUnknown,
    TransactionUIDWrong,
    WorkitemError,
    WorkitemExists,
    WorkitemsFull,
    WorkitemTooLarge,
    WorkitemUnknown,
)
from pacs.core.workitems import FILTERED_SUBSCRIPTION, GLOBAL_SUBSCRIPTION, WorkitemState
from pacs.services.workitems import Desk, Outcome, Workitems
from pacs.services.workitems.matching import parse
from storage.database.workitem import WorkitemTable
from storage.database.workitem_watch import WorkitemWatchTable
from tests.keeping import ADMIN, opened
from tests.legitimacy import contract, device
from tests.workitems import code, discontinued, key, performed, progress, scheduled

T1, T2 = "1.2.3.1", "1.2.3.2"
CALLERS = iter(range(1_000_000))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def archive(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("workitems")
    if request.param == "sqlite":
        with opened(home) as made:
            yield made
        return
    from tests.archive import database

    with database(request.getfixturevalue("postgres_cluster")) as url, opened(home, url) as made:
        yield made


@pytest.fixture
def worklist(archive: Archive) -> Workitems:
    return archive.workitems


@pytest.fixture
def caller() -> Caller:
    return subscriber(f"s{next(CALLERS)}")


def subscriber(name: str, ae_title: str = "DEVICE") -> Caller:
    return Caller(
        subscriber=SubscriberName(name),
        rights=frozenset({Right.PROCESS}),
        visibility=Visibility(registrants=frozenset({Registrant(name)})),
        ae_title=AETitle(ae_title),
    )


def limited(archive: Archive, **bounds: Any) -> Workitems:
    """Make the service with other settings."""
    return Workitems(
        Desk(
            rows=WorkitemTable(archive.database),
            watches=WorkitemWatchTable(archive.database),
            records=archive.records,
            snapshots=archive.snapshots,
            audit=archive.audit,
            settings=msgspec.structs.replace(archive.settings.workitems, **bounds),
            max_uids=100,
        )
    )


def posted(archive: Archive, caller: Caller) -> list[PostedEvent]:
    return [one for one in archive.outbox.list(ADMIN) if one.registrant == caller.registrant]


def kinds(archive: Archive, caller: Caller) -> list[int]:
    return [one.event_type_id for one in posted(archive, caller)]


# --- states -----------------------------------------------------------------------------


def test_of_many_that_claim_at_once_one_has_it(worklist: Workitems, caller: Caller) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    start = threading.Barrier(6)

    def claim(number: int) -> str:
        start.wait(30)
        try:
            worklist.claim(caller, uid, f"1.2.3.{number}")
        except TransactionUIDWrong:
            return ""
        return f"1.2.3.{number}"

    with ThreadPoolExecutor(6) as pool:
        won = [one for one in pool.map(claim, range(1, 7)) if one]
    assert [worklist.read(uid).transaction_uid] == won


def test_of_an_end_and_a_change_at_once_neither_is_lost(
    worklist: Workitems, caller: Caller
) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    worklist.claim(caller, uid, T1)
    worklist.modify(caller, uid, T1, performed())

    def advance(number: int) -> bool:
        try:
            worklist.modify(caller, uid, T1, progress(str(number)))
        except WorkitemError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        taken = pool.map(advance, range(20))
        ended = pool.submit(worklist.complete, caller, uid, T1)
    assert ended.result() is Outcome.DONE
    last = [number for number, one in enumerate(taken) if one]
    held = worklist.read(uid)
    assert held.state is WorkitemState.COMPLETED
    told = held.data_set.get("ProcedureStepProgressInformationSequence")
    assert (int(told[0].ProcedureStepProgress) in last) if last else not told


def test_final_states_have_what_they_must(worklist: Workitems, caller: Caller) -> None:
    for missing in performed().UnifiedProcedureStepPerformedProcedureSequence[0]:
        uid = worklist.create(caller, "", scheduled()).uid
        worklist.claim(caller, uid, T1)
        given = performed()
        del given.UnifiedProcedureStepPerformedProcedureSequence[0][missing.tag]
        worklist.modify(caller, uid, T1, given)
        with pytest.raises(FinalStateUnmet) as unmet:
            worklist.complete(caller, uid, T1)
        assert unmet.value.attributes == (int(missing.tag),)
        assert worklist.read(uid).state is WorkitemState.IN_PROGRESS
    worklist.modify(caller, uid, T1, performed())
    assert worklist.complete(caller, uid, T1) is Outcome.DONE


def test_what_fails_leaves_nothing_behind(archive: Archive, caller: Caller) -> None:
    worklist = limited(archive, max_bytes=8_192)
    worklist.watching.subscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE", deletion_lock=False)
    uid = worklist.create(caller, "", scheduled()).uid
    worklist.claim(caller, uid, T1)
    before, told = worklist.get(caller, uid), kinds(archive, caller)
    with pytest.raises(WorkitemTooLarge):
        worklist.modify(caller, uid, T1, progress("1", ReasonForCancellation="x" * 9_000))
    with pytest.raises(FinalStateUnmet):
        worklist.cancel(caller, uid, T1)
    assert worklist.get(caller, uid) == before and kinds(archive, caller) == told


# --- whose they are ---------------------------------------------------------------------


def test_another_subscriber_s_workitems_do_not_exist(worklist: Workitems, caller: Caller) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    other = subscriber("other")
    for ask in (
        lambda: worklist.get(other, uid),
        lambda: worklist.claim(other, uid, T1),
        lambda: worklist.modify(other, uid, "", Dataset()),
        lambda: worklist.complete(other, uid, T1),
        lambda: worklist.cancel(other, uid, T1),
        lambda: worklist.request_cancel(other, uid, Dataset()),
        lambda: worklist.watching.subscribe(other, uid, "DEVICE", deletion_lock=False),
        lambda: worklist.watching.unsubscribe(other, uid, "DEVICE"),
    ):
        with pytest.raises(WorkitemUnknown):
            ask()
    question = Dataset()
    question.SOPInstanceUID = uid
    assert list(worklist.finding.search(other, question)) == []
    everything = replace(other, visibility=Visibility(everything=True))
    assert len(list(worklist.finding.search(everything, question))) == 1
    with pytest.raises(WorkitemExists) as refused:
        worklist.create(other, uid, scheduled())
    assert refused.value.peer_comment == "This UID cannot be used"  # no word of a workitem


def test_nobody_watches_everything_of_others(
    archive: Archive, worklist: Workitems, caller: Caller
) -> None:
    watcher = replace(subscriber("curious"), visibility=Visibility(everything=True))
    worklist.watching.subscribe(watcher, GLOBAL_SUBSCRIPTION, "DEVICE", deletion_lock=True)
    worklist.create(caller, "", scheduled())
    assert posted(archive, watcher) == []


class TwoSubscribers:
    """Two subscribers, each with a device."""

    def __init__(self, archive: Archive, caller: Caller) -> None:
        self._archive, self._caller = archive, caller
        self.contracts = {
            SubscriberName(name): contract(str(name)) for name in (caller.subscriber, "other")
        }

    def current(self) -> Any:
        peers = {
            AETitle(name): device(name, owner)
            for name, owner in (("MINE", self._caller.subscriber), ("OTHERS", "other"))
        }
        peers[AETitle("NOBODYS")] = device("NOBODYS", None)
        return replace(self._archive.snapshots.current(), peers=peers, contracts=self.contracts)

    newest = current


def test_nobody_has_another_s_device_called(archive: Archive, caller: Caller) -> None:
    snapshots = TwoSubscribers(archive, caller)
    desk = Desk(
        rows=WorkitemTable(archive.database),
        watches=WorkitemWatchTable(archive.database),
        records=archive.records,
        snapshots=snapshots,
        audit=archive.audit,
        settings=archive.settings.workitems,
        max_uids=100,
    )
    worklist = Workitems(desk)
    uid = worklist.create(caller, "", scheduled()).uid
    for stranger in ("OTHERS", "NOBODYS", "UNHEARD"):
        for target in (uid, GLOBAL_SUBSCRIPTION):
            with pytest.raises(ReceiverUnknown):
                worklist.watching.subscribe(caller, target, stranger, deletion_lock=True)
    worklist.watching.subscribe(caller, uid, "MINE", deletion_lock=False)
    assert kinds(archive, caller) == [1]
    snapshots.contracts[caller.subscriber] = replace(
        snapshots.contracts[caller.subscriber], state=ContractState.SUSPENDED
    )
    changed = Dataset()
    changed.InputReadinessState = "INCOMPLETE"
    worklist.modify(caller, uid, "", changed)
    assert kinds(archive, caller) == [1]  # whose contract does not hold is told nothing
    snapshots.contracts[caller.subscriber] = contract(
        str(caller.subscriber), rights=frozenset(Right) - {Right.PROCESS}
    )
    changed.InputReadinessState = "READY"
    worklist.modify(caller, uid, "", changed)
    assert kinds(archive, caller) == [1]  # nor is who may not ask any more
    del snapshots.contracts[caller.subscriber]
    worklist.request_cancel(caller, uid, Dataset())
    assert kinds(archive, caller) == [1]


# --- our own performer ------------------------------------------------------------------


def test_jobs_for_a_workitem_are_asked_for_with_it_or_not_at_all(
    archive: Archive, caller: Caller
) -> None:
    seen: list[tuple[str, str]] = []

    def hook(who: Caller, uid: str, data_set: Dataset) -> Iterator[Job]:
        seen.append((who.subscriber, str(data_set.SOPInstanceUID)))
        assert data_set.ProcedureStepState == "SCHEDULED"
        yield Job(kind="test.work", payload=f'{{"uid": "{uid}"}}', cause=caller.subscriber)
        if data_set.ProcedureStepLabel == "Fail":
            raise WorkitemsFull

    worklist = limited(archive)
    worklist.add_on_created(hook)
    uid = worklist.create(caller, "", scheduled()).uid
    failed = str(generate_uid())
    with pytest.raises(WorkitemsFull):
        worklist.create(caller, failed, scheduled(ProcedureStepLabel="Fail"))
    assert seen == [(caller.subscriber, uid), (caller.subscriber, failed)]
    jobs = archive.jobs.list(ADMIN, kind="test.work", limit=1_000)
    assert [one.payload for one in jobs if one.cause == caller.subscriber] == [
        f'{{"uid": "{uid}"}}'
    ]
    with pytest.raises(WorkitemUnknown):
        worklist.read(failed)


def test_our_own_performer_is_asked_by_a_flag(worklist: Workitems, caller: Caller) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    ours = on_behalf(caller.registrant, "process")
    worklist.claim(ours, uid, T1)
    assert not worklist.read(uid).cancel_asked
    assert worklist.request_cancel(caller, uid, Dataset()) is Outcome.DONE
    assert worklist.read(uid).cancel_asked
    worklist.modify(ours, uid, T1, performed())
    worklist.complete(ours, uid, T1)
    with pytest.raises(AlreadyCompleted):
        worklist.request_cancel(caller, uid, Dataset())


def test_a_performer_that_is_gone_is_not_waited_for_for_ever(
    worklist: Workitems, caller: Caller
) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    worklist.claim(caller, uid, T1)
    with pytest.raises(PerformerAway):
        worklist.request_cancel(caller, uid, Dataset())
    with pytest.raises(NotEnded):
        worklist.administration.remove(ADMIN, uid)
    assert worklist.abandon(ADMIN, uid, Dataset()) is Outcome.DONE
    assert worklist.read(uid).state is WorkitemState.CANCELED
    worklist.administration.remove(ADMIN, uid)
    with pytest.raises(WorkitemUnknown):
        worklist.read(uid)


# --- watching ---------------------------------------------------------------------------


def test_who_watches_everything_misses_nothing_that_comes_meanwhile(
    archive: Archive, worklist: Workitems, caller: Caller
) -> None:
    def work(number: int) -> None:
        if number == 10:
            worklist.watching.subscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE", deletion_lock=True)
        else:
            worklist.create(caller, "", scheduled(ScheduledStationNameCodeSequence=[]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    told = posted(archive, caller)
    assert {one.event_type_id for one in told} == {1}
    assert len(told) == len({one.sop_instance_uid for one in told}) == 19


def test_subscriptions_change_as_the_table_has_it(
    archive: Archive, worklist: Workitems, caller: Caller
) -> None:
    watching, lock = worklist.watching, worklist.administration

    def locks(uid: str) -> list[bool]:
        return [one.deletion_lock for one in lock.watches(ADMIN, uid)]

    def subscribe(uid: str, *, with_lock: bool) -> None:
        watching.subscribe(caller, uid, "DEVICE", deletion_lock=with_lock)

    first = worklist.create(caller, "", scheduled()).uid
    subscribe(GLOBAL_SUBSCRIPTION, with_lock=False)
    assert locks(first) == [False] and kinds(archive, caller) == []
    subscribe(GLOBAL_SUBSCRIPTION, with_lock=True)
    assert locks(first) == [False] and kinds(archive, caller) == []  # what is subscribed stays
    second = worklist.create(caller, "", scheduled()).uid
    assert locks(second) == [True] and kinds(archive, caller) == [1, 5]
    subscribe(second, with_lock=False)
    assert locks(second) == [False] and kinds(archive, caller) == [1, 5, 1]
    watching.unsubscribe(caller, second, "DEVICE")
    watching.suspend(caller, GLOBAL_SUBSCRIPTION, "DEVICE")
    third = worklist.create(caller, "", scheduled()).uid
    assert (locks(first), locks(second), locks(third)) == ([False], [], [])
    subscribe(third, with_lock=True)
    watching.unsubscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE")
    assert (locks(first), locks(third)) == ([], [])


def test_what_has_ended_is_kept_until_nobody_holds_it(archive: Archive, caller: Caller) -> None:
    worklist = limited(archive, keep_s=0.0)
    held, free, running = (worklist.create(caller, "", scheduled()).uid for _ in range(3))
    worklist.watching.subscribe(caller, held, "DEVICE", deletion_lock=True)
    for uid in (held, free):
        worklist.request_cancel(caller, uid, Dataset())
    limited(archive, keep_s=3_600.0).administration.purge(ADMIN)
    assert worklist.read(free).state is WorkitemState.CANCELED
    worklist.administration.purge(ADMIN)
    with pytest.raises(WorkitemUnknown):
        worklist.read(free)
    assert worklist.read(held).state is WorkitemState.CANCELED
    worklist.watching.unsubscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE")
    worklist.administration.purge(ADMIN)
    with pytest.raises(WorkitemUnknown):
        worklist.read(held)
    assert worklist.read(running).state is WorkitemState.SCHEDULED


def test_a_full_outbox_holds_up_no_work(
    archive: Archive, worklist: Workitems, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = msgspec.structs.replace(archive.settings.outbox, max_events_per_peer=3)
    monkeypatch.setattr(archive.records, "_outbox", full)
    worklist.watching.subscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE", deletion_lock=False)
    uids = [worklist.create(caller, "", scheduled()).uid for _ in range(4)]
    worklist.claim(caller, uids[-1], T1)
    assert len(posted(archive, caller)) == 3
    assert worklist.read(uids[-1]).state is WorkitemState.IN_PROGRESS


def test_a_start_is_told_once_to_everybody_who_watches(
    archive: Archive, worklist: Workitems, caller: Caller
) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    worklist.watching.subscribe(caller, uid, "DEVICE", deletion_lock=False)
    worklist.watching.subscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE", deletion_lock=False)
    worklist.watching.restarted()
    last = posted(archive, caller)[-1]
    assert kinds(archive, caller).count(4) == 1
    assert (last.event_type_id, last.sop_instance_uid) == (4, GLOBAL_SUBSCRIPTION)
    assert Addressee(ae_title=last.ae_title, registrant=last.registrant) == Addressee(
        ae_title=AETitle("DEVICE"), registrant=caller.registrant
    )


# --- bounds and odd values --------------------------------------------------------------


def test_bounds_are_kept(archive: Archive, caller: Caller) -> None:
    worklist = limited(archive, max_workitems_per_subscriber=2, max_watchers=1, max_answers=1)
    uids = [worklist.create(caller, "", scheduled()).uid for _ in range(2)]
    with pytest.raises(WorkitemsFull):
        worklist.create(caller, "", scheduled())
    with pytest.raises(WorkitemsFull):
        limited(archive, max_workitems=1).create(caller, "", scheduled())
    with pytest.raises(WorkitemTooLarge):
        limited(archive, max_bytes=300).create(caller, "", scheduled())
    second = replace(caller, ae_title=AETitle("SECOND"))
    for target in (uids[0], GLOBAL_SUBSCRIPTION):
        worklist.watching.subscribe(caller, target, "DEVICE", deletion_lock=False)
        with pytest.raises(WorkitemsFull):
            worklist.watching.subscribe(second, target, "SECOND", deletion_lock=False)
    question = Dataset()
    question.ProcedureStepLabel = "Smooth*"
    with pytest.raises(TooManyMatches):
        list(worklist.finding.search(caller, question))
    with pytest.raises(TooManyMatches):
        list(limited(archive, max_candidates=1).finding.search(caller, question))
    question.SOPInstanceUID = uids[1]
    assert len(list(worklist.finding.search(caller, question))) == 1


def test_texts_of_two_character_sets_are_both_kept(worklist: Workitems, caller: Caller) -> None:
    latin = scheduled(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    uid = worklist.create(caller, "", latin).uid
    worklist.claim(caller, uid, T1)
    assert worklist.read(uid).data_set.SpecificCharacterSet == "ISO_IR 100"
    cyrillic = progress("5", ProcedureStepProgressDescription="Люкceмбypг")
    cyrillic.SpecificCharacterSet = "ISO_IR 144"
    worklist.modify(caller, uid, T1, cyrillic)
    held = worklist.read(uid).data_set
    assert held.PatientName == "Müller^Jörg"
    item = held.ProcedureStepProgressInformationSequence[0]
    assert item.ProcedureStepProgressDescription == "Люкceмбypг"
    assert held.SpecificCharacterSet == "ISO_IR 192"


def test_columns_narrow_and_never_hide(worklist: Workitems, caller: Caller) -> None:
    """What a column cannot say, several codes or a time with an offset, is looked for inside."""
    two = worklist.create(
        caller,
        "",
        scheduled(
            ScheduledWorkitemCodeSequence=[code("A"), code("B")],
            ScheduledProcedureStepStartDateTime="20260101233000-0100",
        ),
    ).uid
    for keyword, value in (
        ("ScheduledWorkitemCodeSequence", [key(CodeValue="B")]),
        ("ScheduledProcedureStepStartDateTime", "20260102003000+0000-20260102003001+0000"),
        ("ScheduledProcedureStepStartDateTime", "20260101-20260101"),
        ("SOPInstanceUID", [two, "1.2.3"]),
        ("ProcedureStepState", "SCHEDULED"),
    ):
        question = key(**{"SOPInstanceUID": None, keyword: value})
        assert [str(one.identifier.SOPInstanceUID) for one in worklist.finding.search(caller, question)] == [two], keyword  # fmt: skip
    changed = Dataset()
    changed.ScheduledProcedureStepStartDateTime = "20300101"
    worklist.modify(caller, two, "", changed)
    found = parse(key(ScheduledProcedureStepStartDateTime="2030-"), max_uids=9).narrow()
    assert len(WorkitemTable(worklist._desk.rows._database).candidates(caller.registrant, found, 9)) == 1  # type: ignore[attr-defined]  # fmt: skip


def test_what_cannot_be_decoded_or_kept_is_refused(worklist: Workitems, caller: Caller) -> None:
    odd = scheduled()
    tag = Tag("Rows")
    odd._dict[tag] = RawDataElement(tag, "US", 1, b"1", 0, False, True)
    with pytest.raises(AttributeValueInvalid) as invalid:
        worklist.create(caller, "", odd)
    assert invalid.value.attributes == (int(tag),)
    for foreign in (0x00020010, 0x7FE00010):
        asked = scheduled()
        asked.add_new(foreign, "OB", b"\0\0")
        with pytest.raises(AttributeNotAllowed) as refused:
            worklist.create(caller, "", asked)
        assert refused.value.attributes == (foreign,)
    asked = scheduled(ScheduledWorkitemCodeSequence=None)
    asked.add_new(0x00404018, "LO", "no sequence")
    with pytest.raises(AttributeValueInvalid):
        worklist.create(caller, "", asked)


VRS = ("AE", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SQ", "TM", "UI", "UL", "US", "UT", "OB")
TAGS = [0x00081195, 0x00100010, 0x00404005, 0x00404018, 0x00404041, 0x00741000, 0x00741002,
        0x00741200, 0x00741216, 0x00741234, 0x00090010, 0x00091001]  # fmt: skip
ELEMENTS = st.lists(
    st.tuples(st.sampled_from(TAGS), st.sampled_from(VRS), st.binary(max_size=24)), max_size=6
)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(elements=ELEMENTS)
def test_whatever_a_peer_sends_is_taken_or_refused(
    worklist: Workitems, elements: list[tuple[int, str, bytes]]
) -> None:
    """Nothing but our own errors comes of it, and what was taken can be read again."""
    caller = subscriber("hostile")

    def sent() -> Dataset:
        made = scheduled()
        for tag, vr, value in elements:
            made._dict[Tag(tag)] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
        return made

    def tried(ask: Any) -> Any:
        try:
            return ask()
        except PacsError:
            return None

    made = tried(lambda: worklist.create(caller, "", sent()))
    uid = made.uid if made else worklist.create(caller, "", scheduled()).uid
    assert worklist.get(caller, uid).ProcedureStepState == "SCHEDULED"
    tried(lambda: worklist.modify(caller, uid, "", sent()))
    tried(lambda: list(worklist.finding.search(caller, sent())))
    tried(
        lambda: worklist.watching.subscribe(
            caller, FILTERED_SUBSCRIPTION, "DEVICE", deletion_lock=False, keys=sent()
        )
    )
    tried(lambda: worklist.request_cancel(caller, uid, sent()))
    assert worklist.get(caller, uid).SOPInstanceUID == uid
    worklist.watching.unsubscribe(caller, GLOBAL_SUBSCRIPTION, "DEVICE")
    if worklist.read(uid).state is WorkitemState.SCHEDULED:
        worklist.request_cancel(caller, uid, discontinued())
    worklist.administration.remove(ADMIN, uid)


def test_records_outlive_the_index(archive: Archive, worklist: Workitems, caller: Caller) -> None:
    uid = worklist.create(caller, "", scheduled()).uid
    worklist.claim(caller, uid, T2)
    before = worklist.read(uid)
    archive.reindex.run(ADMIN, lambda: None)
    assert worklist.read(uid) == before


def test_nothing_secret_or_of_the_patient_is_logged(
    worklist: Workitems, caller: Caller, caplog: pytest.LogCaptureFixture, archive: Archive
) -> None:
    with caplog.at_level("INFO"):
        uid = worklist.create(caller, "", scheduled()).uid
        worklist.claim(caller, uid, "1.2.3.4.99")
        fact = worklist.administration.list(ADMIN, limit=1)[0]
    assert (fact.uid, fact.performer) == (uid, "DEVICE")
    audited = "".join(
        one.read_text(errors="replace") for one in (Path(archive.home) / "audit").rglob("*") if one.is_file()
    )  # fmt: skip
    for secret in ("1.2.3.4.99", "DOE"):
        assert secret not in caplog.text + repr(fact) + repr(worklist.read(uid)) + audited
    assert uid in audited
