"""The promises of the outbox's rows, kept by both back ends."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from config.settings import Database as DatabaseSettings
from config.settings import Outbox as OutboxSettings
from pacs.core.errors import EntryConflicts, EntryNotFound, EventTooLarge, OutboxFull
from pacs.core.events import Addressee, Event, EventOutcome
from pacs.core.identifiers import AETitle, Registrant, SOPClassUID, SOPInstanceUID
from storage.database.connection import Database
from storage.database.outbox import OutboxTable
from storage.database.store import DatabaseRecords

COMMITMENT = SOPClassUID("1.2.840.10008.1.20.1")
HERE = Addressee(ae_title=AETitle("MODALITY"), registrant=Registrant("local"))
BOUNDS = OutboxSettings(max_events_per_peer=4, max_events=6, max_event_bytes=100, lease_s=20.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    made = Database(DatabaseSettings(url=url, timeout_s=60), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def table(database: Database) -> OutboxTable:
    return OutboxTable(database, BOUNDS)


def event(instance: str = "1.1", addressee: Addressee = HERE, **more: object) -> Event:
    made = Event(
        addressee=addressee,
        sop_class_uid=COMMITMENT,
        sop_instance_uid=SOPInstanceUID(instance),
        event_type_id=1,
        information=b"\x08\x00\x16\x00UI\x02\x001\x00",
    )
    return replace(made, **more)  # type: ignore[arg-type]


def post(database: Database, *events: Event) -> list[int]:
    with DatabaseRecords(database, "first", BOUNDS).transaction() as unit:
        return [unit.post(one) for one in events]


def passed(database: Database, seconds: float) -> None:
    """Let so much time have passed: everything noted is as much older, and as much nearer."""
    ms = round(seconds * 1_000)
    with database.transaction():
        database.write(
            f"UPDATE outbox SET asked_ms = asked_ms - {ms}, due_ms = due_ms - {ms}, "
            f"expires_ms = expires_ms - {ms}"
        )
        database.write(f"UPDATE outbox_call SET not_before_ms = not_before_ms - {ms}")


def states(table: OutboxTable) -> list[tuple[int, str]]:
    return [(one.id, one.state) for one in table.list(100)]


def claim(table: OutboxTable, owner: str = "a", addressee: Addressee = HERE) -> int | None:
    claimed = table.claim(owner, addressee, (COMMITMENT,))
    return None if claimed is None else claimed.id


def test_an_event_is_claimed_once_and_gone_when_delivered(
    database: Database, table: OutboxTable
) -> None:
    (number,) = post(database, event())
    claimed = table.claim("a", HERE, (COMMITMENT,))
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (number, 1)
    assert claimed.event == event(context_uid=COMMITMENT)
    assert states(table) == [(number, "sending")]
    assert table.waiting() == []
    assert claim(table, "b") is None
    assert table.delivered(number)
    assert states(table) == []


def test_nothing_is_posted_by_a_transaction_that_fails(
    database: Database, table: OutboxTable
) -> None:
    records = DatabaseRecords(database, "first", BOUNDS)
    told: list[bool] = []
    records.on_posted = lambda: told.append(True)

    def interrupted() -> None:
        with records.transaction() as unit:
            unit.post(event())
            raise KeyError("the caller failed")

    with pytest.raises(KeyError):
        interrupted()
    assert (states(table), told) == ([], [])
    with records.transaction() as unit:
        unit.post(event())
        assert told == [], "before it is committed nobody is told"
    assert told == [True]


def test_only_its_addressee_and_context_get_it(database: Database, table: OutboxTable) -> None:
    (number,) = post(database, event())
    other_subscriber = replace(HERE, registrant=Registrant("other"))
    assert claim(table, addressee=other_subscriber) is None
    assert claim(table, addressee=replace(HERE, ae_title=AETitle("MODALITY2"))) is None
    assert table.claim("a", HERE, (SOPClassUID("1.2.3"),)) is None
    assert table.claim("a", HERE, ()) is None
    assert claim(table) == number


def test_the_order_for_one_instance_is_kept(database: Database, table: OutboxTable) -> None:
    first, second, other = post(database, event(), event(event_type_id=2), event("1.2"))
    assert claim(table) == first
    assert claim(table) == other, "another instance does not wait"
    assert claim(table) is None, "the second event of the first instance does"
    table.failed(first, "a", trouble="lost", again_s=100.0)
    assert claim(table) is None
    assert table.waiting() == [], "what is not its turn wakes nobody"
    table.failed(first, "a", trouble="x", again_s=None)
    assert claim(table) is None, "a claim that was given back is not its former owner's"
    table.cancel(first)
    assert claim(table) == second


def test_a_claim_ends_with_its_lease_unless_renewed(database: Database) -> None:
    table = OutboxTable(database, msgspec.structs.replace(BOUNDS, lease_s=100.0))
    (number,) = post(database, event())
    assert claim(table, "died") == number
    for _ in range(3):
        passed(database, 50.0)
        table.renew("died")
    assert claim(table, "b") is None
    passed(database, 101.0)
    assert claim(table, "b") == number
    table.failed(number, "died", trouble="too late", again_s=None)
    assert states(table) == [(number, "sending")]
    (listed,) = table.list(10)
    assert (listed.attempts, listed.trouble) == (2, "")
    assert table.delivered(number), "whoever hears the peer's answer may say so"


def test_a_failure_waits_and_the_last_one_is_dead(database: Database, table: OutboxTable) -> None:
    (number,) = post(database, event())
    assert claim(table) == number
    table.failed(number, "a", trouble="status 0110", again_s=100.0)
    assert claim(table) is None
    assert states(table) == [(number, "waiting")]
    passed(database, 101.0)
    assert claim(table) == number
    table.failed(number, "a", trouble="status 0110", again_s=None)
    assert states(table) == [(number, "dead")]
    assert (claim(table), table.waiting()) == (None, [])
    table.retry(number)
    (listed,) = table.list(10)
    assert (listed.state, listed.attempts, listed.trouble) == ("waiting", 0, "status 0110")
    assert claim(table) == number
    with pytest.raises(EntryNotFound):
        table.retry(number + 1)
    with pytest.raises(EntryNotFound):
        table.cancel(number + 1)


def test_what_was_not_sent_is_free_at_once(database: Database, table: OutboxTable) -> None:
    first, _ = post(database, event(), event("1.2"))
    assert claim(table) == first
    table.unsent(first, "b")
    assert claim(table, "c") != first
    table.unsent(first, "a")
    claimed = table.claim("b", HERE, (COMMITMENT,))
    assert claimed is not None
    assert (claimed.id, claimed.attempts) == (first, 1)
    table.release("b")
    assert claim(table, "d") == first


def test_what_expires_is_kept_as_dead(database: Database, table: OutboxTable) -> None:
    gone, sent, stays = post(
        database, event(expires_s=100.0), event("1.2", expires_s=100.0), event("1.3")
    )
    assert table.expire() == 0
    assert claim(table) == gone
    table.failed(gone, "a", trouble="lost", again_s=1_000.0)
    assert claim(table) == sent
    passed(database, 100.1)
    with database.transaction():  # its lease goes on
        database.write("UPDATE outbox SET due_ms = due_ms + 100100 WHERE id = ?", (sent,))
    assert table.expire() == 1
    assert states(table) == [(gone, "dead"), (sent, "sending"), (stays, "waiting")]
    assert [one.trouble for one in table.list(10)] == ["lost", "", ""]
    table.failed(sent, "a", trouble="status 0110", again_s=0.0)
    passed(database, 1.0)
    assert claim(table) == stays, "what is over is not sent again"
    assert table.expire() == 1


def test_the_bounds_hold_and_the_dead_make_room(database: Database, table: OutboxTable) -> None:
    with pytest.raises(EventTooLarge):
        post(database, event(information=bytes(101)))
    numbers = post(database, *(event(f"1.{count}") for count in range(4)))
    with pytest.raises(OutboxFull):
        post(database, event("1.9"))
    assert claim(table) == numbers[0]
    table.failed(numbers[0], "a", trouble="lost", again_s=None)
    (further,) = post(database, event("1.9"))
    assert [number for number, _ in states(table)] == [*numbers[1:], further]
    elsewhere = replace(HERE, ae_title=AETitle("ELSEWHERE"))
    post(database, *(event(f"1.{count}", elsewhere) for count in range(2)))
    with pytest.raises(OutboxFull):
        post(database, event("1.3", replace(HERE, ae_title=AETitle("THIRD"))))


def test_a_number_is_never_given_twice(database: Database, table: OutboxTable) -> None:
    (first,) = post(database, event())
    table.cancel(first)
    (second,) = post(database, event())
    assert second > first


def test_one_calls_a_peer_at_a_time_and_waits_after_failures(
    database: Database, table: OutboxTable
) -> None:
    post(database, event())
    assert [one.callable for one in table.waiting()] == [True]
    assert table.begin_call(HERE)
    assert not table.begin_call(HERE)
    assert [one.callable for one in table.waiting()] == [False]
    assert table.begin_call(replace(HERE, registrant=Registrant("other")))
    seen: list[int] = []

    def again_s(failures: int) -> float:
        seen.append(failures)
        return 100.0

    table.end_call(HERE, again_s)
    assert not table.begin_call(HERE)
    passed(database, 101.0)
    assert table.begin_call(HERE)
    table.end_call(HERE, again_s)
    assert seen == [1, 2]
    passed(database, 101.0)
    assert table.begin_call(HERE)
    table.end_call(HERE, None)
    assert table.begin_call(HERE)


def test_a_retry_does_not_wait_for_the_peers_turn(database: Database, table: OutboxTable) -> None:
    (number,) = post(database, event())
    assert table.begin_call(HERE)
    table.end_call(HERE, lambda _: 1_000.0)
    table.retry(number)
    assert table.begin_call(HERE)


def test_many_claimers_share_without_doubling(database: Database) -> None:
    bounds = msgspec.structs.replace(BOUNDS, max_events_per_peer=100, max_events=100)
    table = OutboxTable(database, bounds)
    with DatabaseRecords(database, "first", bounds).transaction() as unit:
        numbers = [unit.post(event(f"1.{count % 7}")) for count in range(40)]
    taken: list[int] = []
    lock = threading.Lock()

    def work(owner: str) -> None:
        idle = 0
        while idle < 20:
            claimed = table.claim(owner, HERE, (COMMITMENT,))
            if claimed is None:
                idle += 1
                time.sleep(0.01)
                continue
            with lock:
                taken.append(claimed.id)
            table.delivered(claimed.id)

    threads = [threading.Thread(target=work, args=(str(one),)) for one in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(taken) == numbers
    for instance in range(7):
        own = [one for one in taken if (one - numbers[0]) % 7 == instance]
        assert own == sorted(own), "in the order posted"


@pytest.mark.parametrize(
    "wrong",
    [
        {"addressee": replace(HERE, ae_title=AETitle("A\\B"))},
        {"addressee": replace(HERE, registrant=Registrant(""))},
        {"sop_class_uid": "x"},
        {"sop_instance_uid": ""},
        {"context_uid": "x"},
        {"event_type_id": 65_536},
        {"expires_s": 0.0},
    ],
)
def test_what_could_never_be_sent_is_no_event(wrong: dict[str, object]) -> None:
    with pytest.raises(EntryConflicts):
        event(**wrong)


@pytest.mark.parametrize(
    ("status", "delivered"),
    [(0, True), (1, True), (0x107, True), (0x116, True), (0xB123, True), (0x110, False),
     (0x211, False), (0xC000, False), (0xFF00, False), (None, False)],
)  # fmt: skip
def test_success_and_warning_deliver(status: int | None, delivered: bool) -> None:
    assert EventOutcome(status=status).delivered is delivered
