"""C-STORE as modalities see it: negotiation, duplicates, versions, conflicts, and a status per cause."""

import socket
from collections.abc import Callable, Iterator
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests import raw_peer
from tests.archive import Archive, Tool, run, serving
from tests.association_fakes import RELEASE_RQ, associate_rq, command, p_data, read_pdu
from tests.raw_peer import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT, Instance, identifier

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
ROOT = "1.2.826.0.1.3680043.10.999"
BIG, DEFLATED, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, JPEG_LOSSLESS, J2K = (f"1.2.840.10008.1.2.4.{one}" for one in (50, 70, 91))
PRIVATE_SYNTAX = f"{ROOT}.77"


@pytest.fixture(scope="module")
def archive(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    with serving(tmp_path_factory.mktemp("store") / "home", new_database()) as running:
        yield running


def image(number: int, *, patient: str = "P1", study: int | None = None) -> Dataset:
    """Make a small CT; each number is a study of its own unless ``study`` says otherwise."""
    one = Dataset()
    one.SOPClassUID = CT
    one.SOPInstanceUID = f"{ROOT}.{number}.3"
    one.StudyInstanceUID = f"{ROOT}.{study or number}"
    one.SeriesInstanceUID = f"{ROOT}.{number}.2"
    one.PatientID, one.PatientName = patient, "Test^Store"
    one.StudyDate, one.Modality = "20240102", "CT"
    one.Rows = one.Columns = 8
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    one.PixelData = bytes([number % 256, 1]) * 64
    one["PixelData"].VR = "OW"
    return one


def encoded(one: Dataset, syntax: str = EXPLICIT_LITTLE) -> bytes:
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = syntax != BIG, syntax == IMPLICIT_LITTLE
    write_dataset(target, one)
    return target.getvalue()


def instance(
    one: Dataset, syntax: str = EXPLICIT_LITTLE, data_set: bytes | None = None
) -> Instance:
    return Instance(
        sop_class_uid=str(one.SOPClassUID),
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=syntax,
        data_set=encoded(one, syntax) if data_set is None else data_set,
    )


def fetched(archive: Archive, one: Dataset, *syntaxes: str) -> list[Instance]:
    wanted = identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID)
    contexts = [(str(one.SOPClassUID), syntax) for syntax in syntaxes or (EXPLICIT_LITTLE,)]
    responses, arrived = raw_peer.get(archive.port, STUDY_ROOT, wanted, contexts)
    assert responses[-1][0].Status == 0x0000
    return arrived


# --- negotiation ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proposed", "chosen"),
    [
        ([IMPLICIT_LITTLE, BIG, EXPLICIT_LITTLE, JPEG_LOSSLESS], EXPLICIT_LITTLE),
        ([IMPLICIT_LITTLE, DEFLATED, JPEG_LOSSLESS, J2K], JPEG_LOSSLESS),
        ([BIG, IMPLICIT_LITTLE, DEFLATED], DEFLATED),
        ([BIG, IMPLICIT_LITTLE], IMPLICIT_LITTLE),
        ([JPEG, BIG, J2K], BIG),
        ([JPEG, J2K], JPEG),
        ([J2K, RLE, JPEG], RLE),
        ([PRIVATE_SYNTAX], PRIVATE_SYNTAX),
    ],
)
def test_one_context_gets_the_syntax_we_like_best(
    archive: Archive, proposed: list[str], chosen: str
) -> None:
    with raw_peer.associated(archive.port, [(CT, proposed)]) as association:
        (context,) = association.accepted_contexts
        assert context.transfer_syntax == [chosen]


def test_private_classes_are_taken_and_other_services_are_not(archive: Archive) -> None:
    private, print_class = f"{ROOT}.8", "1.2.840.10008.5.1.1.9"
    contexts = [(private, [EXPLICIT_LITTLE]), (print_class, [EXPLICIT_LITTLE])]
    with raw_peer.associated(archive.port, contexts) as association:
        assert [one.abstract_syntax for one in association.accepted_contexts] == [private]
        assert [one.result for one in association.rejected_contexts] == [3]


def test_a_role_nobody_can_take_costs_the_context_only(archive: Archive) -> None:
    """Who asks to be the only SCP of a query class is told no, and keeps the association."""
    contexts = [(STUDY_ROOT + raw_peer.FIND, [IMPLICIT_LITTLE]), (CT, [IMPLICIT_LITTLE])]
    everyone = [one for one, _ in contexts]
    with raw_peer.associated(
        archive.port, contexts, received=lambda _: 0, scp_roles=everyone
    ) as association:
        assert [one.abstract_syntax for one in association.accepted_contexts] == [CT]


# --- duplicates, versions, conflicts -------------------------------------------------


def test_the_same_bytes_again_are_success_and_nothing_new(archive: Archive) -> None:
    one = image(1)
    assert raw_peer.send(archive.port, [instance(one)]) == [0]
    before = archive.kept()
    assert raw_peer.send(archive.port, [instance(one), instance(one)]) == [0, 0]
    assert archive.kept() == before


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, BIG, RLE])
def test_the_same_content_in_another_syntax_is_nothing_new(archive: Archive, syntax: str) -> None:
    one = image({IMPLICIT_LITTLE: 2, BIG: 3, RLE: 4}[syntax])
    assert raw_peer.send(archive.port, [instance(one)]) == [0]
    before = archive.kept()
    assert raw_peer.send(archive.port, [again_in(one, syntax)]) == [0]
    assert archive.kept() == before
    (arrived,) = fetched(archive, one)
    assert arrived.data_set == encoded(one)


def again_in(one: Dataset, syntax: str) -> Instance:
    """Give the same elements and pixels in another syntax."""
    if syntax == RLE:
        packed = dcmread(BytesIO(encoded(one)), force=True)
        packed.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        packed.compress(RLELossless, generate_instance_uid=False)
        return instance(one, RLE, encoded(packed))
    copy = deepcopy(one)
    if syntax == BIG:
        pixels = one.PixelData
        copy.PixelData = bytes(
            byte for pair in zip(pixels[1::2], pixels[::2], strict=True) for byte in pair
        )
        copy["PixelData"].VR = "OW"
    return instance(copy, syntax)


def test_other_content_is_kept_listed_and_the_first_is_delivered(archive: Archive) -> None:
    first, second = image(5), image(5)
    second.StudyDescription = "something else"
    before = len(archive.kept())
    assert raw_peer.send(archive.port, [instance(first), instance(second)]) == [0, 0]
    assert len(archive.kept()) == before + 2
    (conflict,) = conflicts(archive, first.SOPInstanceUID)
    members = archive.listed("conflict", "show", str(conflict["id"]))
    assert [one["delivered"] for one in members] == [True, False]
    (arrived,) = fetched(archive, first)
    assert arrived.data_set == encoded(first)


def test_a_study_of_two_patients_is_found_under_both_and_listed(archive: Archive) -> None:
    first, second = image(6, patient="ANNA"), image(7, patient="BERTA", study=6)
    assert raw_peer.send(archive.port, [instance(first), instance(second)]) == [0, 0]
    assert len(conflicts(archive, first.StudyInstanceUID)) == 1
    model = raw_peer.PATIENT_ROOT
    with raw_peer.associated(archive.port, [(model + raw_peer.FIND, [IMPLICIT_LITTLE])]) as asking:
        for patient in ("ANNA", "BERTA"):
            wanted = identifier(
                "STUDY",
                PatientID=patient,
                StudyInstanceUID=first.StudyInstanceUID,
                NumberOfStudyRelatedInstances="",
            )
            (found,) = raw_peer.matches(asking, model, wanted)
            assert (found.PatientID, int(found.NumberOfStudyRelatedInstances)) == (patient, 1)


def test_a_series_of_two_studies_is_listed(archive: Archive) -> None:
    first, second = image(8), image(9)
    second.SeriesInstanceUID = first.SeriesInstanceUID
    assert raw_peer.send(archive.port, [instance(first), instance(second)]) == [0, 0]
    assert len(conflicts(archive, first.SeriesInstanceUID)) == 1
    assert len(fetched(archive, first)) == len(fetched(archive, second)) == 1


def conflicts(archive: Archive, uid: str) -> list[dict[str, object]]:
    return [one for one in archive.listed("conflict", "list") if one["uid"] == uid]


# --- a status per cause --------------------------------------------------------------


def deep(depth: int) -> Dataset:
    inner = Dataset()
    for _ in range(depth):
        outer = Dataset()
        outer.ReferencedStudySequence = Sequence([inner])
        inner = outer
    whole = image(20)
    whole.ReferencedStudySequence = Sequence([inner])
    return whole


def without(keyword: str) -> Dataset:
    one = image(21)
    delattr(one, keyword)
    return one


def changed(one: Instance, **changes: object) -> Instance:
    values = {name: getattr(one, name) for name in Instance.__dataclass_fields__}
    return Instance(**{**values, **changes})


GOOD = instance(image(22))
REFUSED = {
    "another SOP Class": (changed(GOOD, sop_class_uid=MR), 0xA900),
    "another SOP Instance": (changed(GOOD, sop_instance_uid=f"{ROOT}.1.9"), 0xA901),
    "no Data Set": (changed(GOOD, data_set=b"\xff" * 100), 0xC000),
    "a Part 10 file": (
        changed(GOOD, data_set=bytes(128) + b"DICM\x02\0\0\0UL\x04\0" + bytes(4)),
        0xC000,
    ),
    "cut within a value": (changed(GOOD, data_set=GOOD.data_set[:-10]), 0xC001),
    "cut within a header": (changed(GOOD, data_set=GOOD.data_set[:-130]), 0xC001),
    "too deep": (instance(deep(200)), 0xC002),
    "no Study Instance UID": (changed(GOOD, data_set=encoded(without("StudyInstanceUID"))), 0xC003),
    "no Series Instance UID": (
        changed(GOOD, data_set=encoded(without("SeriesInstanceUID"))),
        0xC003,
    ),
    "no SOP Instance UID": (changed(GOOD, data_set=encoded(without("SOPInstanceUID"))), 0xC003),
    "no SOP Class UID": (changed(GOOD, data_set=encoded(without("SOPClassUID"))), 0xC003),
}


@pytest.mark.parametrize("cause", REFUSED)
def test_what_has_no_meaning_is_refused_by_its_cause(archive: Archive, cause: str) -> None:
    bad, status = REFUSED[cause]
    before = archive.kept()
    other = instance(image(23))
    contexts = dict.fromkeys((bad.context, other.context))
    with raw_peer.associated(
        archive.port, [(one, [each]) for one, each in contexts]
    ) as association:
        assert raw_peer.store(association, bad) == status
        assert raw_peer.store(association, other) == 0x0000
    assert [one for one in archive.kept() if one not in before][1:] == []
    assert archive.arriving() == []


def test_an_empty_data_set_is_refused(archive: Archive) -> None:
    """By hand: no library sends one."""
    uid = GOOD.sop_instance_uid
    request = command(
        0x0001, data=True, Priority=2, AffectedSOPClassUID=CT, AffectedSOPInstanceUID=uid
    )
    with socket.create_connection(("127.0.0.1", archive.port), timeout=30) as connection:
        connection.sendall(associate_rq((CT, [EXPLICIT_LITTLE])))
        assert read_pdu(connection)[0] == 2
        connection.sendall(p_data((1, 3, request)) + p_data((1, 2, b"")))
        answer = read_pdu(connection)
        connection.sendall(RELEASE_RQ)
        assert read_pdu(connection)[0] == 6
    status = answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    assert answer[status + 8 : status + 10] == b"\x00\xc0"
    assert archive.arriving() == []


def odd_values() -> dict[str, Dataset]:
    """Make Data Sets that break rules no store may fail for."""
    unknown_charset, no_patient, private, odd_date = (image(number) for number in range(30, 34))
    unknown_charset.SpecificCharacterSet = "ISO_IR 9999"
    for keyword in ("PatientID", "PatientName", "StudyDate"):
        delattr(no_patient, keyword)
    private.add_new(0x00290010, "LO", "SOMEBODY")
    private.add_new(0x00291001, "UN", b"\xff\xfe\x00\x01")
    odd_date.add_new(0x00080020, "LO", "yesterday")
    return {
        "an unknown character set": unknown_charset,
        "no type 2 attributes": no_patient,
        "private elements": private,
        "a date that is none, in another VR": odd_date,
    }


@pytest.mark.parametrize("name", odd_values())
def test_oddities_never_fail_a_store(archive: Archive, name: str) -> None:
    one = odd_values()[name]
    assert raw_peer.send(archive.port, [instance(one)]) == [0]
    (arrived,) = fetched(archive, one)
    assert arrived.data_set == encoded(one)


def test_bytes_outside_the_character_set_never_fail_a_store(archive: Archive) -> None:
    one = image(40)
    data_set = encoded(one).replace(b"Test^Store", b"T\xffst^\x1b(X\xfee")
    assert raw_peer.send(archive.port, [instance(one, data_set=data_set)]) == [0]
    (arrived,) = fetched(archive, one)
    assert arrived.data_set == data_set


def test_reserve_refuses_before_the_disk_is_full(tmp_path: Path, peer_tool: Tool) -> None:
    settings = {"storage.reserve_bytes": str(1 << 49)}
    with serving(tmp_path / "home", settings=settings) as full:
        assert raw_peer.send(full.port, [instance(image(50))]) == [0xA700]
        assert full.kept() == full.arriving() == []
        assert run(peer_tool("echoscu"), "127.0.0.1", str(full.port)).code == 0


def test_a_larger_instance_than_allowed_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "home", settings={"storage.max_instance_bytes": "300"}) as small:
        assert raw_peer.send(small.port, [instance(image(51))]) == [0xA701]
        assert small.kept() == small.arriving() == []
