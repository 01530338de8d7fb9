"""Workitems that are ours to perform: whole results, once; reasons where there are none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from pacs.app import subscriber
from pacs.app.archive import Archive
from pacs.app.process import operations, processing
from pacs.core.attributes import Level
from pacs.core.caller import Caller, Right
from pacs.core.identifiers import AETitle, TransferSyntaxUID
from pacs.core.job_ports import JobContext
from pacs.core.processing import ProcessingOrder, ProcessingRequest, StoredImage
from pacs.core.records import Selection
from pacs.core.work import JobState
from pacs.core.workitems import WorkitemState, WorkitemUID
from pacs.services.process import Asked, Input, Reference, workitem_of
from pacs.services.process.words import code
from pacs.services.subscriber.terms import PurposeEdits
from processing.datasets.process import SandboxedProcessor
from tests.forwarding import known
from tests.integration.test_jobs import hands
from tests.integration.test_subscriber import contract
from tests.keeping import ADMIN, NO_CHORES, caller_of, keep, listed, opened
from tests.phantoms import ct_series, hounsfield, patient
from tests.worklist import Item, Worklist

QUIET = {**NO_CHORES, "process__piece_images": "2"}
LOCAL = caller_of()


class Home:
    """An archive with a series, a worklist, and workers when they are called."""

    def __init__(self, archive: Archive, count: int = 6, registrant: str = "local") -> None:
        self.archive = archive
        self.worklist = Worklist(archive, LOCAL)
        study = patient()
        self.study = str(study.StudyInstanceUID)
        self.images = ct_series(count=count, rows=24, columns=32, spacing_mm=2.0, study=study)
        self.series = str(self.images[0].SeriesInstanceUID)
        for one in self.images:
            keep(archive, Dataset(dict(one.items())), registrant=registrant)

    def ask(
        self, operation: str, caller: Caller = LOCAL, *, series: str = "", **order: Any
    ) -> WorkitemUID:
        """Make a workitem for the series."""
        asked = ProcessingOrder(operation=operation, **order)
        inputs = [Input(study_instance_uid=self.study, series_instance_uid=series or self.series)]
        return self.worklist.create(caller, workitem_of(asked, inputs, label="test"))

    def work(self, *queues: str) -> None:
        """Let a worker in this process do all that is due."""
        with hands(self.archive, *queues) as worker:
            worker.work(threading.Event())

    def done(self, operation: str, caller: Caller = LOCAL, **order: Any) -> Item:
        """Make a workitem and see it through."""
        uid = self.ask(operation, caller, **order)
        self.work()
        return self.worklist.read(uid)

    def held(self, series: str) -> list[str]:
        """SOP Instance UIDs that are delivered of a series."""
        rows = listed(self.archive, Level.IMAGE, SeriesInstanceUID=series)
        return sorted(row["SOPInstanceUID"] for row in rows)

    def files(self, series: str) -> int:
        """How many files of a series are kept, versions and deleted ones included."""
        rows = self.archive.database.execute(
            "SELECT COUNT(*) FROM instance i JOIN series e ON e.id = i.series_row "
            "WHERE e.series_instance_uid = ?",
            (series,),
        )
        return int(next(rows)[0])

    def usage(self) -> list[tuple[Any, ...]]:
        """What accounting is told of processing."""
        return list(
            self.archive.database.execute(
                "SELECT subscriber, operation, study_instance_uid, amount FROM usage_fact "
                "WHERE kind = 'process' ORDER BY noted_ms"
            )
        )

    def jobs(self, kind: str) -> list[str]:
        return [one.state.value for one in self.archive.jobs.list(ADMIN, kind=kind)]


@contextmanager
def home_of(path: Path, url: str = "", count: int = 6, **settings: str) -> Iterator[Home]:
    with opened(path, url, **{**QUIET, **settings}) as archive:
        yield Home(archive, count)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with home_of(tmp_path) as made:
        yield made


def reason(item: Item) -> str:
    assert item.state is WorkitemState.CANCELED
    (code_,) = item.progress.ProcedureStepDiscontinuationReasonCodeSequence
    assert code_.CodingSchemeDesignator == "DCM" and code_.CodeMeaning
    assert item.progress.ProcedureStepCancellationDateTime
    return str(item.progress.ReasonForCancellation)


def pixels(home: Home, series: str) -> np.ndarray[Any, Any]:
    rows = home.archive.database.execute(
        "SELECT i.place FROM instance i JOIN series e ON e.id = i.series_row "
        "WHERE e.series_instance_uid = ?",
        (series,),
    )
    (row,) = rows
    return hounsfield(pydicom.dcmread(home.archive.home / "store" / row[0]))


# --- what is done --------------------------------------------------------------------------


def test_a_workitem_is_done_in_pieces_and_says_what_came_of_it(url: str, tmp_path: Path) -> None:
    with home_of(tmp_path, url) as home:
        item = home.done("gaussian", parameters={"sigma": "3"}, series_description="Soft")
        assert item.state is WorkitemState.COMPLETED
        ((series, uids),) = item.results().items()
        assert sorted(uids) == home.held(series) and len(uids) == 6
        assert home.jobs("process.piece") == ["done"] * 3
        (row,) = listed(home.archive, Level.SERIES, SeriesInstanceUID=series)
        assert row["SeriesDescription"] == "Soft"
        assert home.usage() == [("local", "gaussian", home.study, 6)]
        performed = item.performed
        (name,) = performed.PerformedStationNameCodeSequence
        assert (name.CodingSchemeDesignator, name.CodeValue) == ("99PACS", "PACS")
        (operation,) = performed.PerformedWorkitemCodeSequence
        assert operation.CodeValue == "gaussian"
        told = {
            one.ConceptNameCodeSequence[0].CodeValue: one.TextValue
            for one in performed.PerformedProcessingParametersSequence
        }
        assert told == {"sigma": "3", "unit": "mm", "version": "1.0"}
        begun, ended = (
            performed.PerformedProcedureStepStartDateTime,
            performed.PerformedProcedureStepEndDateTime,
        )
        assert begun < ended
        assert item.told == sorted(item.told, key=float), "it never goes back"
        assert item.told[0] == "0" and item.told[-1] == "100" and len(item.told) > 3


def test_a_volume_gives_what_the_images_say(home: Home) -> None:
    item = home.done("mip")
    (series,) = item.results()
    expected = np.max([hounsfield(one) for one in home.images], axis=0)
    assert np.array_equal(pixels(home, series), expected)


def test_a_volume_in_parts_gives_the_same_as_at_once(tmp_path: Path) -> None:
    """In as many pieces as the operation allows: each result once, and no other."""
    with home_of(tmp_path, process__volume_parts="3") as home:
        asked = {"plane": "coronal", "spacing_mm": "4"}
        item = home.done("mpr", parameters=asked)
        (fact,) = [one for one in operations() if one.name == "mpr"]
        assert len(home.jobs("process.piece")) == (3 if fact.divisible else 1)
        ((series, uids),) = item.results().items()
        selection = Selection(level=Level.SERIES, series_instance_uids=(home.series,))
        with processing(home.archive) as service:
            run = Asked(operation="mpr", parameters=asked, selection=selection)
            (at_once,) = service.run(ADMIN, run, workers=1, most=100).series
        first, second = by_number(home, series), by_number(home, at_once)
        assert first.keys() == second.keys() and len(uids) == len(first) > 3
        for number, one in first.items():
            assert np.array_equal(one, second[number])
        assert home.usage()[0] == ("local", "mpr", home.study, 6)


def by_number(home: Home, series: str) -> dict[int, np.ndarray[Any, Any]]:
    rows = home.archive.database.execute(
        "SELECT i.place FROM instance i JOIN series e ON e.id = i.series_row "
        "WHERE e.series_instance_uid = ?",
        (series,),
    )
    found = [pydicom.dcmread(home.archive.home / "store" / place) for (place,) in rows]
    return {int(one.InstanceNumber): hounsfield(one) for one in found}


def test_single_instances_may_be_named(home: Home) -> None:
    references = [
        Reference(sop_class_uid=one.SOPClassUID, sop_instance_uid=one.SOPInstanceUID)
        for one in home.images[:3]
    ]
    named = Input(
        study_instance_uid=home.study, series_instance_uid=home.series, references=references
    )
    order = ProcessingOrder(operation="mip")
    uid = home.worklist.create(LOCAL, workitem_of(order, [named], label="three"))
    home.work()
    (series,) = home.worklist.read(uid).results()
    expected = np.max([hounsfield(one) for one in home.images[:3]], axis=0)
    assert np.array_equal(pixels(home, series), expected)


def test_what_is_there_is_not_computed_again(home: Home) -> None:
    first = home.done("median")
    again = home.done("median", parameters={"size_px": "3"})
    assert again.results() == first.results()
    assert "already" in again.performed.CommentsOnThePerformedProcedureStep
    assert len(home.jobs("process.piece")) == 3 and len(home.usage()) == 1
    assert home.done("median", parameters={"size_px": "5"}).results() != first.results()
    (series,) = first.results()
    home.archive.deletions.delete(ADMIN, Level.SERIES, series, reason="test")
    anew = home.done("median")
    assert anew.state is WorkitemState.COMPLETED and anew.results() != first.results()


def test_what_others_put_beside_results_changes_nothing(home: Home) -> None:
    first = home.done("median")
    (series,) = first.results()
    for number in range(3):
        stray = Dataset(dict(home.images[0].items()))
        stray.SeriesInstanceUID, stray.SOPInstanceUID = series, f"1.2.3.{number}"
        keep(home.archive, stray, ago_s=3_600)
    again = home.done("median")
    assert again.state is WorkitemState.COMPLETED and again.results() == first.results()


def test_results_of_one_registrant_are_not_given_for_anothers_images(tmp_path: Path) -> None:
    with opened(tmp_path, **QUIET) as archive:
        home = Home(archive)
        first = home.done("median")
        for one in home.images:
            keep(archive, Dataset(dict(one.items())), registrant="other")
        assert reason(home.done("median", ADMIN)) == "the images belong to several registrants"
        contracts = subscriber.contracts(archive)
        contracts.add(ADMIN, contract("other", rights=frozenset({Right.PROCESS})))
        second = home.done("median", caller_of("other"))
        assert second.state is WorkitemState.COMPLETED
        assert not {*second.results()} & {*first.results()}
        assert [one[0] for one in home.usage()] == ["local", "other"]


def test_a_foreign_workitem_is_left_for_its_performer(home: Home) -> None:
    inputs = [Input(study_instance_uid=home.study, series_instance_uid=home.series)]
    order = ProcessingOrder(operation="mip")
    foreign = workitem_of(order, inputs, label="x", station=AETitle("ELSEWHERE"))
    unknown = workitem_of(order, inputs, label="x")
    unknown.ScheduledWorkitemCodeSequence = Items([code("110001", "Image Processing", "DCM")])
    uids = [home.worklist.create(LOCAL, one) for one in (foreign, unknown)]
    home.work()
    states = {home.worklist.read(one).state for one in uids}
    assert states == {WorkitemState.SCHEDULED} and not home.jobs("process.workitem")


def test_work_for_a_group_is_left_to_its_nodes(tmp_path: Path) -> None:
    with home_of(tmp_path) as home:
        uid = home.ask("mip", group="ct")
        home.work()
        assert home.worklist.read(uid).state is WorkitemState.SCHEDULED
        home.work("process:ct")
        home.work()
        assert home.worklist.read(uid).state is WorkitemState.COMPLETED
    with home_of(tmp_path, jobs__groups="mr,ct") as home:
        assert home.done("mip", group="ct").state is WorkitemState.COMPLETED


# --- reasons --------------------------------------------------------------------------------


def test_what_cannot_be_done_says_why(home: Home) -> None:
    gapped = ct_series(count=6, rows=24, columns=32, study=home.images[0])
    del gapped[3]
    for one in gapped:
        keep(home.archive, Dataset(dict(one.items())))
    before = len(listed(home.archive, Level.SERIES, StudyInstanceUID=home.study))
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("mip", {"series": str(gapped[0].SeriesInstanceUID)}, "1 slices are missing"),
        ("mip", {"version": "0.9"}, "1.0"),
        ("mip", {"parameters": {"shell": "rm"}}, "no such parameter: 'shell'"),
        ("median", {"parameters": {"size_px": "nan"}}, "size_px is a whole number"),
        ("gaussian", {"parameters": {"sigma": "nan"}}, "sigma is a number from"),
        ("mip", {"series": "1.2.3.4"}, "no images are held"),
        ("mip", {"destinations": (AETitle("NOBODY"),)}, "nothing is sent to NOBODY"),
    )
    for operation, order, said in cases:
        assert said in reason(home.done(operation, **order))
    assert len(listed(home.archive, Level.SERIES, StudyInstanceUID=home.study)) == before
    assert home.usage() == [] and not [
        one for one in home.archive.jobs.list(ADMIN) if one.state is JobState.FAILED
    ]


def test_what_was_made_is_kept_where_something_was_not(home: Home) -> None:
    torn = Dataset(dict(home.images[0].items()))
    torn.SOPInstanceUID = generate_uid()
    torn.PixelData = torn.PixelData[:64]
    keep(home.archive, torn)
    item = home.done("median")
    assert "1 not done" in reason(item)
    ((series, uids),) = item.results().items()
    assert len(uids) == 6 and sorted(uids) == home.held(series)
    assert home.usage() == [("local", "median", home.study, 6)]


def test_what_is_allowed_is_said_by_the_contract_as_it_stands(tmp_path: Path) -> None:
    with opened(tmp_path, **QUIET) as archive:
        home = Home(archive, registrant="radiology")
        contracts, terms = subscriber.contracts(archive), subscriber.terms(archive)
        for name in ("radiology", "other"):
            contracts.add(ADMIN, contract(name, rights=frozenset(Right) - {Right.CONNECT}))
        own, other = caller_of("radiology"), caller_of("other")
        assert home.done("mip", own).state is WorkitemState.COMPLETED
        assert reason(home.done("mip", other)) == "no images are held under what is named"
        assert reason(home.done("mip", LOCAL)) == "the contract grants no processing"
        known(archive, "ELSEWHERE", 1)
        to = {"destinations": (AETitle("ELSEWHERE"),)}
        assert reason(home.done("mip", own, **to)).startswith("nothing is sent to ELSEWHERE")
        terms.add_purpose(
            ADMIN, "radiology", "teaching", PurposeEdits(max_matrix=16), default=False
        )
        taught = replace(own, purpose="teaching")
        assert "more pixels" in reason(home.done("median", taught))
        uid = home.ask("median", own)
        contracts.revoke(ADMIN, "radiology", [Right.PROCESS])
        home.work()
        assert reason(home.worklist.read(uid)) == "the contract grants no processing"
        assert home.usage() == [("radiology", "mip", home.study, 6)]


def test_cancelled_on_request_between_pieces(home: Home) -> None:
    uid = home.ask("median")
    kind = home.archive.extensions["process"].jobs["process.piece"]
    seen: list[int] = []

    def piece(job: JobContext[Any]) -> object:
        if len(seen) == 1:
            home.worklist.ask_cancel(uid, LOCAL)
        seen.append(job.id)
        return kind.handler(job)

    replaced(home, "process.piece", piece)
    home.work()
    item = home.worklist.read(uid)
    assert reason(item) == "cancelled as requested"
    assert len(seen) == 3 and item.results() == {}
    rows = home.archive.database.execute(
        "SELECT COUNT(*), COUNT(deleted_by) FROM instance WHERE sop_instance_uid LIKE '2.25.%'"
    )
    kept, deleted = next(rows)
    assert kept == deleted == 2, "what was made is taken back"
    assert home.held(home.series) == sorted(one.SOPInstanceUID for one in home.images)
    assert home.usage() == [("local", "median", home.study, 2)]


def test_results_of_a_workitem_that_is_gone_are_taken_back(home: Home) -> None:
    uid = home.ask("median")
    kind = home.archive.extensions["process"].jobs["process.piece"]

    def piece(job: JobContext[Any]) -> object:
        result = kind.handler(job)
        if home.jobs("process.piece").count("done") == 1:
            home.worklist.remove(uid)
        return result

    replaced(home, "process.piece", piece)
    home.work()
    assert set(home.jobs("process.piece") + home.jobs("process.workitem")) == {"done"}
    rows = home.archive.database.execute(
        "SELECT COUNT(*), COUNT(deleted_by) FROM instance WHERE sop_instance_uid LIKE '2.25.%'"
    )
    kept, deleted = next(rows)
    assert kept == deleted > 0
    assert home.usage() == [("local", "median", home.study, kept)]


@pytest.mark.parametrize("operation", ["gaussian", "mip"])
def test_a_piece_that_is_repeated_gives_the_same_bytes(home: Home, operation: str) -> None:
    rows = home.archive.database.execute("SELECT place, data_set_offset FROM instance ORDER BY id")
    request = ProcessingRequest(
        operation=operation,
        parameters={},
        sources=[
            StoredImage(
                path=str(home.archive.home / "store" / place),
                offset=offset,
                transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
            )
            for place, offset in rows
        ],
        series_instance_uid="1.2.3",
        made=datetime(2026, 1, 2, tzinfo=UTC),
        uid_root="root",
    )

    def made(asked: ProcessingRequest) -> list[bytes]:
        with (
            closing(SandboxedProcessor(home.archive.settings.process, home.archive.scratch)) as own,
            own.process(asked) as results,
        ):
            return [Path(one.path).read_bytes() for one in results]

    first = made(request)
    assert first == made(request) and len(set(first)) == len(first) > 0
    assert first != made(replace(request, uid_root="other"))


def test_an_expired_workitem_is_not_begun(home: Home) -> None:
    made = workitem_of(
        ProcessingOrder(operation="mip"),
        [Input(study_instance_uid=home.study, series_instance_uid=home.series)],
        label="late",
    )
    made.ScheduledProcedureStepExpirationDateTime = "20200101000000+0000"
    uid = home.worklist.create(LOCAL, made)
    home.work()
    assert reason(home.worklist.read(uid)) == "the workitem has expired"


def replaced(home: Home, name: str, handler: Callable[[JobContext[Any]], object]) -> None:
    """Put another handler in place of one."""
    every = [one.jobs for one in home.archive.extensions.values()]
    jobs: Any = next(one for one in every if name in one)
    jobs[name] = replace(jobs[name], handler=handler)
