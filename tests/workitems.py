"""Workitems made for tests: whole, sendable, and what a performer sets before it ends one."""

from typing import Any

from pydicom.dataset import Dataset


def code(value: str, meaning: str = "A meaning", scheme: str = "99TEST") -> Dataset:
    """Make a code."""
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def scheduled(**values: Any) -> Dataset:
    """Make what N-CREATE sends: everything PS3.4 Table CC.2.5-3 asks for, most of it empty."""
    made = Dataset()
    made.TransactionUID = ""
    made.ProcedureStepState = "SCHEDULED"
    made.ScheduledProcedureStepPriority = "MEDIUM"
    made.ProcedureStepLabel = "Smooth it"
    made.WorklistLabel = "Processing"
    made.ScheduledProcessingParametersSequence = []
    made.ScheduledStationNameCodeSequence = [code("STATION1")]
    made.ScheduledStationClassCodeSequence = []
    made.ScheduledStationGeographicLocationCodeSequence = []
    made.ScheduledProcedureStepStartDateTime = "20260102030405"
    made.ScheduledWorkitemCodeSequence = [code("110005", "Interpretation", "DCM")]
    made.CommentsOnTheScheduledProcedureStep = ""
    made.InputReadinessState = "READY"
    made.InputInformationSequence = []
    made.StudyInstanceUID = "1.2.3"
    made.PatientName = "DOE^JANE"
    made.PatientID = "P1"
    made.IssuerOfPatientID = ""
    made.IssuerOfPatientIDQualifiersSequence = []
    made.OtherPatientIDsSequence = []
    made.PatientBirthDate = ""
    made.PatientSex = ""
    made.AdmissionID = ""
    made.IssuerOfAdmissionIDSequence = []
    made.AdmittingDiagnosesDescription = ""
    made.AdmittingDiagnosesCodeSequence = []
    made.ReferencedRequestSequence = []
    made.ProcedureStepProgressInformationSequence = []
    made.UnifiedProcedureStepPerformedProcedureSequence = []
    for keyword, value in values.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def performed() -> Dataset:
    """Make what a performer sets before it completes a workitem."""
    item = Dataset()
    item.PerformedStationNameCodeSequence = [code("STATION1")]
    item.PerformedProcedureStepStartDateTime = "20260102030405"
    item.PerformedWorkitemCodeSequence = [code("110005", "Interpretation", "DCM")]
    item.PerformedProcedureStepEndDateTime = "20260102030505"
    item.OutputInformationSequence = []
    made = Dataset()
    made.UnifiedProcedureStepPerformedProcedureSequence = [item]
    return made


def progress(percent: str = "50", **values: Any) -> Dataset:
    """Make what a performer sets on its way."""
    item = Dataset()
    item.ProcedureStepProgress = percent
    for keyword, value in values.items():
        setattr(item, keyword, value)
    made = Dataset()
    made.ProcedureStepProgressInformationSequence = [item]
    return made


def discontinued() -> Dataset:
    """Make what a performer sets before it cancels a workitem."""
    return progress(
        "50", ProcedureStepDiscontinuationReasonCodeSequence=[code("110501", "Broken", "DCM")]
    )
