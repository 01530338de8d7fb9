"""What processing leaves alone: what others have stored beside its results, and results that others were given."""

from typing import Any

from pacs.core.job_ports import JobContext
from pacs.core.processing import Keep
from pacs.core.work import Postpone
from pacs.core.workitems import WorkitemState
from tests.forwarding import Scripted
from tests.integration.test_process_delivery import TO, home, viewer
from tests.integration.test_process_workitems import LOCAL, Home, reason, replaced
from tests.keeping import data_set, keep

__all__ = ["home", "viewer"]

FOREIGN = "1.2.3.4.5.6"


def results(home: Home) -> tuple[str, str]:
    """The series of results that there is, and one of them."""
    rows = home.archive.database.execute(
        "SELECT e.series_instance_uid, i.sop_instance_uid FROM instance i "
        "JOIN series e ON e.id = i.series_row WHERE i.sop_instance_uid LIKE '2.25.%'"
    )
    series, uid = next(rows)
    return str(series), str(uid)


def due(home: Home) -> None:
    """Let what is delayed be due."""
    with home.archive.database.transaction():
        home.archive.database.write(
            "UPDATE job SET not_before_utc = '2020' WHERE state = 'delayed'"
        )


def test_what_others_put_into_the_series_is_neither_sent_nor_deleted(
    home: Home, viewer: Scripted
) -> None:
    """Of a UID of its own, and of the UID of a result."""
    deliver = home.archive.extensions["process"].jobs["process.deliver"].handler

    def meddled(job: JobContext[Any]) -> object:
        if not job.parted:
            series, uid = results(home)
            keep(home.archive, data_set(home.study, series, FOREIGN))
            keep(home.archive, data_set(home.study, series, uid))
        return deliver(job)

    replaced(home, "process.deliver", meddled)
    item = home.done("median", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert item.state is WorkitemState.COMPLETED, reason(item)
    ((series, uids),) = item.results().items()
    assert sorted(viewer.got) == sorted(uids) and FOREIGN not in viewer.got
    assert home.held(series) == sorted([FOREIGN, results(home)[1]]), "of ours all are gone"
    assert home.files(series) == 8


def test_what_a_cancelled_workitem_made_is_nobody_elses(home: Home) -> None:
    """All is computed when the second asks; the first is cancelled before it has gathered it."""
    handler = home.archive.extensions["process"].jobs["process.workitem"].handler
    first, held = home.ask("median"), [True]

    def slow(job: JobContext[Any]) -> object:
        if job.parted and job.payload.uid == first and held:
            raise Postpone("held for the test", after_s=3_600)
        return handler(job)

    replaced(home, "process.workitem", slow)
    home.work()
    assert home.jobs("process.piece") == ["done"] * 3
    second = home.done("median")
    assert second.state is WorkitemState.COMPLETED
    ((series, uids),) = second.results().items()
    held.clear()
    home.worklist.ask_cancel(first, LOCAL)
    due(home)
    home.work()
    assert reason(home.worklist.read(first)) == "cancelled as requested"
    assert home.held(series) == sorted(uids)
    assert [*home.done("median").results()] == [series], "what is COMPLETED is given again"
