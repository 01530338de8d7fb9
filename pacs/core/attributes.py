"""The attributes the index holds, level by level, under their DICOM keywords.

This table is the one place that says what the index knows: columns, matching,
return keys and the conformance statement are made from it. Attributes that are
not here are answered at IMAGE level from the stored file's header.

Source: PS3.4 Section C.6.1.1 and C.6.2.1 (required, unique and optional keys),
VRs from PS3.6. Levels are those of the Patient Root model.
"""

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache


class Level(enum.Enum):
    """Query/Retrieve Level (0008,0052), PS3.4 Section C.3. Ordered top to bottom."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    IMAGE = "IMAGE"

    def __init__(self, _: str) -> None:
        self.depth = len(type(self).__members__)
        """0 for PATIENT to 3 for IMAGE."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One indexed attribute. ``multiple`` marks those whose values are many."""

    level: Level
    keyword: str
    tag: int
    vr: str
    multiple: bool = False

    @property
    def column(self) -> str:
        """Name of the column that holds it: the keyword in snake form."""
        return snake(self.keyword)


@cache
def snake(keyword: str) -> str:
    """Turn a DICOM keyword into its snake form: ``SOPInstanceUID`` → ``sop_instance_uid``."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword)
    return spaced.lower().replace("_i_ds", "_ids").replace("_ui_ds", "_uids")


_P, _S, _E, _I = Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE

INDEXED: tuple[Attribute, ...] = (
    Attribute(_P, "PatientID", 0x00100020, "LO"),
    Attribute(_P, "IssuerOfPatientID", 0x00100021, "LO"),
    Attribute(_P, "PatientName", 0x00100010, "PN"),
    Attribute(_P, "PatientBirthDate", 0x00100030, "DA"),
    Attribute(_P, "PatientBirthTime", 0x00100032, "TM"),
    Attribute(_P, "PatientSex", 0x00100040, "CS"),
    Attribute(_P, "OtherPatientIDs", 0x00101000, "LO", multiple=True),
    Attribute(_P, "OtherPatientIDsSequence", 0x00101002, "SQ", multiple=True),
    Attribute(_P, "OtherPatientNames", 0x00101001, "PN", multiple=True),
    Attribute(_P, "EthnicGroup", 0x00102160, "SH"),
    Attribute(_P, "PatientComments", 0x00104000, "LT"),
    Attribute(_S, "StudyInstanceUID", 0x0020000D, "UI"),
    Attribute(_S, "StudyDate", 0x00080020, "DA"),
    Attribute(_S, "StudyTime", 0x00080030, "TM"),
    Attribute(_S, "TimezoneOffsetFromUTC", 0x00080201, "SH"),
    Attribute(_S, "AccessionNumber", 0x00080050, "SH"),
    Attribute(_S, "IssuerOfAccessionNumberSequence", 0x00080051, "SQ", multiple=True),
    Attribute(_S, "StudyID", 0x00200010, "SH"),
    Attribute(_S, "StudyDescription", 0x00081030, "LO"),
    Attribute(_S, "ProcedureCodeSequence", 0x00081032, "SQ", multiple=True),
    Attribute(_S, "ReferringPhysicianName", 0x00080090, "PN"),
    Attribute(_S, "PhysiciansOfRecord", 0x00081048, "PN", multiple=True),
    Attribute(_S, "NameOfPhysiciansReadingStudy", 0x00081060, "PN", multiple=True),
    Attribute(_S, "AdmittingDiagnosesDescription", 0x00081080, "LO", multiple=True),
    Attribute(_S, "ReferencedStudySequence", 0x00081110, "SQ", multiple=True),
    Attribute(_S, "PatientAge", 0x00101010, "AS"),
    Attribute(_S, "PatientSize", 0x00101020, "DS"),
    Attribute(_S, "PatientWeight", 0x00101030, "DS"),
    Attribute(_S, "Occupation", 0x00102180, "SH"),
    Attribute(_S, "AdditionalPatientHistory", 0x001021B0, "LT"),
    Attribute(_S, "AdmissionID", 0x00380010, "LO"),
    Attribute(_E, "SeriesInstanceUID", 0x0020000E, "UI"),
    Attribute(_E, "Modality", 0x00080060, "CS"),
    Attribute(_E, "SeriesNumber", 0x00200011, "IS"),
    Attribute(_E, "SeriesDescription", 0x0008103E, "LO"),
    Attribute(_E, "SeriesDate", 0x00080021, "DA"),
    Attribute(_E, "SeriesTime", 0x00080031, "TM"),
    Attribute(_E, "BodyPartExamined", 0x00180015, "CS"),
    Attribute(_E, "Laterality", 0x00200060, "CS"),
    Attribute(_E, "PatientPosition", 0x00185100, "CS"),
    Attribute(_E, "ProtocolName", 0x00181030, "LO"),
    Attribute(_E, "PerformingPhysicianName", 0x00081050, "PN", multiple=True),
    Attribute(_E, "OperatorsName", 0x00081070, "PN", multiple=True),
    Attribute(_E, "InstitutionName", 0x00080080, "LO"),
    Attribute(_E, "InstitutionalDepartmentName", 0x00081040, "LO"),
    Attribute(_E, "StationName", 0x00081010, "SH"),
    Attribute(_E, "Manufacturer", 0x00080070, "LO"),
    Attribute(_E, "ManufacturerModelName", 0x00081090, "LO"),
    Attribute(_E, "DeviceSerialNumber", 0x00181000, "LO"),
    Attribute(_E, "SoftwareVersions", 0x00181020, "LO", multiple=True),
    Attribute(_E, "FrameOfReferenceUID", 0x00200052, "UI"),
    Attribute(_E, "PerformedProcedureStepStartDate", 0x00400244, "DA"),
    Attribute(_E, "PerformedProcedureStepStartTime", 0x00400245, "TM"),
    Attribute(_E, "PerformedProcedureStepID", 0x00400253, "SH"),
    Attribute(_E, "PerformedProcedureStepDescription", 0x00400254, "LO"),
    Attribute(_E, "RequestAttributesSequence", 0x00400275, "SQ", multiple=True),
    Attribute(_I, "SOPInstanceUID", 0x00080018, "UI"),
    Attribute(_I, "SOPClassUID", 0x00080016, "UI"),
    Attribute(_I, "InstanceNumber", 0x00200013, "IS"),
    Attribute(_I, "ImageType", 0x00080008, "CS", multiple=True),
    Attribute(_I, "ContentDate", 0x00080023, "DA"),
    Attribute(_I, "ContentTime", 0x00080033, "TM"),
    Attribute(_I, "AcquisitionDate", 0x00080022, "DA"),
    Attribute(_I, "AcquisitionTime", 0x00080032, "TM"),
    Attribute(_I, "AcquisitionNumber", 0x00200012, "IS"),
    Attribute(_I, "NumberOfFrames", 0x00280008, "IS"),
    Attribute(_I, "Rows", 0x00280010, "US"),
    Attribute(_I, "Columns", 0x00280011, "US"),
    Attribute(_I, "BitsAllocated", 0x00280100, "US"),
)

BY_KEYWORD: Mapping[str, Attribute] = {one.keyword: one for one in INDEXED}
BY_TAG: Mapping[int, Attribute] = {one.tag: one for one in INDEXED}
UNIQUE_KEYS: Mapping[Level, str] = {
    Level.PATIENT: "PatientID",
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.IMAGE: "SOPInstanceUID",
}


def attributes_of(level: Level) -> tuple[Attribute, ...]:
    """List the attributes the index holds at ``level``, in the table's order."""
    return tuple(one for one in INDEXED if one.level is level)
