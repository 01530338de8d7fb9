"""Several associations of one C-MOVE: each instance once, counters that add up, threads that end."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from config.settings import Retrieve as RetrieveSettings
from pacs.core.attributes import Level
from pacs.core.caller import Caller, Right, SubscriberName, Visibility
from pacs.core.errors import PeerUnreachable, RecordsFailed
from pacs.core.identifiers import (
    AETitle,
    Digest,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.ports import Gate
from pacs.core.records import (
    Held,
    Originator,
    Payload,
    Peer,
    Place,
    Progress,
    Selection,
    SendOutcome,
    Snapshot,
)
from pacs.services.delivery import crew as crew_module
from pacs.services.delivery.shipment import Shipping
from pacs.services.retrieve import Retrieve
from pacs.services.retrieve import account as account_module
from tests.association_fakes import FakeGate, until

CT = SOPClassUID("1.2.840.10008.5.1.4.1.1.2")
EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
ASKED = Selection(level=Level.STUDY, study_instance_uids=("1.2",))
SIZE_BYTES = 10


def held(row: int) -> Held:
    return Held(
        registrant=Registrant("local"),
        study_instance_uid=StudyInstanceUID("1.2"),
        series_instance_uid=SeriesInstanceUID("1.2.3"),
        sop_class_uid=CT,
        sop_instance_uid=SOPInstanceUID(f"1.2.3.{row}"),
        transfer_syntax_uid=EXPLICIT,
        digest=Digest("blake3:"),
        place=Place(
            name=str(row), object_id=ObjectId(str(row)), size_bytes=SIZE_BYTES, data_set_offset=0
        ),
    )


class Archive:
    """Every port of a retrieve, as small as it can be."""

    def __init__(self, total: int, associations: int) -> None:
        self.total = total
        self.gone: set[int] = set()
        self.broken_at: int | None = None
        self.usage: dict[str, int] = {}
        self.transactions = 0
        peer = Peer(ae_title=AETitle("DEST"), host="", port=1, associations=associations)
        self.snapshot = Snapshot(revision=1, peers={peer.ae_title: peer})

    def is_ambiguous(self, selection: Selection, visibility: Visibility) -> bool:
        return False

    def select(self, selection: Selection, visibility: Visibility, limit: int) -> Sequence[Any]:
        return [(row, CT, EXPLICIT) for row in range(self.total)]

    def fetch(self, rows: Sequence[int]) -> Sequence[Held]:
        if self.broken_at is not None and self.broken_at in rows:
            raise RecordsFailed
        return [held(row) for row in rows if row not in self.gone]

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        self.transactions += 1
        yield self

    def record_usage(self, usage: Any) -> None:
        for counted, amount in (("deliver", usage.instances), ("deliver-bytes", usage.sent_bytes)):
            self.usage[counted] = self.usage.get(counted, 0) + amount

    def current(self) -> Snapshot:
        return self.snapshot

    newest = current

    def record(self, event: str, caller: Caller | None, **details: object) -> None:
        pass

    def path(self, place: Place) -> str:
        return place.name


class Way:
    """One association of the fake destination."""

    def __init__(self, number: int, destination: "Destination") -> None:
        self.number = number
        self.last_status: int | None = None
        self.rows: list[int] = []
        self.aborted = threading.Event()
        self._destination = destination

    def accepted(self, sop_class_uid: SOPClassUID) -> tuple[TransferSyntaxUID, ...]:
        return (EXPLICIT,)

    def send(
        self,
        payload: Payload,
        originator: Originator | None,
        following: Callable[[], Payload | None] | None = None,
    ) -> SendOutcome:
        self.rows.append(int(payload.path))
        if following is not None:
            following()
        outcome = self._destination.answer(self)
        self.last_status = 0x0000 if outcome is SendOutcome.SUCCESS else 0xA700
        return outcome

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        self.aborted.set()


class Destination:
    """Takes associations; ``answer`` and ``admit`` may be replaced."""

    def __init__(self) -> None:
        self.ways: list[Way] = []
        self._lock = threading.Lock()
        self.admit: Callable[[int], None] = lambda number: None
        self.answer: Callable[[Way], SendOutcome] = lambda way: SendOutcome.SUCCESS

    @contextmanager
    def open(self, peer: Peer, offers: object) -> Iterator[Way]:
        with self._lock:
            way = Way(len(self.ways), self)
            self.ways.append(way)
        self.admit(way.number)
        yield way

    @property
    def rows(self) -> list[int]:
        return [row for way in self.ways for row in way.rows]


def shipping_of(archive: Archive, destination: Destination) -> Shipping:
    return Shipping(
        index=archive,  # type: ignore[arg-type]
        store=archive,  # type: ignore[arg-type]
        sender=destination,
        transcoder=None,  # type: ignore[arg-type]
        settings=RetrieveSettings(),
        processor=None,  # type: ignore[arg-type]
    )


def moving(
    archive: Archive,
    destination: Destination,
    cancelled: Callable[[], bool] = lambda: False,
    gate: Gate | None = None,
) -> Iterator[Progress]:
    retrieve = Retrieve(
        index=archive,  # type: ignore[arg-type]
        records=archive,  # type: ignore[arg-type]
        shipping=shipping_of(archive, destination),
        snapshots=archive,
        settings=RetrieveSettings(),
        audit=archive,
        gate=gate or FakeGate(),
    )
    caller = Caller(
        subscriber=SubscriberName("local"),
        rights=frozenset(Right),
        visibility=Visibility(everything=True),
        ae_title=AETitle("ASKER"),
        address="127.0.0.1",
        issuer_of_patient_id="",
    )
    originator = Originator(ae_title=AETitle("ASKER"), message_id=1)
    return retrieve.move(caller, ASKED, AETitle("DEST"), originator, cancelled)


def settled(progress: Iterator[Progress], total: int) -> Progress:
    """Follow to the end; at every step the counters add up and never go back."""
    done = -1
    for one in progress:
        assert one.remaining + one.completed + one.failed + one.warning == total
        assert one.completed + one.failed + one.warning >= done
        done = one.completed + one.failed + one.warning
        last = one
    assert last.over
    return last


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert until(lambda: not [one for one in threading.enumerate() if one.name == "move"])


@pytest.mark.parametrize("associations", [1, 2, 4, 16])
def test_every_instance_goes_once_and_in_order(
    associations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_module, "WINDOW_S", 3600.0)  # one window, however slow the machine
    archive, destination = Archive(250, associations), Destination()
    destination.answer = lambda way: (time.sleep(0.001), SendOutcome.SUCCESS)[1]
    last = settled(moving(archive, destination), 250)
    assert (last.completed, last.remaining) == (250, 0)
    assert sorted(destination.rows) == list(range(250))
    assert all(way.rows == sorted(way.rows) for way in destination.ways)
    assert len(destination.ways) == associations
    assert sum(bool(way.rows) for way in destination.ways) > associations // 2
    assert archive.usage == {"deliver": 250, "deliver-bytes": 250 * SIZE_BYTES}
    assert archive.transactions == 1


def test_few_instances_do_not_open_many_associations() -> None:
    destination = Destination()
    assert settled(moving(Archive(9, 16), destination), 9).completed == 9
    assert len(destination.ways) == 2


def test_a_rejected_association_leaves_its_share_to_those_that_were_taken() -> None:
    destination, rejected = Destination(), threading.Event()

    def two_at_most(number: int) -> None:
        if number > 1:
            rejected.set()
            raise PeerUnreachable

    def answer(way: Way) -> SendOutcome:
        assert rejected.wait(10)
        return SendOutcome.SUCCESS

    destination.admit, destination.answer = two_at_most, answer
    last = settled(moving(Archive(40, 4), destination), 40)
    assert (last.completed, last.failed) == (40, 0)
    assert sorted(destination.rows) == list(range(40))
    assert len(destination.ways) == 3, "who has said how many it takes is not asked again"


def test_associations_are_made_one_at_a_time() -> None:
    """Many devices count those being made against their limit, and would reject every one."""
    destination, opening = Destination(), threading.Lock()

    def alone(number: int) -> None:
        assert opening.acquire(blocking=False)
        time.sleep(0.01)
        opening.release()

    destination.admit = alone
    destination.answer = lambda way: (time.sleep(0.01), SendOutcome.SUCCESS)[1]
    assert settled(moving(Archive(60, 4), destination), 60).completed == 60
    assert len(destination.ways) == 4


def test_no_association_at_all_fails_everything_and_names_it() -> None:
    destination = Destination()

    def never(number: int) -> None:
        raise PeerUnreachable

    destination.admit = never
    archive = Archive(40, 4)
    last = settled(moving(archive, destination), 40)
    assert (last.completed, last.failed) == (0, 40)
    assert len(set(last.failed_sop_instance_uids)) == 40
    assert len(destination.ways) == 1
    assert archive.usage == {}


def test_a_lost_association_costs_the_instance_it_broke_at() -> None:
    destination = Destination()

    def lossy(way: Way) -> SendOutcome:
        time.sleep(0.001)
        if way.number == 1 and len(way.rows) == 3:
            raise PeerUnreachable
        return SendOutcome.SUCCESS

    destination.answer = lossy
    last = settled(moving(Archive(200, 3), destination), 200)
    assert (last.completed, last.failed) == (199, 1)
    assert last.failed_sop_instance_uids == (f"1.2.3.{destination.ways[1].rows[-1]}",)
    assert sorted(destination.rows) == list(range(200))


def test_what_a_lost_association_gave_back_last_is_still_sent() -> None:
    """The others have ended by then: one more association is made for it."""
    destination, others_done = Destination(), threading.Event()

    def lossy(way: Way) -> SendOutcome:
        if way.number == 0 and len(way.rows) == 1:
            assert others_done.wait(10)
            raise PeerUnreachable
        return SendOutcome.SUCCESS

    destination.answer = lossy
    last = None
    for one in moving(Archive(8, 2), destination):
        last = one
        if one.completed == 6:  # all but the one under way and the one behind it
            others_done.set()
    assert last is not None
    assert (last.completed, last.failed, last.remaining) == (7, 1, 0)
    assert sorted(destination.rows) == list(range(8))
    assert len(destination.ways) == 3


def test_when_every_association_is_lost_the_rest_fails() -> None:
    destination = Destination()

    def lost(way: Way) -> SendOutcome:
        raise PeerUnreachable

    destination.answer = lost
    last = settled(moving(Archive(50, 2), destination), 50)
    assert (last.completed, last.failed) == (0, 50)
    assert len(destination.rows) == 2


def test_an_association_that_never_opens_is_not_waited_for() -> None:
    destination, may_open = Destination(), threading.Event()

    def slow(number: int) -> None:
        if number:
            may_open.wait(30)

    destination.admit = slow
    last = settled(moving(Archive(40, 2), destination), 40)
    assert last.completed == 40
    assert not may_open.is_set()
    may_open.set()
    assert destination.ways[1].rows == []


def test_cancel_is_obeyed_while_every_receiver_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "GRACE_S", 0.2)
    destination, cancelled = Destination(), threading.Event()

    def silent(way: Way) -> SendOutcome:
        if sum(len(one.rows) for one in destination.ways) < 10:
            return SendOutcome.SUCCESS
        cancelled.set()
        assert way.aborted.wait(10), "nobody aborted"
        raise PeerUnreachable

    destination.answer = silent
    archive = Archive(100, 3)
    last = settled(moving(archive, destination, cancelled.is_set), 100)
    assert last.remaining > 0
    assert last.completed + last.failed == len(destination.rows)
    assert 1 <= last.failed <= 3
    assert archive.usage["deliver"] == last.completed


def test_what_is_under_way_at_a_cancel_is_counted() -> None:
    destination, cancelled = Destination(), threading.Event()

    def slow(way: Way) -> SendOutcome:
        cancelled.set()
        time.sleep(0.3)
        return SendOutcome.SUCCESS

    destination.answer = slow
    last = settled(moving(Archive(100, 4), destination, cancelled.is_set), 100)
    assert last.completed == len(destination.rows)
    assert last.remaining == 100 - last.completed
    assert not any(way.rows and last.failed for way in destination.ways)


def test_who_stops_asking_ends_every_thread() -> None:
    destination = Destination()

    def waiting(way: Way) -> SendOutcome:
        way.aborted.wait(10)
        raise PeerUnreachable

    destination.answer = waiting
    progress = moving(Archive(100, 4), destination)
    assert next(progress).remaining == 100
    destination.answer = lambda way: SendOutcome.SUCCESS
    next(progress)
    destination.answer = waiting
    progress.close()  # type: ignore[attr-defined]
    assert until(lambda: not [one for one in threading.enumerate() if one.name == "move"])


def test_who_is_slow_to_listen_sets_the_pace() -> None:
    destination = Destination()
    progress = moving(Archive(1_000, 2), destination)
    next(progress)
    next(progress)
    time.sleep(0.3)
    assert len(destination.rows) <= 12
    assert settled(progress, 1_000).completed == 1_000


def test_instances_deleted_meanwhile_are_not_counted() -> None:
    archive, destination = Archive(30, 2), Destination()
    archive.gone = {3, 4, 29}
    last = list(moving(archive, destination))[-1]
    assert (last.remaining, last.completed, last.failed) == (0, 27, 0)


def test_an_index_that_fails_ends_the_retrieve_with_its_reason() -> None:
    archive, destination = Archive(250, 2), Destination()
    archive.broken_at = 150
    progress = moving(archive, destination)
    seen = []
    with pytest.raises(RecordsFailed):
        seen.extend(progress)
    assert seen[-1].completed == 100
    assert archive.usage["deliver"] == 100
