"""What a workitem says of how it goes on and how it ended. PS3.3 Section C.30.1 and C.30.3, PS3.4 Table CC.2.5-3.

Owns the attributes; who sets them is ``perform`` and ``deliver``.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from pacs.core.identifiers import AETitle
from pacs.core.processing import OperationFact
from pacs.services.process.words import SCHEME, code, code_of, told_time
from pacs.services.process.workitem import referenced, text_item

_LONGEST = 1_024
_SHORT = 64


class Why(enum.Enum):
    """Why a workitem was not completed: a code of PS3.16 CID 9300."""

    ASKED = ("110513", "Discontinued for unspecified reason")
    REFUSED = ("110521", "Objects incorrectly formatted")
    MISSING = ("110523", "Object Set incomplete")
    REJECTED = ("110530", "Workitem assignment rejected by assigned resource")
    EXPIRED = ("110533", "Workitem expired")
    FAILED = ("110501", "Equipment failure")


class Discontinued(Exception):
    """The workitem will not be completed. ``text`` is for whoever asked, and holds nothing of the patient."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why
        # What is quoted of a request may hold anything; this fits any character set.
        self.text = text.encode("ascii", "backslashreplace").decode()[:_LONGEST]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Results of one series."""

    study_instance_uid: str
    series_instance_uid: str
    instances: Sequence[tuple[str, str]]
    retrieve_ae_titles: tuple[AETitle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What was done, by whom, from when on."""

    ae_title: AETitle
    began_utc: datetime
    fact: OperationFact | None = None
    parameters: Mapping[str, str]
    outputs: Sequence[Output] = ()
    comment: str = ""


def begun(ae_title: AETitle) -> Dataset:
    """Say that it has begun, and where."""
    told = progress(0, 1, "begun")
    performed = Performed(ae_title=ae_title, began_utc=datetime.now(UTC), parameters={})
    item = _performed(performed)
    item.PerformedProcedureStepEndDateTime = None
    told.UnifiedProcedureStepPerformedProcedureSequence = Items([item])
    return told


def progress(done: int, total: int, said: str) -> Dataset:
    """Say how far it is, in percent."""
    item = Dataset()
    item.ProcedureStepProgress = str(100 * done // max(total, 1))
    item.ProcedureStepProgressDescription = said[:_LONGEST]
    return _informed(item)


def percent_of(data_set: Dataset) -> int:
    """How far a workitem says it is."""
    for item in data_set.get("ProcedureStepProgressInformationSequence") or ():
        return int(float(item.get("ProcedureStepProgress") or 0))
    return 0


def completed(performed: Performed, said: str) -> Dataset:
    """What a workitem must say before it is COMPLETED."""
    told = progress(1, 1, said)
    told.UnifiedProcedureStepPerformedProcedureSequence = Items([_performed(performed)])
    return told


def shorter(performed: Performed) -> Iterator[Performed]:
    """Say the same in less and less, for a workitem that has no room for more.

    First results series by series, without their instances; then how many there are.
    """
    yield performed
    if performed.outputs:
        count = sum(len(one.instances) for one in performed.outputs)
        said = f"{count} results in {len(performed.outputs)} series, too many to name them here"
        comment = f"{performed.comment}; {said}" if performed.comment else said
        series = [replace(one, instances=()) for one in performed.outputs]
        yield replace(performed, outputs=series, comment=comment)
        yield replace(performed, outputs=(), comment=comment)


def reasoned(why: Discontinued) -> Dataset:
    """Say why a workitem is cancelled, and no more."""
    item = Dataset()
    item.ReasonForCancellation = why.text
    value, meaning = why.why.value
    item.ProcedureStepDiscontinuationReasonCodeSequence = Items([code(value, meaning, "DCM")])
    return item


def discontinued(performed: Performed, why: Discontinued) -> Dataset:
    """What a workitem must say before it is CANCELED."""
    item = reasoned(why)
    item.ProcedureStepProgressDescription = why.text
    item.ProcedureStepCancellationDateTime = told_time(datetime.now(UTC))
    told = _informed(item)
    told.UnifiedProcedureStepPerformedProcedureSequence = Items([_performed(performed)])
    return told


def _informed(item: Dataset) -> Dataset:
    told = Dataset()
    told.ProcedureStepProgressInformationSequence = Items([item])
    return told


def _performed(one: Performed) -> Dataset:
    item = Dataset()
    item.PerformedStationNameCodeSequence = Items([code(one.ae_title, one.ae_title, SCHEME)])
    item.PerformedStationClassCodeSequence = None
    item.PerformedStationGeographicLocationCodeSequence = None
    item.PerformedProcedureStepStartDateTime = told_time(one.began_utc)
    item.PerformedProcedureStepEndDateTime = told_time(datetime.now(UTC))
    item.PerformedProcedureStepDescription = None
    item.CommentsOnThePerformedProcedureStep = one.comment[:_LONGEST]
    item.PerformedWorkitemCodeSequence = None
    item.PerformedProcessingParametersSequence = None
    if one.fact is not None:
        name = f"{one.fact.name} {one.fact.version}"
        item.PerformedProcedureStepDescription = name[:_SHORT]
        item.PerformedWorkitemCodeSequence = Items([code_of(one.fact)])
        told = {**defaults(one.fact), **one.parameters, "version": one.fact.version}
        item.PerformedProcessingParametersSequence = Items(
            [text_item(name, value) for name, value in told.items()]
        )
    item.OutputInformationSequence = Items([_output(each) for each in one.outputs])
    return item


def defaults(fact: OperationFact) -> dict[str, str]:
    """Every parameter as it is unless given."""
    return {one.name: one.default for one in fact.parameters}


def _output(one: Output) -> Dataset:
    """Refer to results, and say where they can be had. PS3.3 Table 10-3b."""
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID = one.study_instance_uid
    item.SeriesInstanceUID = one.series_instance_uid
    item.ReferencedSOPSequence = Items([referenced(*each) for each in one.instances])
    if one.retrieve_ae_titles:
        retrieval = Dataset()
        retrieval.RetrieveAETitle = list(one.retrieve_ae_titles)
        item.DICOMRetrievalSequence = Items([retrieval])
    return item
