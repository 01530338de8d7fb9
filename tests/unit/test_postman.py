"""The postman between rows that fail and associations that keep it waiting."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from config.settings import Outbox as OutboxSettings
from pacs.core.caller import Caller, SubscriberName, Visibility
from pacs.core.errors import PeerUnreachable, RecordsFailed
from pacs.core.event_ports import EventDelivery
from pacs.core.events import Event, EventOutcome
from pacs.core.identifiers import AETitle, SOPClassUID
from pacs.core.records import Peer, Snapshot
from pacs.services.courier import Courier
from pacs.services.postman import Postman
from storage.database.connection import Database
from storage.database.outbox import OutboxTable
from storage.database.store import DatabaseRecords
from tests.association_fakes import FakeAudit, until
from tests.reporting import event_for

SETTINGS = OutboxSettings(poll_s=0.05, grace_s=0.1, lease_s=1.0, retry_s=0.1, max_retry_s=0.2)
CALLER = Caller(
    subscriber=SubscriberName("local"),
    rights=frozenset(),
    visibility=Visibility(),
    ae_title=AETitle("MODALITY"),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(DatabaseSettings(timeout_s=5), tmp_path)
    made.migrate()
    yield made
    made.close()


def post(database: Database, *events: Event) -> None:
    with DatabaseRecords(database, "first").transaction() as unit:
        for one in events:
            unit.post(one)


class Way:
    """An association that answers when it is told to."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.events: list[Event] = []
        self.waiting: list[Callable[[EventOutcome], None]] = []

    def carries(self, context_uid: SOPClassUID) -> bool:
        return True

    def post(self, event: Event, ended: Callable[[EventOutcome], None]) -> None:
        self.events.append(event)
        if self.answers:
            ended(EventOutcome(status=0))
        else:
            self.waiting.append(ended)


class GoneWay(Way):
    """An association that ends as something is posted on it."""

    def post(self, event: Event, ended: Callable[[EventOutcome], None]) -> None:
        self.events.append(event)
        raise PeerUnreachable


class Sender:
    """Calls that go wrong, and remembers them."""

    def __init__(self, failure: Exception) -> None:
        self._failure = failure
        self.called: list[AETitle] = []

    def open(
        self, peer: Peer, context_uids: Sequence[SOPClassUID]
    ) -> AbstractContextManager[EventDelivery]:
        self.called.append(peer.ae_title)
        raise self._failure


class Snapshots:
    """Everybody has an address; ``MODALITY`` is ``owner``'s device."""

    def __init__(self, owner: str | None = None) -> None:
        self.owner = owner

    def current(self) -> Snapshot:
        peers = [Peer(ae_title=AETitle(one), host="127.0.0.1", port=1) for one in ("MODALITY", "B")]
        if self.owner is not None:
            peers[0] = replace(peers[0], subscriber=SubscriberName(self.owner))
        return Snapshot(revision=1, peers={one.ae_title: one for one in peers})


@contextmanager
def delivering(
    rows: OutboxTable,
    sender: Sender | None = None,
    settings: OutboxSettings = SETTINGS,
    owner: str | None = None,
) -> Iterator[Postman]:
    courier = Courier(
        rows=rows,
        sender=sender or Sender(PeerUnreachable()),
        snapshots=Snapshots(owner),
        audit=FakeAudit(),
        settings=settings,
    )
    postman = Postman(courier, settings)
    postman.start()
    try:
        yield postman
    finally:
        postman.stop(10.0)


class FailingTable(OutboxTable):
    """Rows that cannot be reached a few times when something was delivered."""

    failures = 2

    def delivered(self, event_id: int) -> bool:
        if self.failures:
            self.failures -= 1
            raise RecordsFailed
        return super().delivered(event_id)


def test_an_answer_that_cannot_be_noted_is_noted_later_and_nothing_is_sent_twice(
    database: Database,
) -> None:
    rows, way = FailingTable(database, SETTINGS), Way()
    post(database, event_for("MODALITY", 1), event_for("MODALITY", 2))
    with delivering(rows) as postman, postman.opened(CALLER, way):
        assert until(lambda: rows.list(10) == [], 20)
    assert rows.failures == 0
    assert [one.information.rstrip(b"\0")[-1:] for one in way.events] == [b"1", b"2"]


def test_what_waits_on_a_busy_association_stays_claimed_and_no_other_gets_it(
    database: Database,
) -> None:
    rows, busy, other = OutboxTable(database, SETTINGS), Way(answers=False), Way()
    post(database, event_for("MODALITY"))
    with delivering(rows) as first, delivering(rows) as second, first.opened(CALLER, busy):
        assert until(lambda: len(busy.events) == 1)
        with second.opened(CALLER, other):
            time.sleep(2.5 * SETTINGS.lease_s)
            assert other.events == []
            busy.waiting[0](EventOutcome(status=0))
            assert until(lambda: rows.list(10) == [])
    assert (len(busy.events), other.events) == (1, [])


def test_a_process_that_ends_gives_back_what_it_could_not_send(database: Database) -> None:
    rows, busy, other = OutboxTable(database, SETTINGS), Way(answers=False), Way()
    post(database, event_for("MODALITY"))
    with delivering(rows) as first, first.opened(CALLER, busy):
        assert until(lambda: len(busy.events) == 1)
    assert [one.state for one in rows.list(10)] == ["waiting"]
    with delivering(rows) as second, second.opened(CALLER, other):
        assert until(lambda: rows.list(10) == [])
    assert len(other.events) == 1


def test_an_association_that_ends_meanwhile_costs_no_attempt(database: Database) -> None:
    rows, gone, there = OutboxTable(database, SETTINGS), GoneWay(), Way()
    post(database, event_for("MODALITY"))
    with delivering(rows) as postman:
        with postman.opened(CALLER, gone):
            assert until(lambda: len(gone.events) > 3)
        assert [one.attempts for one in rows.list(10)] in ([0], [1])
        with postman.opened(CALLER, there):
            assert until(lambda: rows.list(10) == [])


@pytest.mark.parametrize("failure", [PeerUnreachable(), RecordsFailed(), ValueError("a defect")])
def test_a_call_that_fails_is_made_again_later(database: Database, failure: Exception) -> None:
    rows, sender = OutboxTable(database, SETTINGS), Sender(failure)
    post(database, event_for("MODALITY"), event_for("B"))
    with delivering(rows, sender):
        assert until(lambda: min(map(sender.called.count, ("MODALITY", "B"))) >= 3, 30)
    assert [one.attempts for one in rows.list(10)] == [0, 0]
    assert threading.active_count() < 50


def test_a_device_that_became_another_subscriber_s_is_not_told(database: Database) -> None:
    rows, sender = OutboxTable(database, SETTINGS), Sender(PeerUnreachable())
    post(database, event_for("MODALITY"), event_for("B"))
    with delivering(rows, sender, owner="another"):
        assert until(lambda: sender.called.count(AETitle("B")) >= 3, 30)
    assert AETitle("MODALITY") not in sender.called
    assert [one.attempts for one in rows.list(10)] == [0, 0]
    with delivering(rows, sender, owner="local"):
        assert until(lambda: AETitle("MODALITY") in sender.called, 30)
