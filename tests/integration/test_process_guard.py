"""What processing leaves alone of others', and that no workitem of ours goes on for ever or shows its secrets."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset

from pacs.core.job_ports import JobContext
from pacs.core.processing import Keep, ProcessingOrder
from pacs.core.records import Job
from pacs.core.work import Hold, Permanent, Postpone
from pacs.core.workitem_errors import WorkitemTooLarge
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process import Input, workitem_of
from pacs.services.process.words import told_time
from pacs.services.workitems.encoding import encoded
from tests.forwarding import Scripted
from tests.integration.test_process_delivery import TO, home, viewer
from tests.integration.test_process_workitems import LOCAL, Home, reason, replaced
from tests.keeping import ADMIN, data_set, keep

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
    deliver = home.archive.extensions["process"].jobs["process.deliver"].handler

    def meddled(job: JobContext[Any]) -> object:
        if not job.parted:
            keep(home.archive, data_set(home.study, results(home)[0], FOREIGN))
        return deliver(job)

    replaced(home, "process.deliver", meddled)
    item = home.done("median", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert item.state is WorkitemState.COMPLETED
    ((series, uids),) = item.results().items()
    assert sorted(viewer.got) == sorted(uids) and FOREIGN not in viewer.got
    assert home.held(series) == [FOREIGN], "of ours all are gone"
    assert home.files(series) == 7


def test_what_others_sent_under_the_uid_of_a_result_is_not_taken_for_it(
    home: Home, viewer: Scripted
) -> None:
    deliver = home.archive.extensions["process"].jobs["process.deliver"].handler

    def meddled(job: JobContext[Any]) -> object:
        if not job.parted:
            keep(home.archive, data_set(home.study, *results(home)))
        return deliver(job)

    replaced(home, "process.deliver", meddled)
    item = home.done("mip", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert item.state is WorkitemState.CANCELED and viewer.got == []
    rows = home.archive.database.execute(
        "SELECT source_ae_title, deleted_by IS NULL FROM instance "
        "WHERE sop_instance_uid LIKE '2.25.%' ORDER BY object_id"
    )
    assert [bool(held) for _, held in rows] == [False, True], "ours is taken back, and only ours"


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


# --- every workitem ends --------------------------------------------------------------------


def settle(home: Home) -> None:
    """Have the chore done once."""
    with home.archive.records.transaction() as unit:
        unit.enqueue(Job(kind="process.settle", payload="{}", queue="chores"))
    home.work("chores")


def away(_: JobContext[Any]) -> object:
    raise Hold("the contract of VIEWER does not hold", after_s=3_600)


def expired(home: Home, uid: WorkitemUID) -> None:
    """Have it expire, as its requester may while nobody performs it."""
    change = Dataset()
    change.ScheduledProcedureStepExpirationDateTime = told_time(datetime(2020, 1, 1, tzinfo=UTC))
    home.archive.workitems.modify(LOCAL, uid, "", change)


def test_asked_to_be_cancelled_it_ends_though_its_destination_is_away(
    home: Home, viewer: Scripted
) -> None:
    replaced(home, "forward.send", away)
    uid, other = (home.ask(one, destinations=(TO,)) for one in ("mip", "median"))
    home.work()
    assert home.jobs("process.deliver") == ["blocked"] * 2
    settle(home)
    home.worklist.ask_cancel(uid, LOCAL)
    assert home.worklist.read(uid).state is WorkitemState.IN_PROGRESS
    settle(home)
    assert reason(home.worklist.read(uid)) == "cancelled as requested"
    assert home.worklist.read(other).state is WorkitemState.IN_PROGRESS
    assert sorted(home.jobs("process.deliver")) == ["blocked", "cancelled"]
    assert sorted(home.jobs("forward.send")) == ["cancelled", "waiting"]
    rows = home.archive.database.execute(
        "SELECT COUNT(*), COUNT(deleted_by) FROM instance WHERE sop_instance_uid LIKE '2.25.%'"
    )
    assert tuple(next(rows)) == (7, 1), "what the one made is taken back"


def test_what_waits_for_nodes_that_nobody_runs_expires(home: Home) -> None:
    uid, other = (home.ask("mip", group="nobody") for _ in range(2))
    expired(home, uid)
    home.work("process", "chores")
    settle(home)
    assert reason(home.worklist.read(uid)) == "the workitem has expired"
    assert home.worklist.read(other).state is WorkitemState.SCHEDULED
    assert sorted(home.jobs("process.workitem")) == ["cancelled", "waiting"]


@pytest.mark.parametrize("given_up", [False, True])
def test_a_workitem_without_room_for_anything_ends(home: Home, given_up: bool) -> None:
    made = workitem_of(
        ProcessingOrder(operation="mip"),
        [Input(study_instance_uid=home.study, series_instance_uid=home.series)],
        label="test",
    )
    most = home.archive.settings.workitems.max_bytes
    room = most - len(encoded(made, most_bytes=most)) - 300
    made.add_new(0x00091001, "OB", b"x" * (room // 2 * 2))
    uid = home.worklist.create(LOCAL, made)
    if given_up:

        def never(_: JobContext[Any]) -> object:
            raise Permanent("never")

        replaced(home, "process.workitem", never)
    home.work()
    settle(home)
    said = reason(home.worklist.read(uid))
    if given_up:
        assert said.startswith("the work failed again and again")
    else:
        assert said == "the workitem is too large to say in it what was done"
        assert home.jobs("process.workitem") == ["done"]


def test_many_results_are_named_by_their_series(home: Home) -> None:
    """With as much room as the series need, and not their instances."""
    modify, tried = home.archive.workitems.modify, []
    service: Any = home.archive.workitems

    def narrow(*arguments: Any) -> None:
        performed = arguments[3].get("UnifiedProcedureStepPerformedProcedureSequence")
        named = [
            each
            for item in performed or ()
            for one in item.OutputInformationSequence
            for each in one.ReferencedSOPSequence
        ]
        if named:
            tried.append(len(named))
            raise WorkitemTooLarge("too many")
        modify(*arguments)

    service.modify = narrow
    item = home.done("median")
    assert item.state is WorkitemState.COMPLETED and tried == [6]
    ((series, uids),) = item.results().items()
    assert uids == [] and len(home.held(series)) == 6
    said = item.performed.CommentsOnThePerformedProcedureStep
    assert said == "6 results in 1 series, too many to name them here"


def test_a_transaction_uid_is_shown_to_nobody(home: Home) -> None:
    uid = home.ask("median", destinations=(TO,))
    home.work()
    secret = home.archive.workitems.read(uid).transaction_uid
    assert secret
    for kind in ("process.workitem", "process.piece", "process.deliver"):
        rows = home.archive.jobs.list(ADMIN, kind=kind)
        shown = [home.archive.jobs.show(ADMIN, row.id)[0] for row in rows]
        assert rows and not any(secret in str(row) for row in [*rows, *shown])
        assert all(json.loads(row.payload)["uid"] == uid for row in rows)
