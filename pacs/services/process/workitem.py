"""Writing a workitem: an order of processing as a Data Set that N-CREATE takes. PS3.4 Table CC.2.5-3.

The reverse of ``order``. Whose patient it is about is for the maker to add;
the attributes are there, empty.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from pacs.core.identifiers import AETitle
from pacs.core.processing import Keep, ProcessingOrder
from pacs.core.workitems import WorkitemState
from pacs.services.process.words import (
    GROUP,
    KEEP,
    SERIES_DESCRIPTION,
    VERSION,
    Input,
    code,
    told_time,
)

_EMPTY: Final = (  # Type 2 for whoever creates
    "TransactionUID",
    "WorklistLabel",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledHumanPerformersSequence",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientBirthDate",
    "PatientSex",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "AdmittingDiagnosesDescription",
    "AdmittingDiagnosesCodeSequence",
    "ReferencedRequestSequence",
    "MedicalAlerts",
    "PregnancyStatus",
    "SpecialNeeds",
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)


def workitem_of(
    order: ProcessingOrder,
    inputs: Sequence[Input],
    *,
    label: str,
    requested_by: str = "",
    station: AETitle | None = None,
    now_utc: datetime | None = None,
) -> Dataset:
    """Write what shall be done to ``inputs`` as a workitem to be created.

    ``label`` is what a person sees of it. ``station`` says whose workitem it is alone: another
    performer that knows the same operations leaves it then.
    """
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _EMPTY:
        setattr(made, keyword, None)
    made.ProcedureStepState = WorkitemState.SCHEDULED.value
    made.ScheduledProcedureStepPriority = "MEDIUM"
    made.ProcedureStepLabel = label[:64]
    made.CommentsOnTheScheduledProcedureStep = requested_by[:64]
    made.ScheduledProcedureStepStartDateTime = told_time(now_utc or datetime.now(UTC))
    made.InputReadinessState = "READY"
    made.StudyInstanceUID = inputs[0].study_instance_uid if inputs else None
    made.ScheduledWorkitemCodeSequence = Items([code(order.operation, order.operation)])
    made.ScheduledProcessingParametersSequence = Items(_parameters(order))
    made.InputInformationSequence = Items([_input(one) for one in inputs])
    made.OutputDestinationSequence = Items([_destination(one) for one in order.destinations])
    if station is not None:
        name = code(station, station)
        made.ScheduledStationNameCodeSequence = Items([name])
    if order.group:
        made.ScheduledStationClassCodeSequence = Items([code(order.group, order.group)])
    return made


def text_item(name: str, value: str) -> Dataset:
    """Make a parameter: a content item of text. PS3.3 Table 10-2."""
    item = Dataset()
    item.ValueType = "TEXT"
    item.ConceptNameCodeSequence = Items([code(name, name)])
    item.TextValue = value
    return item


def _parameters(order: ProcessingOrder) -> list[Dataset]:
    about = {
        VERSION: order.version,
        SERIES_DESCRIPTION: order.series_description,
        KEEP: "" if order.keep_results is Keep.YES else order.keep_results.value,
        GROUP: order.group,
    }
    told = {**order.parameters, **{name: value for name, value in about.items() if value}}
    return [text_item(name, value) for name, value in told.items()]


def _input(one: Input) -> Dataset:
    """Refer to instances, and say how they are had. PS3.3 Table 10-3b."""
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID = one.study_instance_uid
    item.SeriesInstanceUID = one.series_instance_uid or None
    item.ReferencedSOPSequence = Items(
        [referenced(each.sop_class_uid, each.sop_instance_uid) for each in one.references]
    )
    if one.retrieve_ae_titles:
        retrieval = Dataset()
        retrieval.RetrieveAETitle = list(one.retrieve_ae_titles)
        item.DICOMRetrievalSequence = Items([retrieval])
    return item


def referenced(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Refer to one instance. PS3.3 Table 10-11."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _destination(ae_title: AETitle) -> Dataset:
    store, item = Dataset(), Dataset()
    store.DestinationAE = ae_title
    item.DICOMStorageSequence = Items([store])
    return item
