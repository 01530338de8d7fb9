"""The course of a commitment: what a crash leaves, what is late, partial, contradicting or too much."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from config.settings import Commitment as CommitmentSettings
from pacs.app.archive import Archive
from pacs.core.caller import Caller
from pacs.core.commitment import (
    CommitmentAsking,
    Outcome,
    Reference,
    Transaction,
    TransactionUID,
)
from pacs.core.errors import (
    EventInvalid,
    EventTypeUnknown,
    PeerRefused,
    PeerUnreachable,
    ReportContradicts,
    ServiceNotOffered,
    TransactionUnknown,
)
from pacs.core.forwarding import CommitmentWork
from pacs.core.identifiers import AETitle, SOPClassUID, SOPInstanceUID
from pacs.core.ports import Unit
from pacs.core.records import Job, Peer
from pacs.core.work import Hold, JobState, Permanent, Postpone, Retry
from pacs.services.commitment import Commitments, EventReport, Reports
from pacs.services.commitment.service import MOST_FAILED_LISTED
from storage.database.commitment import CommitmentTable
from tests.keeping import ADMIN, caller_of, opened

CT = SOPClassUID("1.2.840.10008.5.1.4.1.1.2")
THERE = AETitle("THERE")
PEER = replace(caller_of(), ae_title=THERE)


def references(count: int) -> tuple[Reference, ...]:
    return tuple((CT, SOPInstanceUID(f"1.2.{number + 1}")) for number in range(count))


@dataclass
class FakeSender:
    """A peer: gives statuses in turn, then 0000; ``during`` happens while it is asked."""

    statuses: list[int] = field(default_factory=list)
    refuses: Exception | None = None
    during: Callable[[Transaction], None] = lambda _: None
    waited: Callable[[], bool] = lambda: False
    asked: list[Transaction] = field(default_factory=list)

    @contextmanager
    def open(self, peer: Peer) -> Iterator[CommitmentAsking]:
        assert peer.ae_title == THERE
        if self.refuses is not None:
            raise self.refuses
        yield self

    def ask(self, transaction: Transaction) -> int:
        self.asked.append(transaction)
        self.during(transaction)
        return self.statuses.pop(0) if self.statuses else 0x0000

    def wait(self, timeout_s: float) -> bool:
        assert timeout_s > 0
        return self.waited()


class FakeContext:
    """One job's context, with a row of the job behind it."""

    def __init__(self, archive: Archive, work: CommitmentWork, job: int) -> None:
        self._archive, self.payload, self.id = archive, work, job
        self.attempt = 1
        self.result: Any = None
        self.stop = False

    def progress(self, done: int, total: int) -> None: ...
    def log(self, line: str) -> None: ...
    def children(self, jobs: Sequence[Job]) -> Any:
        raise AssertionError("a commitment has no parts")

    def cancelled(self) -> bool:
        return self.stop

    @contextmanager
    def finish(self, result: object = None) -> Iterator[Unit]:
        with self._archive.records.transaction() as unit:
            yield unit
        self.result = result


class Bench:
    """One archive, one job, one peer."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.rows = CommitmentTable(archive.database, archive.records)
        self.reports = Reports(self.rows, archive.audit)
        self.sender = FakeSender()
        archive.peers.add(ADMIN, THERE, "127.0.0.1", 104)

    def context(self, count: int = 3, *, required: bool = False) -> FakeContext:
        work = CommitmentWork(destination=THERE, references=references(count), required=required)
        with self.archive.records.transaction() as unit:
            unit.enqueue(replace(work.job(), not_before_utc=self.rows.now() + timedelta(hours=1)))
        return FakeContext(self.archive, work, self.archive.jobs.list(ADMIN)[0].id)

    def run(self, context: FakeContext, *, most: int = 100, **settings: float) -> None:
        made = CommitmentSettings(**{"wait_on_association_s": 0, **settings})  # type: ignore[arg-type]
        Commitments(
            rows=self.rows,
            sender=self.sender,
            snapshots=self.archive.snapshots,
            settings=made,
            most_references=most,
        ).run(context)

    def report(self, transaction: Transaction, *failed: str, caller: Caller = PEER) -> None:
        self.reports.take(caller, event(transaction, *failed))

    def state(self) -> JobState:
        return self.archive.jobs.list(ADMIN)[0].state


def event(transaction: Transaction, *failed: str) -> EventReport:
    information = Dataset()
    information.TransactionUID = transaction.uid
    items: dict[bool, list[Dataset]] = {True: [], False: []}
    for sop_class_uid, uid in transaction.references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, uid
        if uid in failed:
            item.FailureReason = 0x0213
        items[uid in failed].append(item)
    information.ReferencedSOPSequence, information.FailedSOPSequence = items[False], items[True]
    return EventReport(event_type_id=2 if failed else 1, information=information)


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    sqlite = request.param == "sqlite"
    url = "" if sqlite else str(request.getfixturevalue("postgres_url"))
    with opened(tmp_path, url) as archive:
        yield Bench(archive)


def test_a_report_during_the_request_finds_its_row(bench: Bench) -> None:
    bench.sender.during = bench.report
    context = bench.context()
    bench.run(context)
    assert context.result == {"offered": True, "committed": 3, "failed": {}}
    assert list(bench.rows.standing(context.id)) == []


def test_the_row_is_durable_before_the_request_leaves(bench: Bench) -> None:
    def gone(_: Transaction) -> None:
        raise KeyboardInterrupt  # whatever ends us: nothing of ours runs after it

    bench.sender.during = gone
    context = bench.context()
    with pytest.raises(KeyboardInterrupt):
        bench.run(context)
    bench.report(bench.sender.asked[0])
    assert bench.state() is JobState.WAITING
    bench.run(context)
    assert context.result == {"offered": True, "committed": 3, "failed": {}}
    assert len(bench.sender.asked) == 1


def test_what_a_crash_left_unknown_is_asked_anew_and_either_report_counts(bench: Bench) -> None:
    def lost(_: Transaction) -> None:
        raise PeerUnreachable("gone")

    for reported in (0, 1):
        bench.sender = FakeSender(during=lost)
        context = bench.context()
        with pytest.raises(Hold):
            bench.run(context)
        bench.sender.during = lambda _: None
        with pytest.raises(Postpone):
            bench.run(context)
        first, second = bench.sender.asked
        assert first.uid != second.uid
        bench.report((first, second)[reported], "1.2.2")
        bench.run(context)
        assert context.result == {"offered": True, "committed": 2, "failed": {"1.2.2": 0x0213}}


def test_a_report_lets_the_waiting_job_go_on_at_once(bench: Bench) -> None:
    context = bench.context()
    with pytest.raises(Postpone) as postponed:
        bench.run(context)
    assert 0 < postponed.value.after_s <= 60
    assert bench.state() is JobState.DELAYED
    bench.report(bench.sender.asked[0])
    assert bench.state() is JobState.WAITING


def test_many_references_are_several_transactions(bench: Bench) -> None:
    context = bench.context(10)
    bench.sender.statuses = [0x0000, 0x0000, 0x0110]
    with pytest.raises(Retry):
        bench.run(context, most=4)
    with pytest.raises(Postpone):
        bench.run(context, most=4)
    sizes = [(one.first, len(one.references)) for one in bench.sender.asked]
    assert sizes == [(0, 4), (4, 4), (8, 2), (8, 2)]
    for number in (0, 3):
        bench.report(bench.sender.asked[number])
        with pytest.raises(Postpone):
            bench.run(context, most=4)
    bench.report(bench.sender.asked[1], "1.2.7")
    bench.run(context, most=4)
    assert context.result == {"offered": True, "committed": 9, "failed": {"1.2.7": 0x0213}}


def test_nothing_by_the_deadline_fails_and_a_retry_asks_anew(bench: Bench) -> None:
    context = bench.context()
    with pytest.raises(Postpone) as postponed:
        bench.run(context, deadline_s=2)
    assert postponed.value.after_s <= 2
    with pytest.raises(Permanent, match="THERE said nothing of 3 instances within"):
        while True:
            time.sleep(0.1)
            with pytest.raises(Postpone):
                bench.run(context, deadline_s=2)
    bench.report(bench.sender.asked[0])  # late: taken, and nobody waits for it
    with pytest.raises(Postpone):
        bench.run(context)
    assert len({one.uid for one in bench.sender.asked}) == 2


@pytest.mark.parametrize("keep_s", [0, 3_600])
def test_a_peer_that_leaves_at_each_request_is_not_asked_for_ever(
    bench: Bench, keep_s: float
) -> None:
    def leaves(_: Transaction) -> None:
        raise PeerUnreachable("aborted")

    bench.sender.during = leaves
    context = bench.context()
    began_s = time.monotonic()
    with pytest.raises(Permanent, match="THERE said nothing of 3 instances within 1 s"):
        while time.monotonic() < began_s + 60:
            with pytest.raises(Hold):
                bench.run(context, deadline_s=1, keep_s=keep_s)
            time.sleep(0.02)
    assert time.monotonic() >= began_s + 1, "it has all of its time"
    assert len(bench.sender.asked) > 1
    with pytest.raises(Hold):  # tried again by a person: with the whole time
        bench.run(context, deadline_s=3_600)


def test_a_peer_that_was_away_past_the_deadline_is_asked_and_waited_for(bench: Bench) -> None:
    def leaves(_: Transaction) -> None:
        raise PeerUnreachable("aborted")

    bench.sender.during = leaves
    context = bench.context(6)
    with pytest.raises(Hold):
        bench.run(context, deadline_s=0.001, most=3)
    time.sleep(0.1)
    bench.sender.refuses = PeerUnreachable("away")
    with pytest.raises(Hold):
        bench.run(context, most=3)
    bench.sender.refuses = None
    taken: list[int] = []

    def leaves_at_the_second(one: Transaction) -> None:
        taken.append(one.first)
        if one.first == 3:
            raise PeerUnreachable("aborted")

    bench.sender.during = leaves_at_the_second
    with pytest.raises(Hold):  # the second is begun for the first time
        bench.run(context, most=3)
    bench.sender.during = bench.report
    with pytest.raises(Postpone):
        bench.run(context, most=3)
    assert taken == [0, 3]
    bench.report(bench.sender.asked[1])
    bench.run(context, most=3)
    assert context.result == {"offered": True, "committed": 6, "failed": {}}


def test_what_is_over_is_forgotten_after_its_time(bench: Bench) -> None:
    context = bench.context()
    with pytest.raises(Permanent):  # soon over: the first look may already be too late
        while True:
            with pytest.raises(Postpone):
                bench.run(context, deadline_s=0.001)
    with pytest.raises(Postpone):
        bench.run(context, keep_s=0)
    with pytest.raises(TransactionUnknown):
        bench.report(bench.sender.asked[0])
    bench.report(bench.sender.asked[1])


@pytest.mark.parametrize(
    ("refuses", "raised"),
    [(PeerUnreachable(), Hold), (PeerRefused(), Retry)],
)
def test_a_peer_that_is_away_or_says_no(
    bench: Bench, refuses: Exception, raised: type[Exception]
) -> None:
    bench.sender.refuses = refuses
    with pytest.raises(raised):
        bench.run(context := bench.context())
    assert list(bench.rows.standing(context.id)) == []


@pytest.mark.parametrize("refused", [ServiceNotOffered(), 0x0122, 0x0211, 0x0123])
def test_what_is_not_offered(bench: Bench, refused: Exception | int) -> None:
    def prepare() -> None:
        if isinstance(refused, int):
            bench.sender.statuses = [refused]
        else:
            bench.sender.refuses = refused

    prepare()
    bench.run(context := bench.context())
    assert context.result == {"offered": False, "committed": 0, "failed": {}}
    prepare()
    with pytest.raises(Permanent, match="does not offer"):
        bench.run(bench.context(required=True))


@pytest.mark.parametrize(
    ("status", "raised"), [(0x0110, Retry), (0x0213, Retry), (0x0124, Permanent), (0xC001, Retry)]
)
def test_refused_statuses(bench: Bench, status: int, raised: type[Exception]) -> None:
    bench.sender.statuses = [status]
    with pytest.raises(raised, match=f"{status:04X}"):
        bench.run(bench.context())


def test_an_unknown_destination_fails(bench: Bench) -> None:
    context = bench.context()
    context.payload = replace(context.payload, destination=AETitle("NOBODY"))
    with pytest.raises(Permanent, match="NOBODY is no peer"):
        bench.run(context)


def test_a_cancelled_job_asks_nothing(bench: Bench) -> None:
    context = bench.context()
    context.stop = True
    bench.run(context)
    assert (bench.sender.asked, context.result) == ([], None)


def test_more_failures_than_a_result_holds_fail_the_job(bench: Bench) -> None:
    count = MOST_FAILED_LISTED + 1
    context = bench.context(count)
    bench.sender.during = lambda one: bench.report(one, *(uid for _, uid in one.references))
    with pytest.raises(Permanent, match=f"{count} of {count} instances were not committed"):
        bench.run(context, most=1_000)
    context = bench.context(MOST_FAILED_LISTED)
    bench.run(context, most=1_000)
    assert len(json.dumps(context.result)) < 65_536


def test_waiting_on_the_association_ends_when_the_peer_leaves(bench: Bench) -> None:
    def leaves() -> bool:
        raise PeerUnreachable("released")

    bench.sender.waited = leaves
    with pytest.raises(Postpone):
        bench.run(bench.context(), wait_on_association_s=30)


# --- what is reported ----------------------------------------------------------------------


def test_only_whom_it_was_asked_of_may_report_and_once(bench: Bench) -> None:
    context = bench.context()
    with pytest.raises(Postpone):
        bench.run(context)
    (asked,) = bench.sender.asked
    with pytest.raises(TransactionUnknown):
        bench.report(asked, caller=replace(PEER, ae_title=AETitle("OTHER")))
    assert bench.state() is JobState.DELAYED
    bench.report(asked, "1.2.1")
    bench.report(asked, "1.2.1")
    with pytest.raises(ReportContradicts):
        bench.report(asked)
    bench.run(context)
    assert context.result["failed"] == {"1.2.1": 0x0213}
    bench.report(asked, "1.2.1")  # known still, after the job has ended


def test_what_is_no_report_is_refused(bench: Bench) -> None:
    context = bench.context()
    with pytest.raises(Postpone):
        bench.run(context)
    good = event(bench.sender.asked[0])
    unknown = replace(bench.sender.asked[0], uid=TransactionUID("1.2.3"))
    for raised, bad in (
        (EventTypeUnknown, replace(good, event_type_id=3)),
        (EventInvalid, replace(good, information=None)),
        (EventInvalid, replace(good, information=Dataset())),
        (TransactionUnknown, replace(good, sop_instance_uid="1.2")),
        (TransactionUnknown, event(unknown)),
    ):
        with pytest.raises(raised):
            bench.reports.take(PEER, bad)
    assert bench.state() is JobState.DELAYED
    assert bench.rows.standing(context.id)[0].outcome is None


def test_an_archive_that_was_closed_meanwhile_takes_the_report(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        bench = Bench(archive)
        context = bench.context()
        with pytest.raises(Postpone):
            bench.run(context)
        (asked,) = bench.sender.asked
    with opened(tmp_path) as archive:
        rows = CommitmentTable(archive.database, archive.records)
        Reports(rows, archive.audit).take(PEER, event(asked))
        (standing,) = rows.standing(context.id)
        assert standing.outcome == Outcome(failed={})
        assert archive.jobs.list(ADMIN)[0].state is JobState.WAITING
