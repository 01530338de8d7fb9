"""The table of jobs keeps its promises on both databases: leases, order, keys, parts, log, schedules."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Database as DatabaseSettings
from pacs.core.errors import EntryConflicts
from pacs.core.records import Job
from pacs.core.work import Claim, JobState, LeaseLost
from storage.database.connection import Database
from storage.database.job_claim import claim_params, claim_sql
from storage.database.job_list import JobList
from storage.database.jobs import JobTable
from storage.database.store import DatabaseRecords

LEASE_S = 60.0
NOW = datetime.now(UTC)


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
def table(database: Database, tmp_path: Path) -> JobTable:
    return JobTable(database, DatabaseRecords(database, "first"))


@pytest.fixture
def jobs(database: Database) -> JobList:
    return JobList(database)


def ask(database: Database, *wanted: Job) -> None:
    with DatabaseRecords(database, "first").transaction() as unit:
        for one in wanted:
            unit.enqueue(one)


def asked(payload: str, **more: object) -> Job:
    return replace(Job(kind="k", payload=payload), **more)  # type: ignore[arg-type]


def claimed(table: JobTable, queue: str = "default", **more: bool) -> Claim:
    table.queues()
    claim = table.claim(queue, "me", LEASE_S, **more)
    assert claim is not None
    return claim


def done(table: JobTable, claim: Claim, result: str | None = None) -> None:
    with table.finishing(claim, result):
        pass


def states(jobs: JobList) -> list[str]:
    return [one.state.value for one in reversed(jobs.list(None, None, None, 1000))]


def overdue(database: Database) -> None:
    with database.transaction():
        database.write("UPDATE job SET lease_until_utc = '2020' WHERE state = 'running'")


def test_priority_goes_first_and_the_oldest_when_asked(table: JobTable, database: Database) -> None:
    ask(database, asked("a"), asked("b", priority=5), asked("c", priority=5), asked("d"))
    order = [claimed(table).payload, claimed(table, oldest=True).payload, claimed(table).payload]
    assert order == ["b", "a", "c"]
    assert claimed(table).payload == "d"
    assert table.claim("default", "me", LEASE_S) is None
    assert list(table.queues()) == []


def test_what_is_not_due_waits(table: JobTable, database: Database, jobs: JobList) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    ask(database, asked("a", not_before_utc=later), asked("b", not_before_utc=NOW))
    assert claimed(table).payload == "b"
    assert list(table.queues()) == []
    assert states(jobs) == ["delayed", "running"]
    with database.transaction():
        database.write("UPDATE job SET not_before_utc = '2020' WHERE state = 'delayed'")
    assert claimed(table).payload == "a"


def test_queues_with_work_are_told(table: JobTable, database: Database) -> None:
    ask(database, *(asked("x", queue=one) for one in ("b:2", "a", "b:1", "a")))
    assert list(table.queues()) == ["a", "b:1", "b:2"]
    assert table.claim("b", "me", LEASE_S) is None


def test_a_unique_key_holds_while_it_waits(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    key = asked("x", unique_key="once")
    ask(database, key)
    ask(database, key)
    first = claimed(table)
    ask(database, key)
    assert states(jobs) == ["running", "waiting"], "one that runs may have missed the cause"
    table.later(first, 0, "again", counts=True)
    assert states(jobs) == ["waiting", "waiting"], "neither is lost"
    second = claimed(table)
    done(table, claimed(table))
    table.later(second, 0, "again", counts=True)
    ask(database, key)
    assert states(jobs).count("waiting") == 1


def test_one_that_waits_is_not_begun_before_its_further_cause_is_committed(
    postgres_url: str, tmp_path: Path
) -> None:
    """On SQLite there is one writer anyway."""
    database = Database(DatabaseSettings(url=postgres_url), tmp_path)
    database.migrate()
    table = JobTable(database, DatabaseRecords(database, "first"))
    ask(database, asked("x", unique_key="once"))
    found: list[Claim | None] = []

    def claim() -> None:
        with database.connection():
            found.append(table.claim("default", "other", LEASE_S))

    with DatabaseRecords(database, "first").transaction() as unit:
        unit.enqueue(asked("x", unique_key="once"))
        other = threading.Thread(target=claim)
        other.start()
        other.join(30)
    assert found == [None]
    assert claimed(table).payload == "x"
    database.close()


def test_who_lost_the_lease_changes_nothing(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("x"))
    old = claimed(table)
    overdue(database)
    assert table.expire(3) == 1
    assert table.expire(3) == 0
    new = claimed(table)
    assert (new.id, new.attempts) == (old.id, 1)
    assert new.lease > old.lease
    with pytest.raises(LeaseLost), table.finishing(old, None) as unit:
        unit.enqueue(asked("effect"))
    for ending in (table.fail, table.drop):
        with pytest.raises(LeaseLost):
            ending(old, "too late")
    with pytest.raises(LeaseLost):
        table.later(old, 0, "too late", counts=True)
    assert not table.beat(old, LEASE_S).held
    assert table.beat(new, LEASE_S).held
    assert states(jobs) == ["running"]


def test_a_claim_that_a_crash_of_the_database_took_back_is_no_others(
    table: JobTable, database: Database
) -> None:
    ask(database, asked("x"))
    lost = claimed(table)
    with database.transaction():  # it was not flushed: the row is what it was before
        database.write(
            "UPDATE job SET state = 'waiting', lease = 0, attempts = 0, lease_owner = NULL, "
            "lease_until_utc = NULL"
        )
    new = claimed(table)
    assert not table.beat(lost, LEASE_S).held
    with pytest.raises(LeaseLost), table.finishing(lost, None):
        pass
    assert table.beat(new, LEASE_S).held


def test_effects_and_the_end_are_one_transaction(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("x"))
    claim = claimed(table)
    with pytest.raises(ZeroDivisionError), table.finishing(claim, "1") as unit:
        unit.enqueue(asked("effect"))
        raise ZeroDivisionError
    assert states(jobs) == ["running"]
    with table.finishing(claim, "1") as unit:
        unit.enqueue(asked("effect"))
    assert states(jobs) == ["done", "waiting"]
    assert jobs.find(claim.id).result == "1"


def test_a_worker_that_died_gives_back_at_once_and_the_third_time_it_is_given_up(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("x"))
    for crash in (1, 2, 3):
        claim = claimed(table)
        assert table.release("somebody else", 3) == 0
        assert table.release("me", 3) == 1
        assert jobs.find(claim.id).crashes == crash
    assert states(jobs) == ["failed"]
    jobs.retry(claim.id)
    assert claimed(table).attempts == 1


def test_a_parent_goes_on_when_all_parts_have_ended(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("parent"))
    parent = claimed(table)
    table.part(parent, [asked("1", queue="part"), asked("2", queue="part", unique_key="u")])
    assert states(jobs) == ["blocked", "waiting", "waiting"]
    done(table, claimed(table, "part"), '"one"')
    assert table.claim("default", "me", LEASE_S) is None
    table.fail(claimed(table, "part"), "broken")
    again = claimed(table)
    assert again.id == parent.id and again.has_children and again.attempts == 1
    assert [(one.state, one.result, one.error) for one in table.parts(again)] == [
        (JobState.DONE, '"one"', ""),
        (JobState.FAILED, None, "broken"),
    ]
    done(table, again)


def test_cancelling_a_parent_cancels_its_parts(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("parent"))
    parent = claimed(table)
    table.part(parent, [asked("1"), asked("2")])
    running = claimed(table)
    assert jobs.cancel(parent.id) is JobState.CANCELLED
    assert states(jobs) == ["cancelled", "running", "cancelled"]
    assert table.beat(running, None).cancel_asked
    table.drop(running, "cancelled")
    assert states(jobs) == ["cancelled"] * 3
    with pytest.raises(EntryConflicts):
        jobs.cancel(parent.id)


def test_a_deadline_that_passed_ends_it_unbegun(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("late", deadline_utc=NOW - timedelta(seconds=1)), asked("x"))
    assert claimed(table).payload == "x"
    assert states(jobs) == ["failed", "running"]


def test_the_log_is_bounded(table: JobTable, database: Database, jobs: JobList) -> None:
    ask(database, asked("x"))
    claim = claimed(table)
    table.note(claim, (1, 9), ["a", "b" * 5_000], keep=3)
    table.note(claim, None, ["c", "d"], keep=3)
    assert [line[:1] for _, line in jobs.lines(claim.id)] == ["b", "c", "d"]
    assert max(len(line) for _, line in jobs.lines(claim.id)) == 2_000
    assert jobs.find(claim.id).progress_total == 9


def test_a_purge_keeps_dead_letters_and_parts_that_are_needed(
    table: JobTable, database: Database, jobs: JobList
) -> None:
    ask(database, asked("parent"), asked("done"), asked("dead"))
    parent = claimed(table)
    done(table, claimed(table))
    table.fail(claimed(table), "dead")
    table.part(parent, [asked("1", queue="part"), asked("2", queue="part")])
    part = claimed(table, "part")
    table.note(part, None, ["said"], keep=3)
    done(table, part)
    assert jobs.purge((JobState.DONE, JobState.CANCELLED), 3_600) == 0
    assert jobs.purge((JobState.DONE, JobState.CANCELLED), -1) == 1
    assert states(jobs) == ["blocked", "failed", "done", "waiting"]
    assert jobs.purge((JobState.FAILED,), -1) == 1
    assert {one.queue: one.jobs for one in jobs.depths() if one.state is JobState.DONE} == {
        "part": 1
    }


def test_a_period_fires_once_whoever_asks(table: JobTable, database: Database) -> None:
    begun = table.last_period("s")
    assert table.last_period("s") == begun
    period = begun + timedelta(minutes=1)
    fired: list[bool] = []
    threads = [
        threading.Thread(target=lambda: fired.append(table.fire("s", period, asked("x"))))
        for _ in range(4)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(fired) == [False, False, False, True]
    assert table.last_period("s") == period
    assert not table.fire("s", begun, asked("x"))
    assert next(database.execute("SELECT COUNT(*) FROM job"))[0] == 1


def test_eight_workers_claim_each_job_once(table: JobTable, database: Database) -> None:
    ask(database, *(asked(str(one)) for one in range(160)))
    taken: list[str] = []

    def work(owner: str) -> None:
        while (claim := table.claim("default", owner, LEASE_S)) is not None:
            taken.append(claim.payload)
            done(table, claim)

    threads = [threading.Thread(target=work, args=(str(one),)) for one in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert Counter(taken) == Counter(str(one) for one in range(160))


def test_a_claim_reads_one_row_of_a_hundred_thousand(table: JobTable, database: Database) -> None:
    series = {
        "sqlite": "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c "
        "WHERE n < 100000) SELECT n FROM c",
        "postgresql": "SELECT n FROM generate_series(1, 100000) AS n",
    }
    with database.transaction():
        database.write(
            "INSERT INTO job (kind, payload, queue, priority, state, not_before_utc, asked_utc) "
            "SELECT 'k', '{}', 'q' || (n % 3), n % 5, CASE n % 2 WHEN 0 THEN 'waiting' "
            f"ELSE 'delayed' END, '2999', '2026' FROM ({series[database.dialect]}) AS s"
        )
        database.write("ANALYZE job")
    for oldest, index in ((False, "job_ready"), (True, "job_oldest")):
        explain = "EXPLAIN QUERY PLAN " if database.dialect == "sqlite" else "EXPLAIN "
        with database.transaction():
            sql = explain + claim_sql(database.dialect, oldest=oldest)
            plan = str(database.write(sql, claim_params("q1", "o", "u", "n")).fetchall())
        assert index in plan
        assert "TEMP B-TREE" not in plan and "Sort" not in plan and "Seq Scan" not in plan
    assert list(table.queues()) == ["q0", "q1", "q2"]
    assert claimed(table, "q1").kind == "k"
