"""The worklist as peers see it: Push, Pull, Watch, Event and Query on one server of two listeners. PS3.4 Annex CC."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from pacs.core.caller import Caller, Right, SubscriberName, Visibility
from pacs.core.identifiers import AETitle, Registrant
from tests.archive import Archive, serving
from tests.keeping import ADMIN, opened
from tests.reporting import EXPLICIT, IMPLICIT
from tests.workitems import (
    ASSIGNED,
    CANCEL,
    EVENT,
    FILTERED,
    GLOBAL,
    PATIENCE_S,
    PROGRESS,
    PULL,
    PUSH,
    QUERY,
    STATE,
    STATUS,
    WATCH,
    Peer,
    Told,
    code,
    discontinued,
    key,
    peer,
    performed,
    progress,
    scheduled,
)

EXPLICIT_BIG = "1.2.840.10008.1.2.2"
EARLY = Caller(
    subscriber=SubscriberName("local"),
    rights=frozenset({Right.PROCESS}),
    visibility=Visibility(registrants=frozenset({Registrant("local")})),
    ae_title=AETitle("EARLY"),
)
SETTINGS = {
    "serve.listeners": "2",
    "outbox.poll_s": "0.1",
    "outbox.grace_s": "0.3",
    "outbox.retry_s": "0.2",
    "outbox.max_retry_s": "0.5",
    "workitems.keep_s": "0",
    "workitems.max_bytes": "65536",
}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]
) -> Iterator[Archive]:
    """Serve an archive that somebody watched before it was started."""
    home, url = tmp_path_factory.mktemp("workitems") / "home", new_database()
    with opened(home, url) as before:
        before.workitems.watching.subscribe(EARLY, GLOBAL, EARLY.ae_title, deletion_lock=False)
    with serving(home, url, SETTINGS) as archive:
        yield archive


@pytest.fixture
def user(served: Archive) -> Iterator[Peer]:
    with peer(served, "USER") as made:
        yield made


def claimed(user: Peer, **values: Any) -> tuple[str, str]:
    uid, transaction = user.created(**values), str(generate_uid())
    assert user.become("IN PROGRESS", uid, transaction) == 0x0000
    return uid, transaction


def test_a_start_is_told_to_who_watched_before_it(served: Archive) -> None:
    told = Told()
    with peer(served, EARLY.ae_title, told=told) as watcher:
        told.of(GLOBAL, 1)
        status = told.last(GLOBAL, STATUS)
        assert (status.SCPStatus, status.SubscriptionListStatus) == ("RESTARTED", "WARM START")
        assert status.UnifiedProcedureStepListStatus == "WARM START"
        uid = watcher.created()
        assert told.of(uid, 2) == [(STATE, "SCHEDULED"), (ASSIGNED, "")]
        assert watcher.unsubscribe(GLOBAL) == 0x0000


# --- a whole life -----------------------------------------------------------------------


def test_a_workitem_lives_while_two_watchers_look_on(served: Archive) -> None:
    one, other = Told(), Told()
    with (
        peer(served, "REQUESTER", PUSH) as requester,
        peer(served, "PERFORMER", PULL) as performer,
        peer(served, "WATCHER1", WATCH, told=one) as first,
        peer(served, "WATCHER2", WATCH, told=other) as second,
    ):
        assert first.subscribe(GLOBAL) == 0x0000
        uid = requester.created()
        assert one.of(uid, 2) == [(STATE, "SCHEDULED"), (ASSIGNED, "")]
        assert one.last(uid, STATE).InputReadinessState == "READY"
        station = one.last(uid, ASSIGNED).ScheduledStationNameCodeSequence[0]
        assert station.CodeValue == "STATION1"
        assert second.subscribe(uid) == 0x0000
        assert other.of(uid, 1) == [(STATE, "SCHEDULED")]
        assert uid in performer.found(ProcedureStepState="SCHEDULED")
        assert performer.become("IN PROGRESS", uid, "1.2.3.4") == 0x0000
        assert performer.modify(uid, progress("40"), "1.2.3.4").Status == 0x0000
        assert performer.modify(uid, performed(), "1.2.3.4").Status == 0x0000
        assert performer.become("COMPLETED", uid, "1.2.3.4") == 0x0000
        ending = [(STATE, "IN PROGRESS"), (PROGRESS, ""), (STATE, "COMPLETED")]
        assert one.of(uid, 5)[2:] == ending
        assert other.of(uid, 4)[1:] == ending
        told = one.last(uid, PROGRESS).ProcedureStepProgressInformationSequence
        assert told[0].ProcedureStepProgress == 40
        assert performer.become("COMPLETED", uid, "1.2.3.4") == 0xB306
        status, found = second.get(uid)
        assert status == 0x0000 and "TransactionUID" not in found
        assert found.ProcedureStepState == "COMPLETED" and found.PatientName == "DOE^JANE"
        assert first.unsubscribe(GLOBAL) == 0x0000


# --- making one -------------------------------------------------------------------------


def test_one_without_a_uid_gets_one_and_a_taken_uid_is_refused(user: Peer) -> None:
    status, _ = user.create()
    assert status.Status == 0x0000
    uid = str(user.answer.AffectedSOPInstanceUID)
    assert user.state(uid) == "SCHEDULED"
    status, _ = user.create(uid=uid)
    assert status.Status == 0x0111
    assert user.create(uid=GLOBAL)[0].Status == 0x0117


@pytest.mark.parametrize(
    ("values", "status", "named"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309, None),
        ({"ProcedureStepState": None}, 0x0120, 0x00741000),
        ({"ProcedureStepState": ""}, 0x0121, 0x00741000),
        ({"InputReadinessState": None}, 0x0120, 0x00404041),
        ({"ProcedureStepLabel": ""}, 0x0121, 0x00741204),
        ({"ScheduledProcedureStepPriority": "SOON"}, 0x0106, 0x00741200),
        ({"ScheduledProcedureStepStartDateTime": "tomorrow"}, 0x0106, 0x00404005),
        ({"ScheduledProcessingParametersSequence": [key(TextValue="x" * 66_000)]}, 0x0213, None),
    ],
)
def test_what_cannot_be_a_workitem_is_refused(
    user: Peer, values: dict[str, Any], status: int, named: int | None
) -> None:
    uid = str(generate_uid())
    answer, _ = user.create(scheduled(**values), uid)
    assert answer.Status == status
    if named is not None:
        assert int(user.answer.AttributeIdentifierList) == named
    assert user.get(uid)[0] == 0xC307


def test_what_may_not_be_there_yet_is_put_right_and_said(user: Peer) -> None:
    uid = str(generate_uid())
    asked = scheduled(AdmissionID=None, TransactionUID="1.2.3")
    asked.update(progress("10"))
    status, changes = user.create(asked, uid)
    assert status.Status == 0xB300
    assert {one.keyword for one in changes} == {
        "AdmissionID", "ProcedureStepProgressInformationSequence", "TransactionUID"
    }  # fmt: skip
    _, held = user.get(uid)
    assert not held.ProcedureStepProgressInformationSequence and held.AdmissionID in ("", None)
    assert user.become("IN PROGRESS", uid, "1.2.99") == 0x0000  # not claimed by what was sent


def test_a_worklist_label_is_filled_in(user: Peer) -> None:
    uid = user.created(WorklistLabel="")
    assert user.get(uid, "WorklistLabel")[1].WorklistLabel == "PACS"


def test_a_workitem_is_the_same_in_every_transfer_syntax(served: Archive) -> None:
    reference = key(ReferencedSOPClassUID="1.2", ReferencedSOPInstanceUID="1.2.3")
    reference.ReferencedFrameNumber = [1, 2]
    reference.PurposeOfReferenceCodeSequence = [code("WHY")]
    asked = scheduled(InputInformationSequence=[key(ReferencedSOPSequence=[reference], Rows=5)])
    held = []
    for syntax in (IMPLICIT, EXPLICIT, EXPLICIT_BIG):
        with peer(served, "USER", PUSH, PULL, syntaxes=(syntax,)) as user:
            uid = str(generate_uid())
            assert user.create(asked, uid)[0].Status == 0x0000
            found = user.get(uid, context=PUSH)[1]
            (answer,) = user.find(SOPInstanceUID=uid, InputInformationSequence=None)[1]
            assert answer.InputInformationSequence == asked.InputInformationSequence
            held.append(found)
            assert found.InputInformationSequence == asked.InputInformationSequence
    for one in held:
        del one.SOPInstanceUID, one.ScheduledProcedureStepModificationDateTime
    assert held[0] == held[1] == held[2]


# --- states -----------------------------------------------------------------------------


def test_states_follow_each_other_as_the_table_has_it(user: Peer) -> None:
    uid = user.created()
    assert user.become("COMPLETED", uid, "1.2.3") == 0xC310
    assert user.become("SCHEDULED", uid, "1.2.3") == 0xC303
    assert user.become("IN PROGRESS", uid, "") == 0xC301
    assert user.become("PAUSED", uid, "1.2.3") == 0x0115
    assert user.become("IN PROGRESS", uid, "1.2.3") == 0x0000
    assert user.become("IN PROGRESS", uid, "1.2.3") == 0xC302
    assert user.become("IN PROGRESS", uid, "1.2.4") == 0xC301
    assert user.become("COMPLETED", uid, "1.2.4") == 0xC301
    assert user.become("COMPLETED", uid, "1.2.3") == 0xC304
    assert user.become("CANCELED", uid, "1.2.3") == 0xC304
    assert user.modify(uid, discontinued(), "1.2.3").Status == 0x0000
    assert user.become("CANCELED", uid, "1.2.3") == 0x0000
    assert user.become("CANCELED", uid, "1.2.3") == 0xB304
    assert user.become("COMPLETED", uid, "1.2.3") == 0xC300
    assert user.become("IN PROGRESS", uid, "1.2.3") == 0xC300
    assert user.become("COMPLETED", uid, "1.2.4") == 0xC301
    assert user.modify(uid, progress("60"), "1.2.3").Status == 0xC300
    item = user.get(uid)[1].ProcedureStepProgressInformationSequence[0]
    assert item.ProcedureStepCancellationDateTime
    assert user.become("IN PROGRESS", "1.2.3.4.5", "1.2.3") == 0xC307


def test_of_two_that_claim_at_once_one_has_it(served: Archive) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(peer(served, f"P{one}")) for one in range(4)]
        for _ in range(3):
            uid = peers[0].created()
            answers: list[int] = []
            start = threading.Barrier(len(peers))

            def claim(
                one: Peer, number: int, uid: str = uid, start: Any = start, said: Any = answers
            ) -> None:
                start.wait(PATIENCE_S)
                said.append(one.become("IN PROGRESS", uid, f"1.2.{number}"))

            threads = [
                threading.Thread(target=claim, args=(one, number))
                for number, one in enumerate(peers, 1)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S)
            assert sorted(answers) == [0x0000, 0xC301, 0xC301, 0xC301]


def test_only_who_has_the_transaction_uid_sets_attributes(user: Peer) -> None:
    uid = user.created()
    assert user.modify(uid, progress(), None).Status == 0xC310
    assert user.modify(uid, progress(), "1.2.3").Status == 0xC310
    later = Dataset()
    later.ScheduledProcedureStepPriority = "HIGH"
    assert user.modify(uid, later, None).Status == 0x0000
    assert user.become("IN PROGRESS", uid, "1.2.3") == 0x0000
    assert user.modify(uid, progress(), None).Status == 0xC301
    assert user.modify(uid, progress(), "1.2.4").Status == 0xC301
    assert user.modify(uid, progress(), "1.2.3").Status == 0x0000
    assert user.get(uid)[1].ScheduledProcedureStepPriority == "HIGH"


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"ProcedureStepState": "COMPLETED"}, 0x0105),
        ({"ProcedureStepState": "SCHEDULED"}, 0xC303),
        ({"PatientName": "ROE^RICHARD"}, 0x0105),
        ({"ScheduledWorkitemCodeSequence": [code("OTHER")]}, 0x0105),
        ({"InputReadinessState": ""}, 0x0121),
        ({"InputReadinessState": "MAYBE"}, 0x0106),
    ],
)
def test_what_was_scheduled_is_not_altered(user: Peer, values: dict[str, Any], status: int) -> None:
    uid, transaction = claimed(user)
    before = user.get(uid)[1]
    asked = progress("70")
    for keyword, value in values.items():
        setattr(asked, keyword, value)
    assert user.modify(uid, asked, transaction).Status == status
    assert user.get(uid)[1] == before  # nothing of it, not even the progress


def test_the_transaction_uid_is_told_to_nobody(user: Peer) -> None:
    uid, transaction = claimed(user)
    status, found = user.get(uid, "TransactionUID", "ProcedureStepLabel")
    assert status == 0x0001 and "TransactionUID" not in found
    assert found.ProcedureStepLabel == "Smooth it"
    status, answers = user.find(SOPInstanceUID=uid, TransactionUID=transaction)
    assert status == 0x0000 and [one.get("TransactionUID") for one in answers] == [None]
    _, answers = user.find(SOPInstanceUID=uid, TransactionUID="1.2.77")
    assert len(answers) == 1  # no way to guess it either


def test_what_a_sop_class_does_not_provide_is_not_done_under_it(served: Archive) -> None:
    with peer(served, "USER", WATCH) as watcher, peer(served, "USER", PUSH) as pusher:
        uid = pusher.created()
        answer, _ = watcher.association.send_n_set(progress(), PUSH, uid, meta_uid=WATCH)
        assert answer.Status == 0x0211
        answer, _ = watcher.association.send_n_create(scheduled(), PUSH, None, meta_uid=WATCH)
        assert answer.Status == 0x0211
        change = {"ProcedureStepState": "IN PROGRESS", "TransactionUID": "1.2.3"}
        assert watcher.act(1, uid, WATCH, **change) == 0x0123
        assert watcher.act(9, uid, WATCH, **change) == 0x0123
        assert pusher.act(3, uid, PUSH, ReceivingAE="USER", DeletionLock="FALSE") == 0x0123
        assert watcher.state(uid) == "SCHEDULED"


# --- cancelling -------------------------------------------------------------------------


def test_what_nobody_performs_is_cancelled_at_once_by_way_of_in_progress(served: Archive) -> None:
    told = Told()
    with peer(served, "WATCHER3", told=told) as user:
        uid = user.created()
        assert user.subscribe(uid) == 0x0000
        assert user.ask_cancel(uid, ReasonForCancellation="Not needed") == 0x0000
        assert told.of(uid, 4) == [
            (STATE, "SCHEDULED"), (CANCEL, ""), (STATE, "IN PROGRESS"), (STATE, "CANCELED")
        ]  # fmt: skip
        assert told.last(uid, STATE).ReasonForCancellation == "Not needed"
        item = user.get(uid)[1].ProcedureStepProgressInformationSequence[0]
        assert item.ReasonForCancellation == "Not needed"
        reason = item.ProcedureStepDiscontinuationReasonCodeSequence[0]
        assert (reason.CodeValue, reason.CodingSchemeDesignator) == ("110513", "DCM")
        assert user.ask_cancel(uid) == 0xB304
        assert user.become("IN PROGRESS", uid, "1.2.3") == 0xC301


def test_who_performs_it_is_told_that_it_shall_be_cancelled(served: Archive) -> None:
    told = Told()
    with peer(served, EARLY.ae_title) as early:
        assert early.unsubscribe(GLOBAL) == 0x0000  # whether or not another test has said so
    with peer(served, "WATCHER4", told=told) as performer, peer(served, "ASKER") as asker:
        uid, transaction = claimed(performer)
        assert asker.ask_cancel(uid) == 0xC312  # nobody watches who could tell the performer
        assert performer.subscribe(uid) == 0x0000
        why = {
            "ReasonForCancellation": "Wrong patient",
            "ContactDisplayName": "Front desk",
            "ContactURI": "tel:123",
            "ProcedureStepDiscontinuationReasonCodeSequence": [code("110502", "Wrong", "DCM")],
        }
        assert asker.ask_cancel(uid, WATCH, **why) == 0x0000
        assert told.of(uid, 2) == [(STATE, "IN PROGRESS"), (CANCEL, "")]
        event = told.last(uid, CANCEL)
        assert (event.RequestingAE, event.ContactDisplayName) == ("ASKER", "Front desk")
        assert event.ContactURI == "tel:123" and event.ReasonForCancellation == "Wrong patient"
        assert event.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110502"
        assert performer.state(uid) == "IN PROGRESS"  # the performer decides
        assert performer.modify(uid, performed(), transaction).Status == 0x0000
        assert performer.become("COMPLETED", uid, transaction) == 0x0000
        assert asker.ask_cancel(uid) == 0xC311
        assert asker.ask_cancel("1.2.3.4.5") == 0xC307


# --- watching ---------------------------------------------------------------------------


def test_a_deletion_lock_keeps_what_has_ended(served: Archive, user: Peer) -> None:
    kept, gone = user.created(), user.created()
    assert user.subscribe(kept, lock="TRUE") == 0x0000
    for uid in (kept, gone):
        assert user.ask_cancel(uid) == 0x0000
    purge(served)
    assert user.get(gone)[0] == 0xC307
    assert user.state(kept) == "CANCELED"
    assert user.subscribe(kept, lock="FALSE") == 0x0000  # lets it go as unsubscribing would
    purge(served)
    assert user.get(kept)[0] == 0xC307


def purge(archive: Archive) -> None:
    """Do what the schedule has a worker do."""
    url = archive.environment.get("PACS_DATABASE__URL", "")
    with opened(archive.home, url, workitems__keep_s="0") as beside:
        beside.workitems.administration.purge(ADMIN)


def test_a_filter_chooses_what_is_watched(served: Archive) -> None:
    told = Told()
    with peer(served, "WATCHER5", told=told) as user:
        there, other = user.created(WorklistLabel="Mine"), user.created()
        assert user.subscribe(FILTERED, lock="TRUE", WorklistLabel="Mi*") == 0x0000
        assert told.of(there, 1) == [(STATE, "SCHEDULED")]  # with a lock, what is there is told
        mine, not_mine = user.created(WorklistLabel="Mine"), user.created()
        assert told.of(mine, 2) == [(STATE, "SCHEDULED"), (ASSIGNED, "")]
        assert user.suspend(GLOBAL) == 0x0000
        later = user.created(WorklistLabel="Mine")
        assert user.ask_cancel(mine) == 0x0000
        assert told.of(mine, 5)[-1] == (STATE, "CANCELED")  # what was watched still is
        assert user.unsubscribe(GLOBAL) == 0x0000
        assert user.ask_cancel(there) == 0x0000
        assert {uid for _, uid, _ in told.events} & {other, not_mine, later} == set()
        assert len(told.of(there, 1)) == 1


def test_actions_that_make_no_sense_are_refused(served: Archive, user: Peer) -> None:
    uid = user.created()
    assert user.suspend(uid) == 0xC314
    assert user.subscribe("1.2.3.4.5") == 0xC307
    assert user.subscribe(uid, ae="NOBODY") == 0xC308
    assert user.unsubscribe(uid, ae="NOBODY") == 0xC308
    assert user.subscribe(uid, lock="MAYBE") == 0x0115
    assert user.subscribe(FILTERED) == 0x0115
    assert user.subscribe(FILTERED, ScheduledProcedureStepStartDateTime="soon") == 0x0115


def test_a_watcher_that_is_away_is_called(served: Archive) -> None:
    told = Told()
    entity = AE("AWAY")
    entity.add_supported_context(EVENT, [EXPLICIT], scu_role=False, scp_role=True)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, told)]
    )
    assert server is not None and server.socket is not None
    try:
        served.add_peer("AWAY", server.socket.getsockname()[1])
        with peer(served, "USER") as user:
            uid = user.created()
            assert user.subscribe(uid, ae="AWAY") == 0x0000
            assert user.ask_cancel(uid) == 0x0000
        assert [state for _, state in told.of(uid, 4)] == [
            "SCHEDULED",
            "",
            "IN PROGRESS",
            "CANCELED",
        ]
    finally:
        server.shutdown()


# --- finding ----------------------------------------------------------------------------


def test_workitems_are_found_by_what_they_say(user: Peer) -> None:
    label = f"L{time.monotonic_ns()}"
    human = Dataset()
    human.HumanPerformerCodeSequence = [code("H1")]
    human.HumanPerformerName, human.HumanPerformerOrganization = "ROE^R", "Here"
    early = user.created(
        ProcedureStepLabel=label,
        ScheduledProcedureStepStartDateTime="20250101120000+0100",
        ScheduledWorkitemCodeSequence=[code("A1")],
        ScheduledHumanPerformersSequence=[human],
        PatientName="Müller^Jörg",
        SpecificCharacterSet="ISO_IR 100",
    )
    late, transaction = claimed(
        user,
        ProcedureStepLabel=label,
        ScheduledProcedureStepStartDateTime="20270101",
        PatientID="P2",
    )
    both = {early, late}

    def found(**keys: Any) -> set[str]:
        return user.found(ProcedureStepLabel=label, **keys)

    assert found() == both
    assert found(ProcedureStepState="IN PROGRESS") == {late}
    assert found(ScheduledProcedureStepStartDateTime="20250101-20261231") == {early}
    assert found(ScheduledProcedureStepStartDateTime="2026-") == {late}
    assert found(ScheduledProcedureStepStartDateTime="-202612") == {early}
    assert found(PatientID="P?") == both and found(PatientID="P2") == {late}
    assert found(PatientName="muller*") == {early}
    assert found(SOPInstanceUID=[early, "1.2.3"]) == {early}
    assert found(ScheduledWorkitemCodeSequence=[key(CodeValue="A1")]) == {early}
    assert (
        found(ScheduledWorkitemCodeSequence=[key(CodeValue="A1", CodingSchemeDesignator="X")])
        == set()
    )
    humans = key(HumanPerformerCodeSequence=[key(CodeValue="H1")])
    assert found(ScheduledHumanPerformersSequence=[humans]) == {early}
    for context in (WATCH, QUERY):
        _, (answer,) = user.find(context, SOPInstanceUID=late, ScheduledWorkitemCodeSequence=None)
        assert answer.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"
    status, _ = user.find(ScheduledProcedureStepStartDateTime="soon")
    assert status == 0xA900
    assert user.modify(late, discontinued(), transaction).Status == 0x0000


# --- the administrator ------------------------------------------------------------------


def test_an_administrator_lists_cancels_and_removes(served: Archive, user: Peer) -> None:
    uid, _ = claimed(user)
    (row,) = [one for one in served.listed("workitem", "list") if one["uid"] == uid]
    assert (row["state"], row["performer"], row["label"]) == ("IN PROGRESS", "USER", "Smooth it")
    (shown,) = served.listed("workitem", "show", uid)
    assert "TransactionUID" not in shown["attributes"] and "00081195" not in str(shown)
    served.pacs("workitem", "cancel", uid, "--force", "--reason", "Performer is gone")
    assert user.state(uid) == "CANCELED"
    served.pacs("workitem", "remove", uid)
    assert user.get(uid)[0] == 0xC307
