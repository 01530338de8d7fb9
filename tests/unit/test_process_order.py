"""Workitems read and written: what we write we understand, and a hostile one gives a reason and costs nothing."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

import pacs.app.archive  # noqa: F401 - odd values raise no warnings, as in every process of ours
from pacs.app.process import operations as facts
from pacs.core.caller import admin
from pacs.core.errors import ProcessingUnknown
from pacs.core.identifiers import (
    AETitle,
    Digest,
    ObjectId,
    Registrant,
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    TransferSyntaxUID,
)
from pacs.core.processing import Keep, OperationFact, Parameter, ProcessingOrder, Takes
from pacs.core.records import Held, Place
from pacs.core.workitems import WorkitemUID
from pacs.services.process import Input, Placing, Reference, Wanted, inputs_of, read, workitem_of
from pacs.services.process.order import addressed
from pacs.services.process.words import code, read_time, told_time
from pacs.services.process.workitem import text_item

US = AETitle("PACS")


def fact(name: str, dcm: str = "") -> OperationFact:
    sigma = Parameter(
        name="sigma", default="1.0", bounds="a number", says="how far", is_length=True
    )
    unit = Parameter(name="unit", default="mm", bounds="mm or px", says="of lengths")
    return OperationFact(
        name=name,
        version="1.0",
        takes=Takes.IMAGE,
        summary=name,
        code=dcm,
        parameters=[sigma, unit],
    )


OPERATIONS = [fact("gaussian", "113088"), fact("mpr", "113072"), fact("slab", "113072"), fact("x")]
ORDER = ProcessingOrder(
    operation="gaussian",
    version="1.0",
    parameters={"sigma": "2.5", "a-parameter-with-a-long-name": "mm"},
    series_description="Soft",
    destinations=(AETitle("VIEWER"), AETitle("OTHER")),
    keep_results=Keep.UNTIL_DONE,
    group="ct",
)
INPUTS = (
    Input(
        study_instance_uid="1.2",
        series_instance_uid="1.2.3",
        references=(Reference(sop_class_uid="1.5", sop_instance_uid="1.2.3.4"),),
        retrieve_ae_titles=(AETitle("MODALITY"),),
    ),
    Input(study_instance_uid="1.7"),
)


def understood(data_set: Dataset) -> Wanted:
    return read(data_set, OPERATIONS, ae_title=US, most=100)


def made(order: ProcessingOrder = ORDER) -> Dataset:
    return workitem_of(order, INPUTS, label="Soft")


def test_what_is_written_is_understood() -> None:
    found = understood(made())
    assert (found.order, found.inputs, found.fact.name) == (ORDER, INPUTS, "gaussian")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z_-]{0,40}", fullmatch=True), st.text("ab1.-", max_size=40)
    ),
)
def test_any_parameters_come_back(parameters: dict[str, str]) -> None:
    own = {"version", "series-description", "keep", "group"}
    given_ = {name: value.strip() for name, value in parameters.items() if name not in own}
    order = ProcessingOrder(operation="x", parameters=given_)
    if len(given_) <= 64:
        assert understood(made(order)).order == order


def test_it_can_be_created_as_the_standard_says() -> None:
    """PS3.4 Table CC.2.5-3, what N-CREATE needs of the requester."""
    data_set = made()
    for keyword in (
        "ScheduledProcedureStepPriority",
        "ProcedureStepLabel",
        "ScheduledProcedureStepStartDateTime",
        "InputReadinessState",
        "ProcedureStepState",
    ):
        assert getattr(data_set, keyword), keyword
    for keyword in ("TransactionUID", "PatientName", "PatientID", "ReferencedRequestSequence"):
        assert keyword in data_set and not data_set[keyword].value, keyword
    assert "SOPInstanceUID" not in data_set


def test_numbers_and_codes_are_taken_too() -> None:
    data_set = made()
    number = Dataset()
    number.ValueType, number.NumericValue = "NUMERIC", "2.5"
    number.ConceptNameCodeSequence = Items([code("size_px", "size")])
    number.MeasurementUnitsCodeSequence = Items([code("{pixels}", "pixels", "UCUM")])
    word = Dataset()
    word.ValueType = "CODE"
    word.ConceptNameCodeSequence = Items([code("unit", "unit")])
    word.ConceptCodeSequence = Items([code("px", "pixels")])
    data_set.ScheduledProcessingParametersSequence = Items([number, word])
    assert understood(data_set).order.parameters == {"size_px": "2.5", "unit": "px"}
    number.MeasurementUnitsCodeSequence = Items([code("cm", "cm", "UCUM")])
    with pytest.raises(ProcessingUnknown, match="size_px is not in that unit"):
        understood(data_set)


def _measured(name: str, unit: str) -> Dataset:
    item = Dataset()
    item.ValueType, item.NumericValue = "NUMERIC", "2.5"
    item.ConceptNameCodeSequence = Items([code(name, name)])
    item.MeasurementUnitsCodeSequence = Items([code(unit, unit, "UCUM")])
    return item


@pytest.mark.parametrize(
    ("unit", "set_to", "becomes"),
    [
        ("mm", "", "mm"),
        ("{pixels}", "", "px"),
        ("mm", "mm", "mm"),
        ("{pixels}", "px", "px"),
        ("1", "px", "px"),
        ("1", "", None),
    ],
)
def test_a_length_is_taken_in_either_unit_and_says_which(
    unit: str, set_to: str, becomes: str | None
) -> None:
    items = [_measured("sigma", unit), *([text_item("unit", set_to)] if set_to else ())]
    for order in (items, items[::-1]):
        data_set = made()
        data_set.ScheduledProcessingParametersSequence = Items([*order, text_item("group", "ct")])
        expected = {"sigma": "2.5"} | ({} if becomes is None else {"unit": becomes})
        assert understood(data_set).order.parameters == expected
        assert addressed(data_set, OPERATIONS, ae_title=US).group == "ct"


@pytest.mark.parametrize(("unit", "set_to"), [("mm", "px"), ("{pixels}", "mm"), ("cm", "mm")])
def test_a_length_in_another_unit_than_is_set_is_refused(unit: str, set_to: str) -> None:
    data_set = made()
    items = [_measured("sigma", unit), text_item("unit", set_to)]
    data_set.ScheduledProcessingParametersSequence = Items(items)
    with pytest.raises(ProcessingUnknown, match="sigma is not in th"):
        understood(data_set)


def test_a_standard_code_is_taken_where_it_says_which() -> None:
    data_set = made()
    data_set.ScheduledWorkitemCodeSequence = Items([code("113088", "Gaussian blur", "DCM")])
    assert understood(data_set).fact.name == "gaussian"
    data_set.ScheduledWorkitemCodeSequence = Items([code("113072", "Reformatting", "DCM")])
    with pytest.raises(ProcessingUnknown, match="stands for mpr, slab: name one under 99PACS"):
        understood(data_set)
    assert addressed(data_set, OPERATIONS, ae_title=US).ours, "so that somebody says so"


def _many(data_set: Dataset) -> None:
    data_set.ScheduledProcessingParametersSequence = Items(
        [text_item(f"p{one}", "1") for one in range(5_000)]
    )


def _long(data_set: Dataset) -> None:
    data_set.ScheduledProcessingParametersSequence = Items([text_item("sigma", "9" * 10_000_000)])


def _twice(data_set: Dataset) -> None:
    data_set.ScheduledProcessingParametersSequence = Items([text_item("sigma", "1")] * 2)


def _foreign(data_set: Dataset) -> None:
    item = text_item("sigma", "1")
    item.ConceptNameCodeSequence = Items([code("sigma", "sigma", "99OTHER")])
    data_set.ScheduledProcessingParametersSequence = Items([item])


def _no_sequence(data_set: Dataset) -> None:
    data_set.add_new("ScheduledProcessingParametersSequence", "LO", "mean\\this")


def _raw(data_set: Dataset) -> None:
    item = text_item("sigma", "1")
    tag = Tag("NumericValue")
    item.ValueType = "NUMERIC"
    item[tag] = RawDataElement(tag, "FD", 3, b"one", 0, False, True)
    data_set.ScheduledProcessingParametersSequence = Items([item])


def _many_images(data_set: Dataset) -> None:
    one = data_set.InputInformationSequence[0]
    one.ReferencedSOPSequence = Items([one.ReferencedSOPSequence[0]] * 101)


def _frames(data_set: Dataset) -> None:
    data_set.InputInformationSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = [1, 2]


def _elsewhere(data_set: Dataset) -> None:
    data_set.OutputDestinationSequence[0].DICOMStorageSequence[0].DestinationAE = "A\\B"


def _web(data_set: Dataset) -> None:
    data_set.OutputDestinationSequence = Items([Dataset()])


def _nothing(data_set: Dataset) -> None:
    data_set.InputInformationSequence = None


def _no_uid(data_set: Dataset) -> None:
    tag = Tag("StudyInstanceUID")
    raw = RawDataElement(tag, "UI", 24, b"1.2'; DROP TABLE instance", 0, False, True)
    data_set.InputInformationSequence[0][tag] = raw


def _description(data_set: Dataset) -> None:
    data_set.ScheduledProcessingParametersSequence = Items(
        [text_item("series-description", "a\x1b[2Jb")]
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_many, "has 5000 items, at most 64"),
        (_long, "TextValue has more than 256 characters"),
        (_twice, "sigma is given twice"),
        (_foreign, "no code of 99PACS"),
        (_no_sequence, "is no sequence"),
        (_raw, "cannot be read"),
        (_many_images, "at most 100 are taken"),
        (_frames, "frames of an image"),
        (_elsewhere, "DestinationAE has 2 values|no AE title"),
        (_web, "no DICOM Application Entity"),
        (_nothing, "names no images"),
        (_no_uid, "StudyInstanceUID is no UID"),
        (_description, "printable ASCII"),
    ],
)
def test_a_hostile_workitem_gives_a_reason_and_costs_nothing(
    change: Callable[[Dataset], None], said: str
) -> None:
    data_set = made(ProcessingOrder(operation="gaussian", destinations=(AETitle("VIEWER"),)))
    change(data_set)
    began_s = time.process_time()
    with pytest.raises(ProcessingUnknown, match=said) as raised:
        understood(data_set)
    assert len(str(raised.value)) < 200
    assert time.process_time() - began_s < 5


def test_instances_are_named_series_by_series() -> None:
    held = [
        one_held(study, series, f"{series}.{number}")
        for number in (2, 1)
        for study, series in (("1", "1.1"), ("1", "1.2"), ("2", "2.1"))
    ]
    found = inputs_of(held)
    assert [(one.study_instance_uid, one.series_instance_uid) for one in found] == [
        ("1", "1.1"),
        ("1", "1.2"),
        ("2", "2.1"),
    ]
    assert [one.sop_instance_uid for one in found[1].references] == ["1.2.2", "1.2.1"]
    back = understood(workitem_of(ProcessingOrder(operation="x"), found, label="x"))
    assert back.inputs == tuple(found)


def one_held(study: str, series: str, sop: str) -> Held:
    return Held(
        registrant=Registrant("a"),
        study_instance_uid=StudyInstanceUID(study),
        series_instance_uid=SeriesInstanceUID(series),
        sop_class_uid=SOPClassUID("1.5"),
        sop_instance_uid=SOPInstanceUID(sop),
        transfer_syntax_uid=TransferSyntaxUID("1.2.840.10008.1.2.1"),
        digest=Digest("x"),
        place=Place(name="x", object_id=ObjectId("x"), size_bytes=1, data_set_offset=0),
    )


@pytest.mark.parametrize("keep", ["never", "YES ", "1"])
def test_keep_is_one_of_two_words(keep: str) -> None:
    data_set = made(ProcessingOrder(operation="gaussian"))
    data_set.ScheduledProcessingParametersSequence = Items([text_item("keep", keep)])
    with pytest.raises(ProcessingUnknown, match="yes or until-done"):
        understood(data_set)


# --- whose it is ----------------------------------------------------------------------------


def jobs(data_set: Dataset) -> list[Any]:
    placing = Placing(OPERATIONS, US)
    return list(placing.on_created(admin("test"), WorkitemUID("1.2.3"), data_set))


def test_ours_is_what_has_one_of_our_codes_and_names_nobody_else() -> None:
    (job,) = jobs(made())
    assert (job.kind, job.queue) == ("process.workitem", "process:ct")
    named = workitem_of(ProcessingOrder(operation="x"), INPUTS, label="x", station=US)
    assert jobs(named)[0].queue == "process"
    other = workitem_of(ProcessingOrder(operation="x"), INPUTS, label="x", station=AETitle("RIS"))
    assert jobs(other) == []
    other.ScheduledStationNameCodeSequence = None
    other.ScheduledStationClassCodeSequence = Items([code("CT", "CT", "99OTHER")])
    assert jobs(other) == []
    unknown = workitem_of(ProcessingOrder(operation="unknown"), INPUTS, label="x")
    assert len(jobs(unknown)) == 1, "who else would ever say that there is none"
    unknown.ScheduledWorkitemCodeSequence = Items([code("unknown", "Unknown", "99OTHER")])
    assert jobs(unknown) == []


def test_one_that_cannot_be_done_is_taken_up_to_say_so() -> None:
    data_set = made()
    _many(data_set)
    assert len(jobs(data_set)) == 1
    data_set.ScheduledWorkitemCodeSequence = Items([Dataset()] * 9)
    assert jobs(data_set) == []


def test_it_begins_when_it_is_scheduled() -> None:
    data_set = made()
    later = datetime.now(UTC) + timedelta(hours=1)
    data_set.ScheduledProcedureStepStartDateTime = told_time(later)
    data_set.ScheduledProcedureStepPriority = "HIGH"
    (job,) = jobs(data_set)
    assert job.not_before_utc == later and job.priority > 0
    data_set.ScheduledProcedureStepStartDateTime = "20200101"
    assert jobs(data_set)[0].not_before_utc is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20260102030405.5+0100", datetime(2026, 1, 2, 2, 4, 5, 500_000, tzinfo=UTC)),
        ("202601020304+0000", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("", None),
        ("yesterday", None),
        ("99999999", None),
    ],
)
def test_times_are_read_with_their_offset(text: str, expected: datetime | None) -> None:
    assert read_time(text) == expected


def test_every_operation_with_a_unit_says_which_of_its_parameters_are_lengths() -> None:
    lengths = {
        one.name: [each.name for each in one.parameters if each.is_length] for one in facts()
    }
    assert {name: found for name, found in lengths.items() if found} == {
        "band-pass": ["shorter", "longer"],
        "bilateral": ["sigma"],
        "gaussian": ["sigma"],
        "high-pass": ["period"],
        "log": ["sigma"],
        "low-pass": ["period"],
        "unsharp": ["sigma"],
        "zero-crossing": ["sigma"],
    }
