"""Results of workitems on their way: to every destination, kept or not, again where they are asked for again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacs.core.caller import Caller
from pacs.core.identifiers import AETitle
from pacs.core.job_ports import JobContext
from pacs.core.processing import Keep
from pacs.core.workitems import WorkitemState
from tests.forwarding import QUICK, Scripted, known, receiver
from tests.integration.test_process_workitems import LOCAL, Home, home_of, reason, replaced
from tests.keeping import caller_of

TO = AETitle("VIEWER")


@pytest.fixture(scope="module")
def viewer() -> Iterator[Scripted]:
    with receiver() as script:
        yield script


@pytest.fixture
def home(tmp_path: Path, viewer: Scripted) -> Iterator[Home]:
    viewer.got.clear()
    viewer.default = 0
    with home_of(tmp_path, **{**QUICK, "process__piece_images": "2"}) as made:
        known(made.archive, TO, viewer.port)
        yield made


def test_results_are_sent_and_stay(home: Home, viewer: Scripted) -> None:
    item = home.done("median", destinations=(TO,))
    assert item.state is WorkitemState.COMPLETED
    ((series, uids),) = item.results().items()
    assert sorted(viewer.got) == sorted(uids) == home.held(series)
    (output,) = item.performed.OutputInformationSequence
    assert output.DICOMRetrievalSequence[0].RetrieveAETitle == ["PACS", "VIEWER"]


def test_asked_for_again_they_are_sent_again(home: Home, viewer: Scripted) -> None:
    (series,) = home.done("median", destinations=(TO,)).results()
    first = sorted(viewer.got)
    viewer.got.clear()
    again = home.done("median", destinations=(TO,))
    assert sorted(viewer.got) == first == home.held(series) and [*again.results()] == [series]
    assert len(home.jobs("process.piece")) == 3


def test_until_done_they_go_once_everybody_has_them_and_the_sources_stay(
    home: Home, viewer: Scripted
) -> None:
    item = home.done("median", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert item.state is WorkitemState.COMPLETED
    ((series, uids),) = item.results().items()
    assert sorted(viewer.got) == sorted(uids)
    assert home.held(series) == [] and home.files(series) == 6, "deleted by the journal"
    (output,) = item.performed.OutputInformationSequence
    assert output.DICOMRetrievalSequence[0].RetrieveAETitle == "VIEWER"
    assert home.held(home.series) == sorted(one.SOPInstanceUID for one in home.images)
    kept = home.done("median")
    assert kept.results() and [*kept.results()] != [series], "nobody is given what goes away"
    once = home.done("median", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert once.results() == kept.results()
    assert home.held(next(iter(kept.results()))) != [], "those of another workitem stay"


def test_a_destination_that_refuses_is_named_and_the_results_stay(
    home: Home, viewer: Scripted
) -> None:
    viewer.default = 0xA900
    uid = home.ask("mip", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    for _ in range(200):
        home.work()
        if home.jobs("process.deliver") == ["done"]:
            break
    item = home.worklist.read(uid)
    assert reason(item) == "the results were not taken by VIEWER"
    ((series, uids),) = item.results().items()
    assert home.held(series) == sorted(uids)


def test_who_dies_before_the_deletion_is_made_up_for(home: Home, viewer: Scripted) -> None:
    """The job that ended the workitem is run again, as after a crash of its worker."""
    deliver = home.archive.extensions["process"].jobs["process.deliver"].handler
    deletions: Any = home.archive.deletions
    give_up, crashed = deletions.give_up, []

    def crashing(caller: Caller, *arguments: Any, **more: Any) -> Any:
        if not crashed:
            crashed.append(1)
            raise OSError("power is gone")
        return give_up(caller, *arguments, **more)

    deletions.give_up = crashing

    def again(job: JobContext[Any]) -> object:
        try:
            return deliver(job)
        except OSError:
            return deliver(job)

    replaced(home, "process.deliver", again)
    item = home.done("mip", destinations=(TO,), keep_results=Keep.UNTIL_DONE)
    assert crashed and item.state is WorkitemState.COMPLETED
    (series,) = item.results()
    assert home.held(series) == [] and home.files(series) == 1
    assert home.jobs("process.deliver") == ["done"]


def test_whose_results_are_sent_is_who_may_send(home: Home, viewer: Scripted) -> None:
    item = home.done("mip", caller_of("stranger"), destinations=(TO,))
    assert item.state is WorkitemState.CANCELED and viewer.got == []
    assert home.done("mip", LOCAL, destinations=(TO,)).state is WorkitemState.COMPLETED
    assert len(viewer.got) == 1
