"""A worker in this process: what becomes of handlers that succeed, fail, wait, are cancelled or are late."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.settings import Jobs
from pacs.app.archive import Archive, open_archive
from pacs.app.extension import Attached, Extension
from pacs.app.worker import kinds_of, schedules_now_of, schedules_of
from pacs.core.attributes import Level
from pacs.core.errors import SettingsInvalid
from pacs.core.records import Job
from pacs.core.work import Hold, JobRow, JobState
from pacs.jobs.broker import connect
from pacs.jobs.keeper import Keeper
from pacs.jobs.kinds import JobKind, Schedule
from pacs.jobs.schedules import Scheduler, check_cron, latest, trigger
from pacs.jobs.worker import Worker, hold_s
from storage.database.tables import Kind
from tests.keeping import ADMIN, NO_CHORES, data_set, keep, loaded_for, opened, tables
from tests.tally import TALLY, effects, job

BOUND_S = 60.0


def ask(archive: Archive, *jobs: Job) -> None:
    with archive.ingest._records.transaction() as unit:
        for one in jobs:
            unit.enqueue(one)


def rows(archive: Archive) -> list[JobRow]:
    return list(reversed(archive.jobs.list(ADMIN)))


def states(archive: Archive) -> list[str]:
    return [one.state.value for one in rows(archive)]


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@contextmanager
def hands(archive: Archive, *queues: str, owner: str = "me") -> Iterator[Worker]:
    """Give a worker with its keeper."""
    given_up = threading.Event()
    keeper = Keeper(
        archive.job_table,
        Scheduler(archive.job_table, schedules_of(archive), "UTC"),
        archive.settings.jobs,
        owner=owner,
        give_up=given_up.set,
    )
    worker = Worker(
        archive.job_table, kinds_of(archive), archive.settings.jobs, keeper=keeper, queues=queues
    )
    keeper.start()
    yield worker
    keeper.stop()


@pytest.fixture
def archive(url: str, tmp_path: Path) -> Iterator[Archive]:
    with opened(
        tmp_path,
        url,
        extensions=(TALLY,),
        **NO_CHORES,
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def _with_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    from pacs.app import home

    monkeypatch.setattr(home, "installed", lambda: (TALLY,))


def worked(archive: Archive, *queues: str) -> None:
    """Work until nothing waits."""
    never = threading.Event()
    with hands(archive, *queues) as worker:
        worker.work(never)
        while any(one.state is JobState.DELAYED for one in rows(archive)):
            time.sleep(0.02)
            worker.work(never)


def test_done_with_its_effect_and_its_result(archive: Archive) -> None:
    ask(archive, job("count", 7))
    worked(archive)
    (row,) = rows(archive)
    assert (row.state, row.result, row.attempts) == (JobState.DONE, '{"n":7}', 1)
    assert effects(archive) == [7]


def test_failures_are_tried_again_and_end_in_the_dead_letters(archive: Archive) -> None:
    ask(
        archive,
        job("fail", 2),
        job("fail", 9),
        job("fail", 9, max_attempts=1),
        job("refuse"),
        Job(kind="tally.fail", payload='{"n": "many"}'),
        Job(kind="tally.fail", payload="no json"),
    )
    worked(archive)
    found = [(one.state.value, one.attempts) for one in rows(archive)]
    assert found == [("done", 3), *[("failed", one) for one in (3, 1, 1, 1, 1)]]
    assert [one.last_error.partition(":")[0] for one in rows(archive)] == [
        "", "Retry", "Retry", "Permanent", "Permanent", "Permanent"
    ]  # fmt: skip
    _, lines = archive.jobs.show(ADMIN, rows(archive)[0].id)
    assert [line for _, line in lines] == ["attempt 1", "attempt 2", "attempt 3"]
    archive.jobs.retry(ADMIN, rows(archive)[3].id)
    assert states(archive)[3] == "waiting"


def test_what_no_extension_here_knows_waits_for_one_that_does(archive: Archive) -> None:
    ask(archive, Job(kind="elsewhere.do", payload="{}"), job("postpone", wait_s=3_600))
    with hands(archive) as worker:
        worker.work(threading.Event())
    assert [(one.state.value, one.attempts) for one in rows(archive)] == [("delayed", 0)] * 2
    assert "elsewhere.do" in rows(archive)[0].last_error


def test_a_queue_whose_peer_is_away_waits_with_all_its_jobs(archive: Archive) -> None:
    ask(archive, *(job("away", 2, wait_s=3_600, alone=True, queue="part:a") for _ in range(4)))
    ask(archive, *(job("count", 7, queue="part:b") for _ in range(4)))
    with hands(archive) as worker:
        worker.work(threading.Event())
        assert [one.attempts for one in rows(archive)] == [0] * 4 + [1] * 4
        assert effects(archive) == [7] * 4, "the other queue went on"
        assert len([one for one in rows(archive) if one.last_error]) == 1
        assert "nobody answers" in rows(archive)[0].last_error

        def over() -> bool:
            with archive.database.transaction():  # every hold has ended
                archive.database.write("UPDATE job_queue SET held_until_utc = '2020'")
            worker.work(threading.Event())
            return states(archive) == ["done"] * 8

        until(over)
    assert [one.attempts for one in rows(archive)] == [1] * 8
    begun = [row[0] for row in archive.database.execute("SELECT job FROM tally_effect WHERE n = 2")]
    assert begun == sorted(begun)


def test_a_hold_grows_with_each_failure_and_is_never_nothing() -> None:
    settings = Jobs(hold_first_s=5, hold_max_s=300)
    for failures, full in ((1, 5), (2, 10), (4, 40), (7, 300), (10_000, 300)):
        found = {hold_s(settings, Hold("away"), failures) for _ in range(50)}
        assert full / 2 <= min(found) < max(found) <= full
    assert hold_s(settings, Hold("away", after_s=7), 9) == 7
    assert hold_s(settings, Hold("away", after_s=0), 9) > 0


def test_what_is_late_in_a_held_queue_is_found_without_a_claim(url: str, tmp_path: Path) -> None:
    settings = {
        "jobs__lease_s": "4",
        **NO_CHORES,
    }
    with opened(tmp_path, url, extensions=(TALLY,), **settings) as archive:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        ask(archive, job("away", 99), job("away", 99, deadline_utc=soon))
        with hands(archive) as worker:
            worker.work(threading.Event())
            until(lambda: states(archive) == ["waiting", "failed"])
        assert "deadline" in rows(archive)[1].last_error


def test_a_parent_sees_how_its_parts_ended(archive: Archive) -> None:
    ask(archive, job("family", 3), job("family", 0))
    worked(archive)
    assert [one.result for one in rows(archive)[:2]] == [
        '["done","done","done","failed"]',
        '["failed"]',
    ]
    assert effects(archive) == [0, 1, 2]


def test_cancelled_while_waiting_and_while_running(archive: Archive) -> None:
    ask(archive, job("count"), job("slow", wait_s=BOUND_S))
    waiting, running = (one.id for one in rows(archive))
    assert archive.jobs.cancel(ADMIN, waiting) is JobState.CANCELLED
    with hands(archive) as worker:
        thread = threading.Thread(target=worker.work, args=(threading.Event(),))
        thread.start()
        until(lambda: rows(archive)[1].progress_total == 2)
        assert archive.jobs.cancel(ADMIN, running) is JobState.RUNNING
        thread.join(BOUND_S)
    assert states(archive) == ["cancelled", "cancelled"]
    assert effects(archive) == []


def test_a_deadline_stops_it(archive: Archive) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    ask(archive, job("slow", wait_s=BOUND_S, deadline_utc=soon))
    worked(archive)
    (row,) = rows(archive)
    assert row.state is JobState.FAILED and "deadline" in row.last_error


def test_a_long_queue_starves_no_other(archive: Archive) -> None:
    ask(archive, *(job("count", 1, queue="default:long", priority=9) for _ in range(30)))
    ask(archive, *(job("count", 2, queue="default:short") for _ in range(3)), job("count", 3))
    with hands(archive, "default") as worker:
        worker.work(threading.Event())
    order = [
        row[0] for row in archive.database.execute("SELECT queue FROM job ORDER BY started_utc, id")
    ]
    assert order.index("default") < 3
    assert [at for at, one in enumerate(order) if one == "default:short"][-1] < 10


def test_in_each_of_several_queues_the_eighth_is_the_oldest(archive: Archive) -> None:
    """Queues that take turns do not share the count: it would come round at the same one."""
    queues = ("default:alpha", "default:beta")
    for queue in queues:
        ask(archive, job("count", 1, queue=queue, alone=True, priority=-1))
        ask(archive, *(job("count", 1, queue=queue, alone=True) for _ in range(12)))
    worked(archive)
    for queue in queues:
        begun = archive.database.execute(
            "SELECT priority FROM job WHERE queue = ? ORDER BY started_utc, id", (queue,)
        )
        assert [row[0] for row in begun].index(-1) == 7, queue


def test_a_worker_serves_its_queues_only(archive: Archive) -> None:
    ask(archive, job("count", 1, queue="part:a"), job("count", 2, queue="partner"), job("count", 3))
    with hands(archive, "part") as worker:
        worker.work(threading.Event())
    assert effects(archive) == [1]


def test_drained_in_time_or_given_back(archive: Archive, url: str, tmp_path: Path) -> None:
    ask(archive, job("stubborn", wait_s=6))
    with (
        open_archive(
            tmp_path,
            loaded_for(
                tmp_path,
                url,
                jobs__drain_timeout_s="0.5",
                **NO_CHORES,
            ),
            extensions=(TALLY,),
        ) as hurried,
        hands(hurried) as worker,
    ):
        stopping = threading.Event()
        thread = threading.Thread(target=worker.work, args=(stopping,))
        thread.start()
        until(lambda: states(archive) == ["running"])
        stopping.set()
        worker._keeper.drain()
        until(lambda: states(archive) == ["waiting"])
        thread.join(BOUND_S)
    (row,) = rows(archive)
    assert (row.state, row.attempts, row.crashes) == (JobState.WAITING, 0, 0)


def test_two_extensions_cannot_handle_one_kind(tmp_path: Path) -> None:
    kind = JobKind(handler=lambda _: None, payload=dict)
    doubled = Extension(name="doubled", attach=lambda *_: Attached(jobs={"tally.count": kind}))
    with (
        pytest.raises(SettingsInvalid, match=r"tally\.count"),
        opened(tmp_path, extensions=(TALLY, doubled)),
    ):
        pass


def test_reindex_leaves_jobs_as_they_are(archive: Archive) -> None:
    ask(archive, job("fail", 9), job("count", 1), job("family", 1), job("slow", wait_s=0))
    with hands(archive, "default") as worker:
        worker.work(threading.Event())
    archive.job_table.last_period("s")
    before = tables(archive.database, Kind.RECORD)
    assert before["job"] and before["job_log"] and before["job_schedule"]
    archive.reindex.run(ADMIN, lambda: None)
    assert tables(archive.database, Kind.RECORD) == before


def test_a_missed_period_is_made_up_for_once(archive: Archive) -> None:
    schedules = [replace(TALLY.attach(archive, TALLY.settings(cron="0 3 * * *")).schedules[0])]
    now = archive.job_table.now()
    archive.job_table.last_period("tally")
    with archive.database.transaction():
        archive.database.write(
            "UPDATE job_schedule SET last_period_utc = ?",
            ((now - timedelta(days=40)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),),
        )
    for _ in range(3):
        Scheduler(archive.job_table, schedules, "UTC").tick()
    (row,) = rows(archive)
    period = archive.job_table.last_period("tally")
    assert timedelta(0) <= now - period <= timedelta(days=1)
    assert period.hour == 3 and f"{period:%Y-%m-%d}" in row.cause


def test_schedules_change_while_workers_run(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    wanted: list[Schedule] = []
    nodes = [
        Scheduler(archive.job_table, (), "UTC", schedules_now=lambda: list(wanted))
        for _ in range(2)
    ]

    def fired(name: str) -> bool:
        for one in nodes:
            one.tick()
        return any(f"schedule {name} of" in row.cause for row in rows(archive))

    wanted.append(Schedule(name="broken", cron="61 * * * *", job=job("count", 1)))
    wanted.append(Schedule(name="never", cron="", job=job("count", 1)))
    wanted.append(Schedule(name="a", cron="0 0 1 1 *", job=job("count", 1)))
    assert not fired("a")
    wanted[2] = Schedule(name="a", cron="* * * * * *", job=job("count", 2))
    until(lambda: fired("a"))
    assert len([one for one in caplog.messages if "schedule-ignored name=broken" in one]) == 2
    (row,) = rows(archive)
    assert row.payload == job("count", 2).payload
    archive.jobs.cancel(ADMIN, row.id)
    del wanted[2]
    wanted.append(Schedule(name="b", cron="* * * * * *", job=job("count", 3)))
    until(lambda: fired("b"))
    periods = archive.job_table.last_period("b")
    until(lambda: fired("b") and archive.job_table.last_period("b") > periods)
    waiting = [one for one in rows(archive) if one.state is JobState.WAITING]
    assert [one.cause.split(" of ")[0] for one in waiting] == ["schedule b"], "a has stopped"


def test_what_an_extension_schedules_now_is_asked_for(archive: Archive) -> None:
    wanted = Schedule(name="later", cron="* * * * *", job=job("count", 1))
    attached = replace(archive.extensions["tally"], schedules_now=lambda: [wanted])
    extended = replace(archive, extensions={**archive.extensions, "tally": attached})
    assert schedules_now_of(extended) == [wanted]
    assert schedules_now_of(archive) == []


@pytest.mark.parametrize(
    ("cron", "after", "fires"),
    [
        ("*/5 * * * *", "2026-01-01T00:03", "2026-01-01T00:05"),
        ("0 0 * * 0", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("0 0 * * 7", "2026-01-01T00:00", "2026-01-04T00:00"),
        ("0 0 * * 1-5", "2026-01-02T00:00", "2026-01-05T00:00"),
        ("0 0 13 * 5", "2026-01-03T00:00", "2026-01-09T00:00"),
        ("30 15 10 1 2 *", "2026-01-01T00:00", "2026-02-01T10:15:30"),
    ],
)
def test_cron_is_read_as_cron_reads_it(cron: str, after: str, fires: str) -> None:
    begin, due = (datetime.fromisoformat(one).replace(tzinfo=UTC) for one in (after, fires))
    when = trigger(cron, UTC)
    assert latest(when, begin, due) == due
    assert latest(when, begin, due - timedelta(seconds=1)) is None


@pytest.mark.parametrize("cron", ["", "* * * *", "61 * * * *", "* * * * 9", "a b c d e"])
def test_a_broken_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(SettingsInvalid):
        trigger(cron, UTC)
    with pytest.raises(SettingsInvalid):
        check_cron(cron)


def test_an_expression_that_never_fires_is_refused() -> None:
    check_cron("0 0 29 2 *")
    with pytest.raises(SettingsInvalid, match="never"):
        check_cron("0 0 30 2 *")
    with pytest.raises(SettingsInvalid, match="characters"):
        check_cron("1," * 200 + "1 * * * *")


def test_a_job_longer_than_its_lease_stays_with_its_worker(tmp_path: Path) -> None:
    settings = {
        "jobs__lease_s": "4",
        **NO_CHORES,
    }
    with opened(tmp_path, extensions=(TALLY,), **settings) as archive:
        ask(archive, job("stubborn", wait_s=7))
        with hands(archive, owner="other"), hands(archive) as worker:
            worker.work(threading.Event())
        (row,) = archive.jobs.list(ADMIN, kind="tally.stubborn")
        assert (row.state, row.attempts, row.crashes) == (JobState.DONE, 1, 0)


def test_files_of_due_deletions_are_removed_by_schedule(url: str, tmp_path: Path) -> None:
    with opened(tmp_path, url, storage__deletion_delay_s="0") as archive:
        keep(archive, data_set("1.1", "1.1.1", "1.1.1.1"))
        archive.deletions.delete(ADMIN, Level.STUDY, "1.1", reason="r")
        assert list((tmp_path / "store").rglob("*.dcm"))
        archive.job_table.last_period("delete.purge")
        with archive.database.transaction():
            archive.database.write(
                "UPDATE job_schedule SET last_period_utc = '2026-01-01T00:00:00.000000Z'"
            )
        Scheduler(archive.job_table, schedules_of(archive), "UTC").tick()
        worked(archive)
        (row,) = archive.jobs.list(ADMIN, kind="delete.purge")
        assert (row.state, row.result) == (JobState.DONE, "1")
        assert not list((tmp_path / "store").rglob("*.dcm"))


@pytest.mark.parametrize("url", ["http://127.0.0.1", "memcached://127.0.0.1", "redis"])
def test_an_unknown_broker_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"jobs\.broker"):
        connect(url)
