"""Which attributes a workitem takes, when it is made and when it is changed. PS3.4 Table CC.2.5-3.

Owns the tables and what is made of Data Sets by them. States and who may change
something are decided in ``service``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.core.text import date_time_bounds
from pacs.core.workitem_errors import (
    AttributeMissing,
    AttributeNotAllowed,
    AttributeValueInvalid,
    AttributeValueMissing,
    NeverScheduledAgain,
    NotInProgress,
    NotScheduledAtFirst,
)
from pacs.core.workitems import UPS_PUSH, WorkitemState
from pacs.services.workitems.encoding import copied, now_text, settle_character_set, single, tag_of

STATE: Final = tag_of("ProcedureStepState")
TRANSACTION_UID: Final = tag_of("TransactionUID")
READINESS: Final = tag_of("InputReadinessState")
_CHARACTER_SET: Final = tag_of("SpecificCharacterSet")
_MODIFIED: Final = tag_of("ScheduledProcedureStepModificationDateTime")
_SOP_CLASS: Final = tag_of("SOPClassUID")
_SOP_INSTANCE: Final = tag_of("SOPInstanceUID")
_WORKLIST: Final = tag_of("WorklistLabel")


def _tags(*keywords: str) -> tuple[int, ...]:
    return tuple(map(tag_of, keywords))


TYPE_1: Final = _tags(
    "ScheduledProcedureStepPriority",
    "ProcedureStepLabel",
    "ScheduledProcedureStepStartDateTime",
    "InputReadinessState",
)
TYPE_2: Final = _tags(
    "ScheduledProcessingParametersSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "ScheduledStationGeographicLocationCodeSequence",
    "ScheduledWorkitemCodeSequence",
    "CommentsOnTheScheduledProcedureStep",
    "InputInformationSequence",
    "PatientName",
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
    "ProcedureStepProgressInformationSequence",
    "UnifiedProcedureStepPerformedProcedureSequence",
)
"""What the requester has to send, if only empty."""
TYPE_2_OURS: Final = _tags("PatientID", "StudyInstanceUID")
"""What a requester may leave out and a workitem has all the same (1C/2)."""
PERFORMED: Final = _tags(
    "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"
)
"""Empty at first; set by whoever performs it, once it does."""
DEFINED: Final[Mapping[int, frozenset[str]]] = {
    tag_of("ScheduledProcedureStepPriority"): frozenset({"HIGH", "MEDIUM", "LOW"}),
    READINESS: frozenset({"INCOMPLETE", "UNAVAILABLE", "READY"}),
}
"""PS3.3 Sections C.30.1 and C.30.2."""
DATE_TIMES: Final = _tags(
    "ScheduledProcedureStepStartDateTime",
    "ExpectedCompletionDateTime",
    "ScheduledProcedureStepExpirationDateTime",
)
NEVER_SET: Final = frozenset(
    _tags(
        "SOPClassUID",
        "SOPInstanceUID",
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "PatientBirthDate",
        "PatientSex",
        "AdmissionID",
        "IssuerOfAdmissionIDSequence",
        "AdmittingDiagnosesDescription",
        "AdmittingDiagnosesCodeSequence",
        "ReferencedRequestSequence",
        "ReplacedProcedureStepSequence",
        "ProcedureStepState",
    )
)
"""Of whom, asked by whom: "Not allowed" in N-SET."""
ORDER: Final = frozenset(
    _tags(
        "ScheduledWorkitemCodeSequence",
        "ScheduledProcessingParametersSequence",
        "InputInformationSequence",
        "OutputDestinationSequence",
        "StudyInstanceUID",
    )
)
"""What is to be done, with what, and where it goes: not altered once somebody does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjusted:
    """A Data Set as it is kept, and of what was sent those attributes that are kept otherwise."""

    data_set: Dataset = field(repr=False)
    changes: Dataset = field(default_factory=Dataset, repr=False)


def is_ready(data_set: Dataset) -> bool:
    """Tell whether a Data Set says that the input of its workitem is all there. PS3.3 Section C.30.2."""
    return single(data_set, READINESS) == "READY"


# --- N-CREATE -------------------------------------------------------------------------


def created(asked: Dataset, uid: str, *, worklist_label: str, now: datetime) -> Adjusted:
    """Make a workitem's Data Set of what was sent. PS3.4 Section CC.2.5.3.

    Raises ``NotScheduledAtFirst``, ``AttributeMissing``, ``AttributeValueMissing``,
    ``AttributeValueInvalid`` or ``AttributeNotAllowed``.
    """
    data_set, changes = copied(asked), Dataset()
    _check_state(data_set)
    _check_required(data_set)
    _check_values(data_set)
    for tag in _corrected(data_set, uid):
        changes[tag] = data_set[tag] if tag in data_set else _empty(tag)
    for tag in (STATE, TRANSACTION_UID, _SOP_CLASS, _SOP_INSTANCE):
        data_set.pop(tag, None)
    if not single(data_set, _WORKLIST):
        data_set.WorklistLabel = worklist_label
    data_set[_MODIFIED] = _empty(_MODIFIED)
    data_set.ScheduledProcedureStepModificationDateTime = now_text(now)
    settle_character_set(data_set)
    return Adjusted(data_set=data_set, changes=changes)


def _check_state(data_set: Dataset) -> None:
    if STATE not in data_set:
        raise AttributeMissing(attributes=(STATE,))
    state = single(data_set, STATE)
    if not state and data_set[STATE].is_empty:
        raise AttributeValueMissing(attributes=(STATE,))
    if state != WorkitemState.SCHEDULED.value:
        raise NotScheduledAtFirst


def _check_required(data_set: Dataset) -> None:
    missing = tuple(tag for tag in TYPE_1 if tag not in data_set)
    if missing:
        raise AttributeMissing(attributes=missing)
    empty = tuple(tag for tag in TYPE_1 if not single(data_set, tag))
    if empty:
        raise AttributeValueMissing(attributes=empty)


def _check_values(data_set: Dataset) -> None:
    """Look over the values that have a meaning here. Raises ``AttributeValueInvalid``."""
    wrong = [
        tag
        for tag, defined in DEFINED.items()
        if tag in data_set and single(data_set, tag) not in defined
    ]
    wrong += [
        tag
        for tag in DATE_TIMES
        if tag in data_set
        and not data_set[tag].is_empty
        and date_time_bounds(single(data_set, tag) or "") is None
    ]
    wrong += [
        tag
        for tag in sorted(ORDER.union(TYPE_2))
        if tag in data_set and dictionary_VR(tag) == "SQ" and data_set[tag].VR != "SQ"
    ]
    if wrong:
        raise AttributeValueInvalid(attributes=tuple(wrong))


def _corrected(data_set: Dataset, uid: str) -> Iterator[int]:
    """Put right what can be, and tell of which attributes."""
    if single(data_set, TRANSACTION_UID) != "":
        data_set.pop(TRANSACTION_UID)
        yield TRANSACTION_UID
    if single(data_set, _SOP_CLASS) not in ("", UPS_PUSH):
        data_set.SOPClassUID = UPS_PUSH
        yield _SOP_CLASS
    if single(data_set, _SOP_INSTANCE) not in ("", uid):
        data_set.SOPInstanceUID = uid
        yield _SOP_INSTANCE
    for tag in (*TYPE_2, *TYPE_2_OURS):
        begun = tag in PERFORMED and tag in data_set and not data_set[tag].is_empty
        if tag not in data_set or begun:
            data_set[tag] = _empty(tag)
            if begun or tag in TYPE_2:
                yield tag


def _empty(tag: int) -> DataElement:
    made = Dataset()
    made.add_new(tag, dictionary_VR(tag), [] if dictionary_VR(tag) == "SQ" else None)
    return made[tag]


# --- N-SET ----------------------------------------------------------------------------


def changed(
    before: Dataset, asked: Dataset, state: WorkitemState, *, now: datetime, is_settled: bool
) -> Adjusted:
    """Give a workitem's Data Set with what was sent put into it. PS3.4 Section CC.2.6.3.

    Once it ``is_settled`` what is ordered stays. ``changes`` are the attributes whose value is another now. Raises ``AttributeNotAllowed``,
    ``AttributeValueMissing``, ``AttributeValueInvalid``, ``NeverScheduledAgain`` or ``NotInProgress``.
    """
    given = copied(asked)
    given.pop(TRANSACTION_UID, None)
    given.pop(_MODIFIED, None)  # the time of this change, whatever is sent
    _check_allowed(given, before, state, is_settled=is_settled)
    empty = tuple(tag for tag in (*TYPE_1, _WORKLIST) if tag in given and not single(given, tag))
    if empty:
        raise AttributeValueMissing(attributes=empty)
    _check_values(given)
    changes = Dataset()
    for element in given:
        if element.tag != _CHARACTER_SET and not _same(before, element):
            changes[element.tag] = element
    data_set = _merged(before, given, changes)
    data_set.ScheduledProcedureStepModificationDateTime = now_text(now)
    return Adjusted(data_set=data_set, changes=changes)


def _check_allowed(
    given: Dataset, before: Dataset, state: WorkitemState, *, is_settled: bool
) -> None:
    if STATE in given and single(given, STATE) == WorkitemState.SCHEDULED.value:
        raise NeverScheduledAgain
    forbidden = [tag for tag in sorted(NEVER_SET) if tag in given]
    if is_settled:
        forbidden += [
            tag for tag in sorted(ORDER) if tag in given and not _same(before, given[tag])
        ]
    if forbidden:
        raise AttributeNotAllowed(attributes=tuple(forbidden))
    if state is WorkitemState.SCHEDULED and any(
        tag in given and not given[tag].is_empty for tag in PERFORMED
    ):
        raise NotInProgress


def _same(before: Dataset, element: DataElement) -> bool:
    if element.tag not in before:
        return False
    held = before[element.tag]
    return bool(held.is_empty and element.is_empty) or bool(
        held.VR == element.VR and held.value == element.value
    )


def _merged(before: Dataset, given: Dataset, changes: Dataset) -> Dataset:
    """Put in what is new. Texts of another character set have the whole of it written anew."""
    data_set = before
    foreign = given.get("SpecificCharacterSet") != before.get("SpecificCharacterSet")
    if foreign:
        data_set = copied(before)  # decoded, every text of it
    for element in changes:
        data_set[element.tag] = element
    if foreign:
        settle_character_set(data_set, given)
    return data_set
