"""Workitems whose job will not go on end as well, and say why; what others do with theirs is left alone."""

from typing import Any

import pytest

from pacs.core.job_ports import JobContext
from pacs.core.records import Job
from pacs.core.work import JobState, Permanent
from pacs.core.workitems import WorkitemState
from tests.integration.test_process_workitems import Home, home, reason, replaced
from tests.keeping import ADMIN

__all__ = ["home"]


def settle(home: Home) -> None:
    """Have the chore done once."""
    with home.archive.records.transaction() as unit:
        unit.enqueue(Job(kind="process.settle", payload="{}", queue="chores"))
    home.work()


def derived(home: Home) -> tuple[int, int]:
    """How many results are kept, and how many of them are deleted."""
    rows = home.archive.database.execute(
        "SELECT COUNT(*), COUNT(deleted_by) FROM instance WHERE sop_instance_uid LIKE '2.25.%'"
    )
    kept, deleted = next(rows)
    return int(kept), int(deleted)


@pytest.mark.parametrize("claimed", [False, True])
def test_a_job_that_was_cancelled_ends_its_workitem(home: Home, claimed: bool) -> None:
    uid = home.ask("median")
    if claimed:

        def stop(_: JobContext[Any]) -> object:
            raise Permanent("no disk")

        replaced(home, "process.piece", stop)
        kind = home.archive.extensions["process"].jobs["process.workitem"]

        def workitem(job: JobContext[Any]) -> object:
            if job.parted:
                raise Permanent("never to be gathered")
            return kind.handler(job)

        replaced(home, "process.workitem", workitem)
        home.work()
        assert home.worklist.read(uid).state is WorkitemState.IN_PROGRESS
    else:
        (job,) = home.archive.jobs.list(ADMIN, kind="process.workitem")
        assert home.archive.jobs.cancel(ADMIN, job.id) is JobState.CANCELLED
        assert home.worklist.read(uid).state is WorkitemState.SCHEDULED
    settle(home)
    said = reason(home.worklist.read(uid))
    assert said.startswith(
        "the work failed again and again" if claimed else "the work was cancelled by an admin"
    )
    settle(home)
    assert reason(home.worklist.read(uid)) == said


def test_what_was_made_is_taken_back_and_what_is_under_way_goes_on(home: Home) -> None:
    uid = home.ask("median")
    kinds = dict(home.archive.extensions["process"].jobs)
    settled: list[object] = []

    def piece(job: JobContext[Any]) -> object:
        result = kinds["process.piece"].handler(job)
        settled.append(kinds["process.settle"].handler(job))
        return result

    def workitem(job: JobContext[Any]) -> object:
        if job.parted:
            raise Permanent("never to be gathered")
        return kinds["process.workitem"].handler(job)

    replaced(home, "process.piece", piece)
    replaced(home, "process.workitem", workitem)
    home.work()
    assert settled == [0, 0, 0], "nothing is given up while it goes on"
    assert home.worklist.read(uid).state is WorkitemState.IN_PROGRESS
    assert derived(home) == (6, 0)
    settle(home)
    assert "failed again and again" in reason(home.worklist.read(uid))
    assert derived(home) == (6, 6)


def test_results_stay_where_only_sending_them_on_was_given_up(home: Home) -> None:
    uid = home.ask("median")

    def deliver(_: JobContext[Any]) -> object:
        raise Permanent("never")

    replaced(home, "process.deliver", deliver)
    home.work()
    settle(home)
    assert "sending the results on failed" in reason(home.worklist.read(uid))
    assert derived(home) == (6, 0)
