"""Forwarding to receivers that take, refuse, abort, are full or away: exactly what is missing is sent, once."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pynetdicom import build_context
from pynetdicom.sop_class import Verification

from pacs.app.archive import Archive
from pacs.app.forward import Nothing, forwarding
from pacs.app.subscriber import contracts
from pacs.core.caller import SubscriberName, Visibility
from pacs.core.contract import Contract, ContractState
from pacs.core.errors import DestinationUnknown, EntryNotFound
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.routing import Coercion, CoercionKind
from pacs.core.sent import Run, SentState
from pacs.core.work import JobState
from pacs.jobs.kinds import JobKind
from pacs.services.peer import Binding
from storage.database.forward import ForwardTable
from tests.archive import free_port
from tests.forwarding import (
    QUICK,
    Scripted,
    ask,
    ended,
    hands,
    job_asked,
    jobs,
    known,
    receiver,
    record,
    routed,
    states,
    study_of,
    until,
    used,
    work,
    worked,
)
from tests.keeping import ADMIN, data_set, keep, opened

SENT, REFUSED = SentState.SENT, SentState.REFUSED


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(tmp_path, url, **QUICK) as made:
        yield made


@pytest.fixture
def to(archive: Archive) -> Iterator[Scripted]:
    with receiver() as made:
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", made.port)
        yield made


def result(archive: Archive) -> dict[str, int]:
    """The result of the last job."""
    found: dict[str, int] = json.loads(jobs(archive)[-1].result or "{}")
    return found


def said(archive: Archive) -> str:
    """The log of the last job."""
    _, lines = archive.jobs.show(ADMIN, jobs(archive)[-1].id)
    return "\n".join(line for _, line in lines)


# --- what is sent ------------------------------------------------------------------------


def test_what_is_missing_is_sent_and_nothing_twice(archive: Archive, to: Scripted) -> None:
    uids = study_of(archive, "1.2.3", 7)
    study_of(archive, "1.2.4", 2)
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert sorted(to.got) == sorted(uids)
    assert states(archive) == ["done"]
    size = used(archive, "deliver-bytes", "DEST")
    assert result(archive) == {
        "sent": 7, "already": 0, "refused": 0, "unknown": 0, "bytes": size, "committed": 0
    }  # fmt: skip
    assert used(archive, "deliver", "DEST") == 7
    more = study_of(archive, "1.2.3", 2, first=8)
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert sorted(to.got) == sorted([*uids, *more])
    assert (result(archive)["sent"], result(archive)["already"]) == (2, 7)
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert len(to.got) == 9
    assert used(archive, "deliver", "DEST") == 9
    assert set(record(archive, "DEST").values()) == {(SENT, 1, 0)}


def test_what_was_sent_is_audited(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 3)
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    lines = [
        json.loads(line)
        for path in (archive.home / "audit").iterdir()
        for line in path.read_text().splitlines()
    ]
    (found,) = [one for one in lines if one["event"] == "instances-forwarded"]
    assert (found["destination"], found["study"], found["sent"]) == ("DEST", "1.2.3", 3)


def test_only_the_series_and_what_the_route_selects(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 6)
    given = routed("r")
    given.unwanted, given.theirs = frozenset({"1.2.3.0.2"}), frozenset({"1.2.3.0.4"})
    series = SeriesInstanceUID("1.2.3.0")
    one = work("1.2.3", "DEST", route="r", series_instance_uid=series, whole=False)
    ask(archive, one)
    worked(archive, given)
    assert to.got == ["1.2.3.0.6"]
    ask(archive, work("1.2.3", "DEST", route="r"))
    worked(archive, given)
    assert "1.2.3.0.4" not in to.got and len(to.got) == 5


def test_several_windows_over_several_associations(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, **QUICK, forward__window="3") as archive, receiver() as to:
        known(archive, "DEST", to.port, associations=3)
        uids = study_of(archive, "1.2.3", 40)
        ask(archive, work("1.2.3", "DEST"))
        worked(archive)
        assert sorted(to.got) == sorted(uids)
        assert to.associations > 1
        assert set(record(archive, "DEST").values()) == {(SENT, 1, 0)}
        assert used(archive, "deliver", "DEST") == 40
        # Windows, not instances: each is one fact.
        (facts,) = archive.database.execute("SELECT COUNT(*) FROM usage_fact WHERE kind='deliver'")
        assert facts[0] <= 14


def test_in_the_order_of_arrival_over_one_association(archive: Archive, to: Scripted) -> None:
    known(archive, "DEST", to.port, associations=4)
    uids = study_of(archive, "1.2.3", 30)
    given = routed("r", in_order=True)
    to.once[uids[10]] = None
    ask(archive, work("1.2.3", "DEST", route="r"))
    worked(archive, given)
    once = list(dict.fromkeys(to.got))
    assert once == uids
    assert record(archive, "DEST")[uids[10]] == (SENT, 2, 1)


def test_what_is_changed_on_the_way(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 3)
    change = Coercion(kind=CoercionKind.SET, keyword="PatientName", value="Roe^Jean")
    given = routed("r", coercions=(change,))
    ask(archive, work("1.2.3", "DEST", route="r"))
    worked(archive, given)
    assert all(b"Roe^Jean" in one and b"Doe" not in one for one in to.data_sets.values())
    given.incapable = True
    study_of(archive, "1.2.4", 2)
    ask(archive, work("1.2.4", "DEST", route="r"))
    worked(archive, given)
    assert states(archive) == ["done", "failed"]
    last = jobs(archive)[-1]
    assert last.attempts == 1
    assert "2 of 2 instances cannot be sent" in last.last_error
    assert "1.2.4.0.2 (Instance cannot be changed for the receiver)" in last.last_error
    assert len(to.got) == 3
    given.incapable, given.full = False, 2
    study_of(archive, "1.2.5", 2)
    ask(archive, work("1.2.5", "DEST", route="r"))
    worked(archive, given)
    assert states(archive)[-1] == "done", "a disk that was full is no reason to give up"
    assert len(to.got) == 5


# --- who is not there ----------------------------------------------------------------------


def test_a_destination_or_route_that_is_gone_is_said(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 1)
    ask(archive, work("1.2.3", "NOBODY"), work("1.2.3", "DEST", route="gone"))
    worked(archive)
    assert [one.last_error for one in jobs(archive)] == [
        "Permanent: no peer is named NOBODY", "Permanent: route gone was removed"
    ]  # fmt: skip


def test_a_dead_destination_keeps_no_live_one_waiting(archive: Archive, to: Scripted) -> None:
    archive.peers.add(ADMIN, "DEAD", "127.0.0.1", free_port())
    for number in range(6):
        study_of(archive, f"1.2.3.{number}", 2)
        ask(archive, work(f"1.2.3.{number}", "DEAD"), work(f"1.2.3.{number}", "DEST"))
    with hands(archive) as worker:
        until(lambda: worker.work(threading.Event()) or len(to.got) == 12)
    dead, live = jobs(archive)[0::2], jobs(archive)[1::2]
    assert {one.state for one in live} == {JobState.DONE}
    assert {(one.state, one.attempts) for one in dead} == {(JobState.WAITING, 0)}
    assert "Hold" in dead[0].last_error
    assert [one.last_error for one in dead[1:]] == [""] * 5
    assert record(archive, "DEAD") == {}


def test_a_destination_that_comes_back_gets_everything_in_order(archive: Archive) -> None:
    port = free_port()
    archive.peers.add(ADMIN, "DEST", "127.0.0.1", port)
    given, uids = routed("r", in_order=True), []
    for number in range(5):
        uids += study_of(archive, f"1.2.3.{number}", 4)
        ask(archive, work(f"1.2.3.{number}", "DEST", route="r"))
    with hands(archive, given) as worker:
        for _ in range(20):
            worker.work(threading.Event())
            time.sleep(0.05)
        assert set(states(archive)) == {"waiting"}
        with receiver() as to:
            archive.peers.add(ADMIN, "DEST", "127.0.0.1", to.port)
            until(lambda: worker.work(threading.Event()) or ended(archive))
    assert to.got == uids
    assert states(archive) == ["done"] * 5


def test_a_device_whose_contract_is_suspended_is_sent_nothing_until_it_holds_again(
    archive: Archive, to: Scripted
) -> None:
    whose = contracts(archive)
    clinic = SubscriberName("clinic")
    whose.add(ADMIN, Contract(subscriber=clinic, state=ContractState.ACTIVE))
    (at,) = (one.port for one in archive.peers.list(ADMIN) if one.ae_title == "DEST")
    archive.peers.add(ADMIN, "DEST", "127.0.0.1", at, binding=Binding(subscriber=clinic))
    whose.suspend(ADMIN, clinic, reason="account not in order")
    uids = study_of(archive, "1.2.3", 2)
    ask(archive, work("1.2.3", "DEST"))
    with hands(archive) as worker:
        until(lambda: worker.work(threading.Event()) or "Hold" in jobs(archive)[0].last_error)
        assert (states(archive), to.got) == (["waiting"], [])
        whose.resume(ADMIN, clinic)
        until(lambda: worker.work(threading.Event()) or ended(archive))
    assert (states(archive), to.got) == (["done"], uids)


# --- who does not take it ------------------------------------------------------------------


def test_what_is_refused_is_tried_again_and_named_at_last(archive: Archive, to: Scripted) -> None:
    uids = study_of(archive, "1.2.3", 5)
    to.answers[uids[2]] = 0xC123
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    (row,) = jobs(archive)
    assert (row.state, row.attempts) == (JobState.FAILED, 3)
    assert row.last_error == f"Retry: 1 of 5 instances were not taken: {uids[2]} (status C123)"
    assert (to.got.count(uids[2]), len(to.got)) == (3, 7)
    assert record(archive, "DEST")[uids[2]] == (REFUSED, 3, 0)
    to.answers.clear()
    archive.jobs.retry(ADMIN, row.id)
    worked(archive)
    assert len(to.got) == 8
    assert (result(archive)["sent"], used(archive, "deliver", "DEST")) == (5, 5)


def test_a_warning_is_sent(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 3)
    to.default = 0xB000
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert (states(archive), result(archive)["sent"], len(to.got)) == (["done"], 3, 3)


def test_a_full_destination_holds_its_queue_and_costs_no_attempt(url: str, tmp_path: Path) -> None:
    patient = {**QUICK, "jobs__hold_first_s": "1000", "jobs__hold_max_s": "1000"}
    with opened(tmp_path, url, **patient) as archive, receiver() as to:
        known(archive, "DEST", to.port)
        study_of(archive, "1.2.3", 30)
        study_of(archive, "1.2.4", 1)
        to.default = 0xA700
        ask(archive, work("1.2.3", "DEST"), work("1.2.4", "DEST"))
        with hands(archive) as worker:
            worker.work(threading.Event())
            assert len(to.got) < 6, "nothing further is offered to who is full"
            found = [(one.state.value, one.attempts) for one in jobs(archive)]
            assert found == [("waiting", 0)] * 2
            assert "out of resources" in jobs(archive)[0].last_error
            to.default = 0
            archive.jobs.retry(ADMIN, jobs(archive)[0].id)
            until(lambda: worker.work(threading.Event()) or ended(archive))
        assert states(archive) == ["done", "done"]
        assert used(archive, "deliver", "DEST") == 31


def test_what_always_finds_no_room_keeps_nobody_else_back(archive: Archive, to: Scripted) -> None:
    uids = study_of(archive, "1.2.3", 6)
    study_of(archive, "1.2.4", 2)
    to.answers[uids[0]] = 0xA700
    ask(archive, work("1.2.3", "DEST"), work("1.2.4", "DEST"))
    worked(archive)
    assert states(archive) == ["failed", "done"]
    assert f"{uids[0]} (status A700)" in jobs(archive)[0].last_error
    assert used(archive, "deliver", "DEST") == 7


def test_an_answer_that_is_lost_is_said_and_the_instance_sent_again(
    archive: Archive, to: Scripted
) -> None:
    uids = study_of(archive, "1.2.3", 12)
    to.once[uids[1]] = None
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert states(archive) == ["done"]
    assert (result(archive)["sent"], result(archive)["unknown"]) == (12, 1)
    assert record(archive, "DEST")[uids[1]] == (SENT, 2, 1)
    assert used(archive, "deliver", "DEST") == 12


def test_what_always_ends_the_association_is_given_up_at_last(
    archive: Archive, to: Scripted
) -> None:
    uids = study_of(archive, "1.2.3", 6)
    study_of(archive, "1.2.4", 2)
    to.answers[uids[0]] = None
    ask(archive, work("1.2.3", "DEST"), work("1.2.4", "DEST"))
    worked(archive)
    assert states(archive) == ["failed", "done"]
    assert f"ended the association: {uids[0]}" in jobs(archive)[0].last_error
    assert used(archive, "deliver", "DEST") == 7


def test_a_class_that_is_not_taken_is_named_and_not_tried_for_ever(archive: Archive) -> None:
    study_of(archive, "1.2.3", 2)
    with receiver([build_context(Verification)]) as to:
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", to.port)
        ask(archive, work("1.2.3", "DEST"))
        worked(archive)
    (row,) = jobs(archive)
    assert (row.state, row.attempts) == (JobState.FAILED, 1)
    assert "2 of 2 instances cannot be sent" in row.last_error


# --- runs that ended before -----------------------------------------------------------------


def test_what_a_dead_run_left_may_have_been_received(archive: Archive, to: Scripted) -> None:
    uids = study_of(archive, "1.2.3", 4)
    table = ForwardTable(archive.database)
    whose = (AETitle("DEST"), Registrant("local"), StudyInstanceUID("1.2.3"), None)
    ids = {one.sop_instance_uid: one.object_id for one in table.of_study(*whose)}
    with archive.records.transaction():
        run = Run(destination=AETitle("DEST"), job=999, number=1)
        table.begin(run, [ids[one] for one in uids[:2]])
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert "2 instances may have been received" in said(archive)
    assert (result(archive)["sent"], result(archive)["unknown"]) == (4, 2)
    assert [record(archive, "DEST")[one] for one in uids] == [(SENT, 2, 1)] * 2 + [(SENT, 1, 0)] * 2


def test_others_go_first_after_a_slice_and_nothing_is_lost(url: str, tmp_path: Path) -> None:
    settings = {**QUICK, "forward__slice_s": "0.2", "forward__window": "5"}
    order: list[str] = []

    def note(_: object) -> None:
        order.append("other")

    other = {"test.other": JobKind(handler=note, payload=Nothing, queue="zzz")}
    with opened(tmp_path, url, **settings) as archive, receiver() as to:
        archive.peers.add(ADMIN, "DEST", "127.0.0.1", to.port)
        uids = study_of(archive, "1.2.3", 40)
        to.pause_s = 0.03
        ask(archive, work("1.2.3", "DEST"))
        with archive.records.transaction() as unit:
            unit.enqueue(job_asked("test.other", "zzz"))
        with hands(archive, None, other) as worker:
            until(lambda: worker.work(threading.Event()) or ended(archive))
            assert order == ["other"]
        assert to.got.count(uids[0]) == 1 and sorted(to.got) == sorted(uids)
        assert to.associations == 2
        assert set(record(archive, "DEST").values()) == {(SENT, 1, 0)}
        assert jobs(archive)[0].attempts == 1


def test_a_cancelled_job_stops_soon_and_knows_what_it_sent(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 60)
    to.pause_s = 0.3
    ask(archive, work("1.2.3", "DEST"))
    with hands(archive) as worker:
        thread = threading.Thread(target=worker.work, args=(threading.Event(),))
        thread.start()
        until(lambda: len(to.got) > 3)
        archive.jobs.cancel(ADMIN, jobs(archive)[0].id)
        thread.join(60)
        assert not thread.is_alive()
    assert states(archive) == ["cancelled"]
    assert len(to.got) < 55
    noted = [one[0] for one in record(archive, "DEST").values()]
    assert noted.count(SENT) == used(archive, "deliver", "DEST") == len(to.got)
    assert SentState.SENDING not in noted


# --- by hand and by and by ----------------------------------------------------------------------


def test_an_administrator_has_a_study_sent_again(archive: Archive, to: Scripted) -> None:
    study, dest = StudyInstanceUID("1.2.3"), AETitle("DEST")
    study_of(archive, "1.2.3", 3)
    service = forwarding(archive)
    for again in (False, False, True):
        assert service.ask(ADMIN, dest, study, again=again) == 1
        worked(archive)
    assert len(to.got) == 6
    assert used(archive, "deliver", "DEST") == 6
    with pytest.raises(DestinationUnknown):
        service.ask(ADMIN, AETitle("NOBODY"), study)
    with pytest.raises(EntryNotFound):
        service.ask(ADMIN, dest, StudyInstanceUID("9.9"))
    with pytest.raises(EntryNotFound):
        service.ask(ADMIN, dest, study, route="none")


@pytest.mark.parametrize(
    ("visibility", "destinations", "refusal"),
    [
        (Visibility(registrants=frozenset({Registrant("other")})), None, EntryNotFound),
        (Visibility(everything=True, modalities=frozenset({"CT"})), None, EntryNotFound),
        (Visibility(everything=True), frozenset({AETitle("ELSEWHERE")}), DestinationUnknown),
    ],
)
def test_what_is_not_wholly_visible_or_may_not_go_there_is_as_if_it_were_not(
    archive: Archive,
    to: Scripted,
    visibility: Visibility,
    destinations: frozenset[AETitle] | None,
    refusal: type[Exception],
) -> None:
    study_of(archive, "1.2.3", 1)
    caller = replace(ADMIN, visibility=visibility, destinations=destinations)
    with pytest.raises(refusal):
        forwarding(archive).ask(caller, AETitle("DEST"), StudyInstanceUID("1.2.3"))
    agreed = frozenset({(Registrant("local"), StudyInstanceUID("1.2.3"))})
    caller = replace(ADMIN, visibility=Visibility(studies=agreed))
    assert forwarding(archive).ask(caller, AETitle("DEST"), StudyInstanceUID("1.2.3")) == 1


def test_each_registrant_of_a_study_is_a_job_of_its_own(archive: Archive, to: Scripted) -> None:
    keep(archive, data_set("1.2.3", "1.2.3.1", "1.2.3.1.1"), registrant="one")
    keep(archive, data_set("1.2.3", "1.2.3.1", "1.2.3.1.2"), registrant="two")
    assert forwarding(archive).ask(ADMIN, AETitle("DEST"), StudyInstanceUID("1.2.3")) == 2
    worked(archive)
    assert sorted(to.got) == ["1.2.3.1.1", "1.2.3.1.2"]
    rows = archive.database.execute("SELECT subscriber FROM usage_fact WHERE kind = 'deliver'")
    assert sorted(row[0] for row in rows) == ["one", "two"]


def test_records_are_forgotten_in_time(archive: Archive, to: Scripted) -> None:
    study_of(archive, "1.2.3", 3)
    ask(archive, work("1.2.3", "DEST"))
    worked(archive)
    assert forwarding(archive).purge() == 0
    assert len(record(archive, "DEST")) == 3
    assert ForwardTable(archive.database).purge(0) == 3
