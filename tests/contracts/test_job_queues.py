"""Queues keep their promises on both databases: who runs alone, who is held, who is brought forward."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.errors import EntryConflicts
from pacs.core.records import Job
from pacs.core.work import Claim, JobState
from storage.database.connection import Database
from storage.database.job_list import SINCE, JobList, load_sql
from storage.database.jobs import JobTable
from storage.database.store import DatabaseRecords

LEASE_S = 60.0
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
"""NOW is when the tests were collected; the last of them may run much later."""
INDEXES = {
    JobState.WAITING: "ready",
    JobState.DELAYED: "delayed",
    JobState.BLOCKED: "blocked",
    JobState.RUNNING: "running",
    JobState.FAILED: "failed",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    made = Database(DatabaseSettings(url=url), tmp_path)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def table(database: Database, woken: list[str]) -> JobTable:
    return JobTable(database, DatabaseRecords(database, "first", wake=woken.append))


@pytest.fixture
def jobs(database: Database) -> JobList:
    return JobList(database)


def ask(database: Database, *wanted: Job, woken: list[str] | None = None) -> None:
    wake = (lambda _: None) if woken is None else woken.append
    with DatabaseRecords(database, "first", wake=wake).transaction() as unit:
        for one in wanted:
            unit.enqueue(one)


def asked(payload: str, **more: object) -> Job:
    return replace(Job(kind="k", payload=payload, queue="q"), **more)  # type: ignore[arg-type]


def alone(payload: str, **more: object) -> Job:
    return asked(payload, alone=True, **more)


def taken(table: JobTable, queue: str = "q", **more: bool) -> Claim | None:
    return table.claim(queue, "me", LEASE_S, **more)


def claimed(table: JobTable, queue: str = "q", **more: bool) -> Claim:
    claim = taken(table, queue, **more)
    assert claim is not None
    return claim


def done(table: JobTable, claim: Claim) -> None:
    with table.finishing(claim, None):
        pass


def pause(failures: int) -> float:
    return 1_000.0 * failures


def over(database: Database, table: JobTable) -> None:
    """Let every hold have ended a moment ago."""
    with database.transaction():
        database.write(
            "UPDATE job_queue SET held_until_utc = ?",
            ((table.now() - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),),
        )


def held_s(database: Database, table: JobTable) -> float:
    (row,) = database.execute("SELECT held_until_utc FROM job_queue")
    until = datetime.strptime(row[0], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return (until - table.now()).total_seconds()


# --- alone ------------------------------------------------------------------------------


def test_while_one_that_is_alone_runs_no_other_such_one_of_its_queue_is_begun(
    table: JobTable, database: Database
) -> None:
    ask(database, alone("a"), alone("b"), asked("beside"), alone("elsewhere", queue="r"))
    first = claimed(table)
    assert first.payload == "a"
    assert claimed(table).payload == "beside"
    assert taken(table) is None
    assert list(table.queues()) == ["r"], "nothing of q can be begun"
    assert claimed(table, "r").payload == "elsewhere"
    done(table, first)
    assert list(table.queues()) == ["q"]
    assert claimed(table).payload == "b"


@pytest.mark.parametrize("back", ["hold", "later", "crash", "given back by retry"])
def test_alone_jobs_keep_their_order_when_they_were_put_back(
    back: str, table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, *(alone(one) for one in "abc"), alone("urgent", priority=1))
    done(table, claimed(table))
    first = claimed(table)
    assert first.payload == "a"
    if back == "hold":
        table.hold(first, "away", pause)
        over(database, table)
    elif back == "later":
        table.later(first, 0, "again", counts=True)
    elif back == "crash":
        assert table.release("me", 3) == 1
    else:
        table.fail(first, "broken")
        jobs.retry(first.id)
    order = []
    while (claim := taken(table, oldest=len(order) % 2 == 0)) is not None:
        order.append(claim.payload)
        done(table, claim)
    assert order == ["a", "b", "c"]


def test_priority_decides_between_those_alone_and_the_others(
    table: JobTable, database: Database
) -> None:
    ask(database, asked("a"), alone("b", priority=1), asked("c", priority=2), alone("d"))
    order = []
    while (claim := taken(table)) is not None:
        order.append(claim.payload)
        done(table, claim)
    assert order == ["c", "b", "a", "d"]


def test_the_oldest_is_the_first_asked_for_whatever_the_clocks_said(
    table: JobTable, database: Database
) -> None:
    ask(database, *(asked(one) for one in "abc"), alone("d"), alone("e", priority=9))
    with database.transaction():
        database.write("UPDATE job SET asked_utc = '2020' WHERE payload IN ('c', 'd')")
    order = []
    while (claim := taken(table, oldest=True)) is not None:
        order.append(claim.payload)
        done(table, claim)
    assert order == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("urgent", [(1,), (9, 1), (-1, 3, 2)])
def test_one_alone_of_low_priority_is_served_while_others_keep_coming(
    urgent: tuple[int, ...], table: JobTable, database: Database
) -> None:
    """Also one between the highest and the lowest that keep coming."""
    ask(database, alone("new 0", priority=9), alone("low"), alone("low too"))
    order = []
    for number in range(1, 41):
        ask(database, *(alone(f"new {number}", priority=one) for one in urgent))
        claim = claimed(table, oldest=number % 8 == 0)
        order.append(claim.payload)
        done(table, claim)
    assert [order.index("low"), order.index("low too")] == [7, 15]


def test_the_oldest_alone_is_of_its_own_queue_and_waits_for_the_one_that_runs(
    table: JobTable, database: Database
) -> None:
    ask(database, alone("elsewhere", queue="r"), asked("beside", queue="r", priority=-5))
    ask(database, alone("a"), alone("b", priority=-3), alone("c", priority=3))
    first = claimed(table, oldest=True)
    assert first.payload == "a"
    assert taken(table, oldest=True) is None
    done(table, first)
    assert claimed(table, oldest=True).payload == "b"
    assert [claimed(table, "r", oldest=True).payload for _ in "ab"] == ["elsewhere", "beside"]


class Crowd:
    """Workers that claim alone jobs as fast as they can, and note what they saw."""

    def __init__(self, table: JobTable, queues: tuple[str, ...], count: int) -> None:
        self._table, self._count = table, count
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._put_back: set[str] = set()
        self.order: dict[str, list[int]] = {one: [] for one in queues}
        self.clashes: list[str] = []

    def work(self, name: str) -> None:
        while any(len(one) < self._count for one in self.order.values()) and not self.clashes:
            for queue in self._table.queues():
                claim = self._table.claim(queue, name, LEASE_S, oldest=name in "02")
                if claim is not None:
                    self._run(claim)

    def _run(self, claim: Claim) -> None:
        with self._lock:
            if claim.queue in self._running:
                self.clashes.append(claim.payload)
            self._running.add(claim.queue)
            mark = f"{claim.queue} {claim.payload}"
            again = int(claim.payload) % 7 == 0 and mark not in self._put_back
            self._put_back.add(mark)
        if again:
            self._running.discard(claim.queue)
            self._table.later(claim, 0, "again", counts=False)
            return
        with self._table.finishing(claim, None), self._lock:
            self.order[claim.queue].append(int(claim.payload))
            self._running.discard(claim.queue)


def test_eight_claimers_run_one_alone_job_of_a_queue_at_a_time_and_in_order(
    table: JobTable, database: Database
) -> None:
    queues, count = ("q1", "q2", "q3"), 40
    for number in range(count):
        ask(database, *(alone(str(number), queue=one) for one in queues))
    crowd = Crowd(table, queues, count)
    threads = [
        threading.Thread(target=crowd.work, args=(str(one),), daemon=True) for one in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert not crowd.clashes
    assert crowd.order == {one: list(range(count)) for one in queues}


def test_a_claim_that_loses_the_race_has_nothing_and_is_no_error(
    postgres_url: str, tmp_path: Path
) -> None:
    """It cannot see the one that was asked for and begun meanwhile. On SQLite there is one writer."""
    database = Database(DatabaseSettings(url=postgres_url), tmp_path)
    database.migrate()
    table = JobTable(database, DatabaseRecords(database, "first"))
    ask(database, alone("loser"))
    found: list[Claim | None] = []
    other = threading.Thread(target=lambda: found.append(taken(table)))
    with database.transaction():
        database.write(
            "INSERT INTO job (kind, payload, queue, state, alone, asked_utc, lease_until_utc) "
            "VALUES ('k', 'winner', 'q', 'running', 1, '2026', '2999')"
        )
        other.start()
        other.join(0.5)
        assert other.is_alive(), "it waits for this transaction"
    other.join(60)
    assert found == [None]
    assert list(table.queues()) == []
    database.close()


def test_a_queue_of_a_hundred_thousand_that_run_alone_is_claimed_from_its_first_row(
    table: JobTable, database: Database
) -> None:
    series = {
        "sqlite": "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
        "WHERE n < 100000) SELECT n FROM c",
        "postgresql": "SELECT n FROM generate_series(1, 100000) AS n",
    }
    with database.transaction():
        database.write(
            "INSERT INTO job (kind, payload, queue, alone, asked_utc, deadline_utc) "
            "SELECT 'k', '' || n, 'q' || (n % 2), 1, '2026', '2999-01-01T00:00:00.000000Z' "
            f"FROM ({series[database.dialect]}) AS s"
        )
    first = claimed(table, "q1")
    assert first.payload == "1"
    assert list(table.queues()) == ["q0"]
    assert taken(table, "q1") is None
    table.hold(first, "away", pause)
    assert list(table.queues()) == ["q0"]
    if database.dialect == "sqlite":
        assert visited(database, lambda: taken(table, "q1")) < 200
        assert visited(database, table.queues) < 400
        assert visited(database, lambda: table.overdue(500)) < 100


def visited(database: Database, call: object) -> int:
    """Count, in hundreds of instructions of SQLite's machine, what a call makes it do."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with database.connection():
        connection = database.peewee.connection()
        connection.set_progress_handler(count, 100)
        try:
            call()  # type: ignore[operator]
        finally:
            connection.set_progress_handler(None, 0)
    return steps


# --- held -------------------------------------------------------------------------------


def test_a_held_queue_is_left_alone_and_its_job_keeps_its_place(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("a"), asked("b"), asked("c", queue="r"))
    first = claimed(table)
    table.hold(first, "Hold: the peer is away", pause)
    row = jobs.find(first.id)
    assert (row.state, row.attempts, row.last_error) == (
        JobState.WAITING,
        0,
        "Hold: the peer is away",
    )
    assert list(table.queues()) == ["r"]
    assert taken(table) is None
    assert taken(table, oldest=True) is None
    assert 900 < held_s(database, table) <= 1_000
    over(database, table)
    assert list(table.queues()) == ["q", "r"]
    assert claimed(table).id == first.id


def test_failures_in_a_row_are_counted_once_each_until_a_job_ends_well(
    table: JobTable, database: Database, woken: list[str]
) -> None:
    ask(database, asked("a"), asked("b"), asked("c"))
    for failures in (1, 2, 3):
        side_by_side = [claimed(table), claimed(table)]
        for one in side_by_side:
            table.hold(one, "away", pause)
        assert 1_000 * failures - 100 < held_s(database, table) <= 1_000 * failures
        over(database, table)
    table.fail(claimed(table), "broken")
    assert held_s(database, table) < 0, "it is not forgotten by a failure"
    woken.clear()
    done(table, claimed(table))
    assert list(database.execute("SELECT * FROM job_queue")) == []
    assert woken == ["q"], "others may help now"


def test_a_hold_that_is_longer_stays(table: JobTable, database: Database) -> None:
    ask(database, asked("a"), asked("b"))
    both = [claimed(table), claimed(table)]
    table.hold(both[0], "away", lambda _: 5_000.0)
    table.hold(both[1], "away", lambda _: 1.0)
    assert held_s(database, table) > 4_000


def test_an_administrator_sees_a_hold_and_lifts_it_by_a_job_that_waits(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, alone("a"), alone("b"), asked("c", queue="r"))
    table.hold(claimed(table), "Hold: away", pause)
    seen = {one.queue: one for one in jobs.depths()}
    assert seen["q"].held_why == "Hold: away"
    assert seen["q"].held_until_utc is not None
    assert seen["q"].held_until_utc > table.now().strftime("%Y-%m-%dT%H:%M:%S")
    assert seen["r"].held_until_utc is None
    (last, first) = jobs.list(None, None, "q", 10)
    assert [last.alone, jobs.list(None, None, "r", 10)[0].alone] == [True, False]
    jobs.retry(last.id)
    assert list(table.queues()) == ["q", "r"]
    assert claimed(table).id == first.id, "the order stays"
    with pytest.raises(EntryConflicts):
        jobs.retry(last.id)


def test_a_deadline_ends_what_waits_in_a_held_queue(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("parent", queue="parents"))
    table.part(claimed(table, "parents"), [asked(str(n), deadline_utc=NOW) for n in range(3)])
    ask(database, asked("away"), asked("late", deadline_utc=NOW, not_before_utc=NOW + DAY))
    ask(database, asked("in time", deadline_utc=NOW + DAY))
    with database.transaction():
        database.write("UPDATE job SET deadline_utc = NULL WHERE payload = '0'")
    table.hold(claimed(table), "away", pause)
    assert table.overdue(2) == 2
    assert table.overdue(2) == 1
    assert table.overdue(2) == 0
    failed = jobs.list(JobState.FAILED, None, None, 10)
    assert sorted(one.payload for one in failed) == ["1", "2", "late"]
    assert {one.last_error for one in failed} == {"its deadline passed before it was begun"}
    parent = next(database.execute("SELECT children_left FROM job WHERE payload = 'parent'"))
    assert parent[0] == 1, "the parts that failed are counted"


def test_queues_nothing_waits_in_are_forgotten_with_their_jobs(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("a"), asked("b", queue="r"))
    for queue in ("q", "r"):
        table.hold(claimed(table, queue), "away", pause)
    over(database, table)
    table.fail(claimed(table), "given up")
    jobs.purge((JobState.DONE,), 0)
    assert [row[0] for row in database.execute("SELECT queue FROM job_queue")] == ["r"]


def test_the_load_is_told_without_what_has_ended_well(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, *(asked(str(one)) for one in range(4)), asked("r", queue="r"))
    done(table, claimed(table))
    table.fail(claimed(table), "broken")
    table.hold(claimed(table), "away", pause)
    table.part(claimed(table, "r"), [asked("later", not_before_utc=NOW + DAY)])
    with database.transaction():
        database.write("UPDATE job SET asked_utc = '2020-01-01T00:00:00.000000Z'")
    load = {(one.queue, one.state.value): one for one in jobs.load()}
    assert {key: one.jobs for key, one in load.items()} == {
        ("q", "waiting"): 2,
        ("q", "failed"): 1,
        ("q", "delayed"): 1,
        ("r", "blocked"): 1,
    }
    assert load["q", "waiting"].oldest_s > 86_400
    assert 0 <= load["q", "failed"].oldest_s < 86_400
    (hold,) = jobs.holds()
    assert (hold.queue, hold.failures) == ("q", 1)
    assert 900 < hold.held_s <= 1_000


def test_the_load_is_told_from_indexes_however_many_have_ended(database: Database) -> None:
    series = {
        "sqlite": "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
        "WHERE n < 50000) SELECT n FROM c",
        "postgresql": "SELECT n FROM generate_series(1, 50000) AS n",
    }
    with database.transaction():
        database.write(
            "INSERT INTO job (kind, payload, queue, state, asked_utc, ended_utc) "
            "SELECT 'k', '{}', 'q' || (n % 9), CASE WHEN n % 1000 = 0 THEN 'waiting' ELSE 'done' "
            f"END, '2026', '2026' FROM ({series[database.dialect]}) AS s"
        )
        database.write("ANALYZE job")
    explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
    for state, since in SINCE.items():
        plan = str(list(database.execute(explain + load_sql(state, since))))
        assert f"job_{INDEXES[state]}" in plan, plan


# --- brought forward --------------------------------------------------------------------


def test_one_that_hastens_brings_forward_the_one_that_waits(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    later = asked("a", unique_key="once", not_before_utc=datetime.now(UTC) + DAY)
    ask(database, later)
    ask(database, asked("b", unique_key="once"))
    assert list(table.queues()) == [], "left as it is"
    woken: list[str] = []
    ask(database, asked("b", unique_key="once", hastens=True, queue="other"), woken=woken)
    (row,) = jobs.list(None, None, None, 10)
    assert (row.state, row.not_before_utc, row.payload) == (JobState.WAITING, None, "a")
    assert woken == ["q"], "the queue of the one that waits"
    assert claimed(table).payload == "a"
    ask(database, replace(later, hastens=True))
    assert [one.state.value for one in jobs.list(None, None, None, 10)] == ["delayed", "running"]


def test_one_that_was_put_off_after_a_failure_is_brought_forward_too(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("a", unique_key="once"))
    first = claimed(table)
    table.later(first, 3_600, "again", counts=True)
    ask(database, asked("a", unique_key="once", hastens=True))
    again = claimed(table)
    assert (again.id, again.attempts) == (first.id, 2)
