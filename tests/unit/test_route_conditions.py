"""Conditions of routes mean what C-FIND means, and windows what a calendar says."""

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from config.settings import Parsing
from pacs.core.attributes import Level
from pacs.core.errors import EntryConflicts
from pacs.core.identifiers import AETitle, Digest, ObjectId, Registrant, TransferSyntaxUID
from pacs.core.records import Instance, Place, Provenance
from pacs.core.routing import Route, RouteKey, Window
from pacs.services.header import read_dataset, read_header
from pacs.services.route.conditions import Subject, conditions, is_within, verdict
from pacs.services.route.subjects import Arriving, InFile
from tests.keeping import data_set, encoded

SYNTAX = TransferSyntaxUID("1.2.840.10008.1.2.1")
MONDAY_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
PROVENANCE = Provenance(
    registrant=Registrant("local"),
    issuer_of_patient_id="issuer",
    received_utc=MONDAY_NOON,
    association="test",
    source_ae_title=AETitle("CT1"),
    receiving_ae_title=AETitle("PACS"),
)
BARE = Route(name="r", level=Level.IMAGE, destinations=(AETitle("DEST"),))


def instance(made: Dataset, **origin: Any) -> Instance:
    wire = encoded(made)
    return Instance(
        header=read_header(
            BytesIO(wire), len(wire), SYNTAX, Parsing(), issuer_of_patient_id="issuer"
        ),
        place=Place(name="", object_id=ObjectId("0"), size_bytes=0, data_set_offset=0),
        digest=Digest(""),
        transfer_syntax_uid=SYNTAX,
        provenance=replace(PROVENANCE, **origin),
    )


def in_file(made: Dataset, **origin: Any) -> Subject:
    wire = encoded(made)
    return InFile(
        instance(made, **origin), read_dataset(BytesIO(wire), len(wire), SYNTAX, Parsing())
    )


def whole(**values: Any) -> Dataset:
    """An object with what the keys below ask for."""
    step, other = Dataset(), Dataset()
    step.ScheduledProcedureStepID, step.RequestedProcedureID = "S1", "R1"
    other.ScheduledProcedureStepID, other.RequestedProcedureID = "S2", "R2"
    code = Dataset()
    code.CodeValue = "T-A0100"
    step.ScheduledProtocolCodeSequence = Sequence([code])
    return data_set(
        "1.1",
        "1.1.1",
        "1.1.1.1",
        PatientName="Müller^Jörg=山田^太郎",
        SpecificCharacterSet="ISO_IR 192",
        BodyPartExamined="HEAD",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        Rows=512,
        InstanceNumber="01",
        KVP="120.0",
        ConvolutionKernel=["B30", "B50"],
        AcquisitionDateTime="20240501101010.5",
        RequestAttributesSequence=Sequence([step, other]),
        StudyDescription="Head and neck",
        **values,
    )


def kept(subject: Subject, *keys: tuple[str, str], unless: bool = False) -> bool | None:
    asked = tuple(RouteKey(path=path, value=value, unless=unless) for path, value in keys)
    return verdict(conditions(replace(BARE, keys=asked), UTC).all, subject)


MATCHING = [
    ("Modality", "CT"),
    ("Modality", "MR\\CT"),
    ("Modality", "C?"),
    ("PatientName", "muller*"),
    ("PatientName", "=山田*"),
    ("PatientID", "P1"),
    ("IssuerOfPatientID", "issuer"),
    ("StudyInstanceUID", "1.2.3\\1.1"),
    ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
    ("StudyDate", "20240101-20241231"),
    ("StudyDate", "20240501"),
    ("StudyTime", "100000-1030"),
    ("ImageType", "AXIAL"),
    ("Rows", "512"),
    ("InstanceNumber", "1"),
    ("KVP", "120"),
    ("ConvolutionKernel", "B50"),
    ("AcquisitionDateTime", "2024-2025"),
    ("StudyDescription", "*neck"),
    ("StudyDescription", "*"),
    ("StudyDescription", ""),
    ("KVP", "*"),
    ("RequestAttributesSequence", "*"),
    ("RequestAttributesSequence.ScheduledProcedureStepID", "S2"),
    ("RequestAttributesSequence.ScheduledProcedureStepID", "*"),
    ("RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeValue", "T-A*"),
    ("ModalitiesInStudy", "CT"),
]
OTHERS = [
    ("Modality", "ct"),
    ("Modality", "MR"),
    ("PatientName", "muller"),
    ("PatientID", "P"),
    ("StudyInstanceUID", "1.1.1"),
    ("StudyDate", "-20240430"),
    ("StudyTime", "11-"),
    ("ImageType", "DERIVED"),
    ("Rows", "256"),
    ("KVP", "80"),
    ("AccessionNumber", "*"),
    ("AccessionNumber", ""),
    ("Allergies", "*"),
    ("ProcedureCodeSequence", "*"),
    ("PatientSpeciesCodeSequence", "*"),
    ("RequestAttributesSequence.ScheduledProcedureStepID", "S3"),
    ("RequestAttributesSequence.ScheduledProcedureStepDescription", "*"),
    ("RequestAttributesSequence.ScheduledProtocolCodeSequence.CodeMeaning", "*"),
]


@pytest.mark.parametrize(("path", "value"), MATCHING)
def test_a_key_matches_as_in_c_find(path: str, value: str) -> None:
    subject = in_file(whole())
    assert kept(subject, (path, value)) is True
    assert kept(subject, (path, value), unless=True) is False


@pytest.mark.parametrize(("path", "value"), OTHERS)
def test_what_does_not_match_passes_unless(path: str, value: str) -> None:
    subject = in_file(whole())
    assert kept(subject, (path, value)) is False
    assert kept(subject, (path, value), unless=True) is True


@pytest.mark.parametrize(("path", "value"), [*MATCHING, *OTHERS])
def test_on_arrival_the_index_decides_the_same_or_nothing(path: str, value: str) -> None:
    arriving, filed = Arriving(instance(whole())), in_file(whole())
    found = kept(arriving, (path, value))
    assert found in (kept(filed, (path, value)), None)
    is_read = path in ("KVP", "ConvolutionKernel", "AcquisitionDateTime", "Allergies")
    assert (found is None) == (
        is_read or path in ("ModalitiesInStudy", "PatientSpeciesCodeSequence")
    )


def test_keys_within_a_sequence_ask_for_one_item() -> None:
    subject = in_file(whole())
    sequence = "RequestAttributesSequence"
    step, procedure = f"{sequence}.ScheduledProcedureStepID", f"{sequence}.RequestedProcedureID"
    code = f"{sequence}.ScheduledProtocolCodeSequence.CodeValue"
    assert kept(subject, (step, "S2"), (procedure, "R2")) is True
    assert kept(subject, (step, "S2"), (procedure, "R1")) is False
    assert kept(subject, (step, "S1"), (code, "T-A0100")) is True
    assert kept(subject, (step, "S2"), (code, "T-A0100")) is False
    assert kept(subject, (step, "S3"), (procedure, "R3"), unless=True) is True
    assert kept(subject, (step, "S3"), (procedure, "R1"), unless=True) is False, "each alone"


def test_what_is_broken_stays_broken_whatever_is_unknown() -> None:
    arriving = Arriving(instance(whole()))
    assert kept(arriving, ("KVP", "120"), ("Modality", "MR")) is False
    assert kept(arriving, ("KVP", "120"), ("Modality", "CT")) is None
    assert kept(arriving, ("KVP", "120"), unless=True) is None


def test_other_instances_of_the_study_may_bring_a_modality() -> None:
    assert kept(in_file(whole()), ("ModalitiesInStudy", "MR")) is None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("Foo", "1", "not a DICOM keyword"),
        ("00080060", "CT", "not a DICOM keyword"),
        ("PatientName.Modality", "CT", "is no sequence"),
        ("RequestAttributesSequence", "S1", "name an attribute within it"),
        ("RequestAttributesSequence.Foo", "S1", "not a DICOM keyword"),
        ("StudyDate", "2024", "cannot be matched with"),
        ("StudyDate", "2024*", "cannot be matched with"),
        ("StudyTime", "25", "cannot be matched with"),
        ("Rows", "many", "cannot be matched with"),
        ("StudyInstanceUID", "1.2.*", "cannot be matched with"),
        ("PixelData", "*", "cannot be matched"),
        ("FrameIncrementPointer", "1", "cannot be matched"),
        ("TransferSyntaxUID", SYNTAX, "no attribute of an instance"),
        ("QueryRetrieveLevel", "STUDY", "no attribute of an instance"),
        ("NumberOfStudyRelatedInstances", "3", "changes while instances arrive"),
    ],
)
def test_keys_that_can_never_match_are_refused(path: str, value: str, said: str) -> None:
    with pytest.raises(EntryConflicts, match="(?i)" + said):
        conditions(replace(BARE, keys=(RouteKey(path=path, value=value),)), UTC)


def origin(**asked: Any) -> bool | None:
    return verdict(conditions(replace(BARE, **asked), UTC).all, Arriving(instance(whole())))


def test_ae_titles_match_with_wild_cards_and_any_of_them() -> None:
    assert origin(calling_ae_titles=("CT?",)) is True
    assert origin(calling_ae_titles=("MR*", "C*1")) is True
    assert origin(calling_ae_titles=("ct1",)) is False
    assert origin(called_ae_titles=("PACS",)) is True
    assert origin(called_ae_titles=("OTHER*",)) is False
    assert origin(calling_ae_titles=("CT1",), called_ae_titles=("OTHER",)) is False
    assert origin(registrants=(Registrant("local"),)) is True
    assert origin(registrants=(Registrant("loc"),)) is False
    with pytest.raises(EntryConflicts):
        origin(calling_ae_titles=("SEVENTEEN_LETTERS*",))


def window(begins: str, ends: str, *days: int) -> Window:
    return Window(
        days=frozenset(days), begins=time.fromisoformat(begins), ends=time.fromisoformat(ends)
    )


def at(text: str) -> datetime:
    """A local time of the week that begins on Monday, 5 January 2026: ``day HH:MM``."""
    day, _, clock = text.partition(" ")
    return datetime.combine(
        datetime(2026, 1, 5, tzinfo=UTC).date() + timedelta(days=int(day)),
        time.fromisoformat(clock),
        UTC,
    )


@pytest.mark.parametrize(
    ("held", "moments", "others"),
    [
        (window("00:00", "00:00"), ["0 00:00", "6 23:59"], []),
        (window("00:00", "00:00", 5, 6), ["5 00:00", "6 23:59"], ["4 23:59", "7 00:00"]),
        (window("07:00", "19:00"), ["0 07:00", "6 18:59:59"], ["0 06:59:59", "0 19:00"]),
        (window("07:00", "19:00", 0), ["0 12:00"], ["1 12:00", "0 20:00"]),
        (window("22:00", "06:00"), ["0 22:00", "1 05:59", "3 23:00"], ["0 06:00", "0 21:59"]),
        (window("22:00", "06:00", 4), ["4 22:00", "5 05:59"], ["4 05:00", "5 22:00", "5 06:00"]),
        (window("22:00", "06:00", 6), ["6 23:00", "0 01:00"], ["0 23:00", "6 01:00"]),
        (window("08:00", "08:00", 0), ["0 08:00", "1 07:59"], ["0 07:59", "1 08:00"]),
    ],
)
def test_windows_pass_midnight_and_belong_to_the_day_they_begin_on(
    held: Window, moments: list[str], others: list[str]
) -> None:
    assert [one for one in moments if not is_within(held, at(one))] == []
    assert [one for one in others if is_within(held, at(one))] == []


def test_windows_are_those_of_the_time_zone() -> None:
    night = replace(BARE, windows=(window("22:00", "06:00", 0),))
    subject = Arriving(instance(whole()))  # Monday 12:00 UTC
    tokyo = timezone(timedelta(hours=9))  # 21:00
    sydney = ZoneInfo("Australia/Brisbane")  # 22:00, never daylight saving
    assert verdict(conditions(night, UTC).all, subject) is False
    assert verdict(conditions(night, tokyo).all, subject) is False
    assert verdict(conditions(night, sydney).all, subject) is True
