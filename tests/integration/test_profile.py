"""Profiles in an archive: from what is sent to a workitem, and to giving up what was sent, or not."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from pacs.app.archive import Archive
from pacs.app.extension import Attached, Extension
from pacs.app.profile import attached, profiles
from pacs.app.provided import OURS
from pacs.app.worker import kinds_of
from pacs.core.caller import Caller
from pacs.core.errors import (
    DestinationUnknown,
    EntryConflicts,
    EntryNotFound,
    PacsError,
    ProcessingUnknown,
)
from pacs.core.forwarding import ForwardWork
from pacs.core.identifiers import AETitle, Registrant, SeriesInstanceUID, StudyInstanceUID
from pacs.core.process_results import Made, PieceDone
from pacs.core.processing import Keep, ProcessingOrder, Profile
from pacs.core.records import Held, StoreOutcome
from pacs.core.work import JobState
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.jobs.keeper import Keeper
from pacs.jobs.schedules import Scheduler
from pacs.jobs.worker import Worker
from pacs.services.profile.asked import ARRIVED, TIDY
from pacs.services.profile.desk import Desk
from storage.database.job_rows import text_utc
from storage.database.process_result import ProcessResultTable
from tests.keeping import ADMIN, NO_CHORES, data_set, keep, opened

AE = "MIP_AXIAL"
SERIES = ("1.1", "1.1.1")
LONG_AGO_S = 1_000.0


class Unknown(PacsError):
    """There is no such workitem."""


@dataclass(kw_only=True)
class Item:
    """A workitem, as far as profiles look."""

    state: WorkitemState = WorkitemState.SCHEDULED
    data_set: Dataset
    caller: Caller
    transaction_uid: str = ""
    order: ProcessingOrder = field(default_factory=lambda: ProcessingOrder(operation=""))

    @property
    def registrant(self) -> Registrant:
        return self.caller.registrant


class Worklist:
    """Workitems in memory: what profiles ask for, and what a performer would make of it."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self._orders: list[ProcessingOrder] = []
        self.inputs: list[list[str]] = []
        self.note: Callable[[PieceDone], None] = lambda _: None

    def create(self, caller: Caller, uid: str, data_set: Dataset) -> object:
        assert uid not in self.items
        self.items[uid] = Item(data_set=data_set, caller=caller, order=self._orders[-1])
        return uid

    def read(self, uid: WorkitemUID) -> Item:
        if uid not in self.items:
            raise Unknown
        return self.items[uid]

    def compose(self, order: ProcessingOrder, inputs: Sequence[Held], label: str) -> Dataset:
        self._orders.append(order)
        self.inputs.append(sorted(one.sop_instance_uid for one in inputs))
        made = Dataset()
        made.ProcedureStepLabel = label
        return made

    @property
    def only(self) -> Item:
        (item,) = self.items.values()
        return item

    def done(
        self, *results: str, state: WorkitemState = WorkitemState.COMPLETED, **piece: Any
    ) -> None:
        """End the newest workitem with these results, which are of a session with one ``piece``."""
        output, performed = Dataset(), Dataset()
        output.ReferencedSOPSequence = Items()
        for uid in results:
            one = Dataset()
            one.ReferencedSOPInstanceUID = uid
            output.ReferencedSOPSequence.append(one)
        performed.OutputInformationSequence = Items([output])
        item = list(self.items.values())[-1]
        item.data_set.UnifiedProcedureStepPerformedProcedureSequence = Items([performed])
        item.state, item.transaction_uid = state, f"2.25.{len(self.items)}"
        made = tuple(("1.2.840.10008.5.1.4.1.1.7", uid) for uid in results)
        whole = {
            "session": item.transaction_uid,
            "number": 0,
            "pieces": 1,
            "key": "k",
            "operation": "mip",
            "registrant": item.registrant,
            "study_instance_uid": StudyInstanceUID(SERIES[0]),
            "made": (Made(series_instance_uid="1.1.9", instances=made),),
            "reasons": (),
            "images": 1,
            "size_bytes": 1,
            "duration_ms": 1,
        }
        self.note(PieceDone(**{**whole, **piece}))


class Home:
    """An archive with a profile, and its worklist."""

    def __init__(self, archive: Archive, worklist: Worklist) -> None:
        self.archive, self.worklist = archive, worklist

    def profile(self, ae_title: str = AE, *, replacing: bool = False, **said: Any) -> Profile:
        order = ProcessingOrder(
            operation=said.pop("operation", "mip"),
            parameters=said.pop("parameters", {}),
            version=said.pop("version", ""),
            destinations=tuple(map(AETitle, said.pop("to", ()))),
        )
        made = Profile(ae_title=AETitle(ae_title), order=order, **said)
        with profiles(self.archive) as service:
            service.add(ADMIN, made, replacing=replacing)
        self.known()
        return made

    def known(self) -> None:
        self.archive.snapshots._looked_at = 0.0  # known at once, not within a second

    def send(self, *numbers: int, called: str = AE, **arrival: Any) -> list[StoreOutcome]:
        return [
            keep(self.archive, data_set(*SERIES, f"1.1.1.{one}"), called=called, **arrival)
            for one in numbers
        ]

    def quiet(self) -> None:
        """Let time pass: nothing more has come for long, and what is delayed is due."""
        archive = self.archive
        past = text_utc(archive.job_table.now() - timedelta(seconds=LONG_AGO_S))
        with archive.database.transaction():
            archive.database.write("UPDATE instance SET received_utc = ?", (past,))
            archive.database.write("UPDATE profile_spared SET noted_utc = ?", (past,))
            archive.database.write(
                "UPDATE profile SET tidies_since_utc = '2020-01-01T00:00:00.000000Z' "
                "WHERE tidies_since_utc IS NOT NULL"
            )
        self.work()

    def work(self) -> None:
        """Run the jobs of profiles that wait, once each."""
        archive = self.archive
        with archive.database.transaction():
            archive.database.write("UPDATE job SET not_before_utc = '2020' WHERE state = 'delayed'")
        keeper = Keeper(
            archive.job_table,
            Scheduler(archive.job_table, [], "UTC"),
            archive.settings.jobs,
            owner="me",
            give_up=lambda: None,
        )
        keeper.start()
        worker = Worker(
            archive.job_table,
            kinds_of(archive),
            archive.settings.jobs,
            keeper=keeper,
            queues=("profile",),
        )
        worker.work(threading.Event())
        keeper.stop()
        failed = archive.jobs.list(ADMIN, state=JobState.FAILED)
        assert [one.last_error for one in failed] == []

    def taken(self, destination: str, *uids: str) -> None:
        """Note that a destination has taken these instances."""
        database = self.archive.database
        with database.transaction():
            for uid in uids:
                database.write(
                    "INSERT INTO forward_sent (ae_title, object_id, state, job, run, noted_ms) "
                    "SELECT ?, object_id, 'sent', 1, 1, 1 FROM instance WHERE sop_instance_uid = ?",
                    (destination, uid),
                )

    def results(self, *uids: str) -> None:
        """Hold derived images in a series of their own."""
        for uid in uids:
            keep(self.archive, data_set("1.1", "1.1.9", uid), called="PACS", source="PACS")

    def held(self) -> list[str]:
        rows = self.archive.database.execute(
            "SELECT i.sop_instance_uid FROM instance i JOIN series e ON e.id = i.series_row "
            "WHERE i.deleted_by IS NULL AND e.series_instance_uid = ? ORDER BY 1",
            (SERIES[1],),
        )
        return [row[0].rpartition(".")[2] for row in rows]

    def said(self, kind: str) -> list[Any]:
        rows = self.archive.jobs.list(ADMIN, kind=kind, state=JobState.DONE)
        return [json.loads(one.result or "null") for one in reversed(rows)]

    def audited(self, event: str = "") -> list[dict[str, Any]]:
        (trail,) = (self.archive.home / "audit").glob("*.jsonl")
        said = [json.loads(line) for line in trail.read_text().splitlines()]
        return [one for one in said if not event or one["event"] == event]

    def completed(self, **piece: Any) -> None:
        """Complete what was sent, with one result that A has taken."""
        self.results("1.1.9.1")
        self.taken("A", "1.1.9.1")
        self.worklist.done("1.1.9.1", **piece)

    def given_up(self) -> dict[str, Any]:
        """Complete what was sent; give how tidying ended."""
        self.completed()
        self.work()
        found: dict[str, Any] = self.said(TIDY)[-1]
        return found


@pytest.fixture
def home(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An archive whose profiles ask a worklist of the tests, in place of the archive's own."""
    worklist = Worklist()

    def attach(archive: Archive, _: object) -> Attached:
        return attached(archive, Desk(worklist, worklist.compose, unknown=Unknown))

    others = tuple(one for one in OURS if one.name != "profile")
    monkeypatch.setattr("pacs.app.archive.OURS", others)

    with opened(
        tmp_path,
        url,
        extensions=[Extension(name="profiles", attach=attach)],
        **NO_CHORES,
    ) as archive:
        for at, title in enumerate(("A", "B", "CT1")):
            archive.peers.add(ADMIN, title, "127.0.0.1", 4_000 + at)
        table = ProcessResultTable(archive.database)

        def note(done: PieceDone) -> None:
            with archive.database.transaction():
                table.note(done)

        worklist.note = note
        yield Home(archive, worklist)


# --- rows ------------------------------------------------------------------------------


def test_profiles_are_rows_of_the_snapshot_and_every_change_is_on_record(home: Home) -> None:
    made = home.profile(parameters={"plane": "axial"}, to=["A"], asker=True)
    assert home.archive.snapshots.current().profiles == {AE: made}
    with profiles(home.archive) as service:
        with pytest.raises(EntryConflicts, match="is named MIP_AXIAL already"):
            service.add(ADMIN, made)
        service.activate(ADMIN, AE, active=False)
        home.known()
        assert not home.archive.snapshots.current().profiles[AETitle(AE)].active
        text = service.exported(ADMIN)
        service.remove(ADMIN, AE)
        home.known()
        assert home.archive.snapshots.current().profiles == {}
        with pytest.raises(EntryNotFound):
            service.remove(ADMIN, AE)
        assert service.imported(ADMIN, text) == [replace(made, active=False)]
        with pytest.raises(EntryConflicts):
            service.imported(ADMIN, text)
        service.imported(ADMIN, text, replacing=True)
    events = [one["event"] for one in home.audited()]
    changes = [one for one in events if one.startswith("profile-")]
    assert changes == [
        *("profile-changed", "profile-disabled", "profile-removed"),
        *("profile-changed", "profile-changed"),
    ]


def test_what_cannot_be_computed_here_is_not_kept(home: Home) -> None:
    with pytest.raises(ProcessingUnknown, match="no operation 'mop'"):
        home.profile(operation="mop")
    with pytest.raises(ProcessingUnknown):
        home.profile(parameters={"plane": "skewed"})
    with pytest.raises(ProcessingUnknown, match="version"):
        home.profile(version="0.0.0")
    with pytest.raises(DestinationUnknown):
        home.profile(to=["NOBODY"])
    assert home.archive.snapshots.newest().profiles == {}


# --- from what is sent to a workitem --------------------------------------------------------


def test_a_series_becomes_one_workitem_of_all_that_is_held_of_it(home: Home) -> None:
    home.profile(to=["A"])
    home.send(1, called="PACS")
    home.send(2, 3)
    home.send(4, called="PACS")
    home.work()
    assert home.worklist.items == {}, "it is not quiet yet"
    home.quiet()
    assert home.worklist.inputs == [[f"1.1.1.{one}" for one in (1, 2, 3, 4)]]
    item = home.worklist.only
    assert item.data_set.ProcedureStepLabel == "Profile MIP_AXIAL"
    assert (item.order.operation, item.order.destinations) == ("mip", ("A",))
    assert item.caller.subscriber == "local"
    (asked,) = home.audited("processing-asked")
    assert (asked["profile"], asked["instances"]) == (AE, 4)
    assert home.said(TIDY) == [], "sources are kept"


def test_the_same_series_makes_no_second_workitem_one_that_grew_does(home: Home) -> None:
    home.profile()
    home.send(1, 2)
    home.quiet()
    (job,) = home.archive.jobs.list(ADMIN, kind=ARRIVED, state=JobState.DONE)[-1:]
    with home.archive.records.transaction() as unit:  # as where it was not known to have ended
        from pacs.services.profile.asked import ArrivedWork

        unit.enqueue(ArrivedWork(**json.loads(job.payload)).job(home.archive.job_table.now()))
    home.quiet()
    assert len(home.worklist.items) == 1
    home.send(3)
    home.quiet()
    assert home.worklist.inputs[-1] == ["1.1.1.1", "1.1.1.2", "1.1.1.3"]
    assert len(home.worklist.items) == 2


def test_what_is_sent_once_more_is_processed_once_more(home: Home) -> None:
    home.send(1, 2, called="PACS")
    home.profile(asker=True)
    assert home.send(1, 2) == [StoreOutcome.ALREADY_HELD] * 2
    home.quiet()
    assert home.worklist.inputs == [["1.1.1.1", "1.1.1.2"]]
    assert home.worklist.only.order.destinations == ("CT1",)


def test_who_sent_it_gets_the_results_where_it_is_a_peer_of_the_same(home: Home) -> None:
    home.profile(to=["A"], asker=True)
    home.send(1)
    home.send(2, source="A")
    home.send(3, source="B", called="PACS")
    home.quiet()
    assert home.worklist.only.order.destinations == ("A",), "the newest of what came here"
    home.send(4, source="STRANGER")
    home.quiet()
    assert list(home.worklist.items.values())[-1].order.destinations == ("A",)
    (unknown,) = home.audited("processing-sender-unknown")
    assert (unknown["sender"], unknown["profile"]) == ("STRANGER", AE)


def test_without_the_right_to_process_it_is_kept_and_said(home: Home) -> None:
    home.profile()
    home.send(1, registrant="stranger")
    home.quiet()
    assert home.worklist.items == {}
    assert home.held() == ["1"]
    assert [one["workitem"] for one in home.said(ARRIVED)] == [None]
    (refused,) = home.audited("processing-not-granted")
    assert (refused["subscriber"], refused["profile"]) == ("stranger", AE)


def test_a_profile_that_was_disabled_asks_for_nothing(home: Home) -> None:
    home.profile()
    home.send(1)
    with profiles(home.archive) as service:
        service.activate(ADMIN, AE, active=False)
    home.known()
    home.send(2)
    home.quiet()
    assert home.worklist.items == {}
    assert home.held() == ["1", "2"]


# --- giving up what was sent --------------------------------------------------------------------


def until_done(home: Home) -> None:
    home.profile(to=["A"], keep_sources=Keep.UNTIL_DONE)
    with home.archive.database.transaction():  # it was so long before anything is sent
        home.archive.database.write(
            "UPDATE profile SET tidies_since_utc = '2020-01-01T00:00:00.000000Z'"
        )


def test_only_what_came_to_the_profile_is_given_up_and_can_be_brought_back(home: Home) -> None:
    until_done(home)
    home.send(1, called="PACS")
    home.send(2, 3)
    home.quiet()
    assert home.held() == ["1", "2", "3"], "nothing is done yet"
    assert home.given_up() == {"deleted": 2}
    assert home.held() == ["1"]
    (entry,) = home.archive.deletions.pending(ADMIN)
    assert entry.instances == 2
    (deleted,) = home.audited("deleted")
    assert (deleted["profile"], deleted["count"]) == (AE, 2)
    home.archive.deletions.undo(ADMIN, entry.entry_id, reason="looked at")
    assert home.held() == ["1", "2", "3"]


def test_what_was_sent_elsewhere_too_is_kept(home: Home) -> None:
    until_done(home)
    home.send(1, 2, 3)
    assert home.send(2, called="PACS") == [StoreOutcome.ALREADY_HELD]
    assert home.send(3) == [StoreOutcome.ALREADY_HELD], "the same way is no other way"
    home.quiet()
    assert home.given_up() == {"deleted": 2}
    assert home.held() == ["2"]


def test_what_was_sent_under_another_promise_is_kept(home: Home) -> None:
    home.profile(to=["A"])
    home.send(1)
    home.profile(to=["A"], keep_sources=Keep.UNTIL_DONE, replacing=True)
    home.work()
    past = text_utc(home.archive.job_table.now() - timedelta(seconds=LONG_AGO_S))
    with home.archive.database.transaction():
        home.archive.database.write("UPDATE instance SET received_utc = ?", (past,))
    home.work()
    assert home.given_up() == {"deleted": 0}
    assert home.held() == ["1"]


@pytest.mark.parametrize("state", [WorkitemState.CANCELED, WorkitemState.IN_PROGRESS])
def test_nothing_is_given_up_unless_the_workitem_is_completed(
    home: Home, state: WorkitemState
) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    home.results("1.1.9.1")
    home.taken("A", "1.1.9.1")
    home.worklist.done("1.1.9.1", state=state)
    home.work()
    assert home.held() == ["1"]
    if state is WorkitemState.CANCELED:
        assert home.said(TIDY) == [{"deleted": 0, "why": "the workitem is CANCELED"}]
    else:
        assert home.said(TIDY) == [], "it looks again"


def kept(home: Home, why: str) -> None:
    (said,) = home.said(TIDY)
    assert said["deleted"] == 0
    assert why in said["why"]
    assert home.held()[:1] == ["1"]


def test_a_destination_that_has_not_taken_everything_keeps_the_sources(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    home.results("1.1.9.1", "1.1.9.2")
    home.taken("A", "1.1.9.1")
    home.taken("B", "1.1.9.1", "1.1.9.2")
    home.worklist.done("1.1.9.1", "1.1.9.2")
    home.work()
    kept(home, "A has not taken 1 of 2 results")


def test_a_workitem_without_results_keeps_the_sources(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    home.worklist.done()
    home.work()
    kept(home, "no result was sent anywhere")


def test_a_series_that_grew_or_has_a_newer_version_is_kept(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    newer = data_set(*SERIES, "1.1.1.1", PatientComments="another")
    assert keep(home.archive, newer, called=AE) is StoreOutcome.KEPT_AS_VERSION
    with home.archive.database.transaction():  # not looked at yet
        home.archive.database.write(
            "UPDATE job SET state = 'cancelled' WHERE kind = ? AND state = 'delayed'", (ARRIVED,)
        )
    home.given_up()
    kept(home, "another one than that was processed")


def test_a_profile_that_keeps_its_sources_by_now_keeps_them(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    home.profile(to=["A"], replacing=True)
    home.given_up()
    kept(home, "keeps its sources now")


def test_what_is_still_to_be_sent_is_kept_until_then(home: Home) -> None:
    until_done(home)
    home.send(1)
    home.quiet()
    work = ForwardWork(
        route="r",
        destination=AETitle("B"),
        registrant=Registrant("local"),
        study_instance_uid=StudyInstanceUID(SERIES[0]),
        series_instance_uid=SeriesInstanceUID(SERIES[1]),
    )
    with home.archive.records.transaction() as unit:
        unit.enqueue(work.job())
    home.results("1.1.9.1")
    home.taken("A", "1.1.9.1")
    home.worklist.done("1.1.9.1")
    home.work()
    assert home.said(TIDY) == []
    assert home.held() == ["1"]
    (job,) = home.archive.jobs.list(ADMIN, kind="forward.send", state=JobState.WAITING)
    home.archive.jobs.cancel(ADMIN, job.id)
    home.work()
    assert home.said(TIDY) == [{"deleted": 1}]


def test_what_is_deleted_while_it_comes_again_is_taken_in_anew(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is held and the answer, tidying may have given it up."""
    until_done(home)
    home.send(1)
    home.quiet()
    is_held = home.archive.ingest._is_held

    def tidied(*arguments: Any) -> bool:
        found = is_held(*arguments)
        if found:
            monkeypatch.undo()
            assert home.given_up() == {"deleted": 1}
        return found

    monkeypatch.setattr(home.archive.ingest, "_is_held", tidied)
    assert home.send(1, called="PACS") == [StoreOutcome.KEPT_AS_VERSION]
    assert home.held() == ["1"]


def test_the_slower_of_two_that_come_at_once_is_noted_too(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_done(home)
    home.send(1)
    monkeypatch.setattr(home.archive.ingest, "_is_held", lambda *_: False)  # not yet, as it looked
    assert home.send(1, called="PACS") == [StoreOutcome.ALREADY_HELD]
    home.quiet()
    assert home.given_up() == {"deleted": 0}
    assert home.held() == ["1"]
