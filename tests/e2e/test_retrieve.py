"""C-MOVE and C-GET as workstations use them: levels, counters, cancel, refusals, receivers that take little."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import StoragePresentationContexts
from pynetdicom.association import Association

from tests import raw_peer
from tests.archive import Archive, Tool, data_set_of, free_port, run, serving, storescp
from tests.raw_peer import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    PATIENT_ROOT,
    STUDY_ROOT,
    Instance,
    Taken,
    identifier,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CT = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.10.997"
STUDY = f"{ROOT}.1"
COMPRESSED = "icometrix__dicom2nifti/tests/data/generic"


def image(study: int, series: int, number: int, sop_class: str = CT) -> Instance:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = sop_class, f"{ROOT}.{study}.{series}.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.{study}", f"{ROOT}.{study}.{series}"
    one.PatientID, one.PatientName, one.Modality = "MOVED", "Test^Retrieve", "CT"
    one.InstanceNumber = number
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, one)
    return Instance(
        sop_class_uid=sop_class,
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=EXPLICIT_LITTLE,
        data_set=target.getvalue(),
    )


RAWDEST = free_port()
HELD = [
    image(study, series, number) for study in (1, 2) for series in (1, 2) for number in (1, 2, 3)
]


@pytest.fixture(scope="module")
def archive(
    new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    with serving(tmp_path_factory.mktemp("retrieve") / "home", new_database()) as running:
        assert set(raw_peer.send(running.port, HELD)) == {0}
        running.add_peer("NOBODY", free_port())
        running.add_peer("RAWDEST", RAWDEST)
        yield running


@pytest.fixture
def mover(archive: Archive) -> Iterator[Association]:
    contexts = [(root + raw_peer.MOVE, [IMPLICIT_LITTLE]) for root in (PATIENT_ROOT, STUDY_ROOT)]
    with raw_peer.associated(archive.port, contexts) as one:
        yield one


def uids(some: list[Instance]) -> list[str]:
    return sorted(one.sop_instance_uid for one in some)


def below(prefix: str) -> list[str]:
    return sorted(one.sop_instance_uid for one in HELD if one.sop_instance_uid.startswith(prefix))


SELECTIONS: dict[str, tuple[str, Dataset, list[str]]] = {
    "a patient": (PATIENT_ROOT, identifier("PATIENT", PatientID="MOVED"), uids(HELD)),
    "a study of a patient": (
        PATIENT_ROOT,
        identifier("STUDY", PatientID="MOVED", StudyInstanceUID=STUDY),
        below(f"{STUDY}."),
    ),
    "a study": (STUDY_ROOT, identifier("STUDY", StudyInstanceUID=STUDY), below(f"{STUDY}.")),
    "two studies": (
        STUDY_ROOT,
        identifier("STUDY", StudyInstanceUID=[STUDY, f"{ROOT}.2"]),
        uids(HELD),
    ),
    "a series": (
        STUDY_ROOT,
        identifier("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.2"),
        below(f"{STUDY}.2."),
    ),
    "two images": (
        STUDY_ROOT,
        identifier(
            "IMAGE",
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.1",
            SOPInstanceUID=[f"{STUDY}.1.1", f"{STUDY}.1.3"],
        ),
        [f"{STUDY}.1.1", f"{STUDY}.1.3"],
    ),
    "nothing": (STUDY_ROOT, identifier("STUDY", StudyInstanceUID=f"{ROOT}.404"), []),
}


def counters(status: Dataset) -> tuple[int, ...]:
    names = ("Remaining", "Completed", "Failed", "Warning")
    return tuple(int(status.get(f"NumberOf{one}Suboperations", 0) or 0) for one in names)


@pytest.mark.parametrize("name", SELECTIONS)
def test_get_delivers_what_is_selected_with_true_counters(archive: Archive, name: str) -> None:
    model, asked, expected = SELECTIONS[name]
    responses, arrived = raw_peer.get(archive.port, model, asked, [(CT, EXPLICIT_LITTLE)])
    assert uids(arrived) == expected
    total = len(expected)
    assert [one.Status for one, _ in responses] == [0xFF00] * max(total - 1, 0) + [0]
    for number, (one, _) in enumerate(responses[:-1], start=1):
        assert counters(one) == (total - number, number, 0, 0)
    assert counters(responses[-1][0]) == (0, total, 0, 0)
    sent = {one.sop_instance_uid: one.data_set for one in HELD}
    assert all(one.data_set == sent[one.sop_instance_uid] for one in arrived)


@pytest.mark.parametrize("name", SELECTIONS)
def test_move_delivers_what_is_selected_and_tells_who_asked(
    archive: Archive, mover: Association, name: str
) -> None:
    model, asked, expected = SELECTIONS[name]
    taken = Taken()
    with raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], taken, RAWDEST):
        responses = raw_peer.move(mover, model, asked, "RAWDEST", message_id=77)
    assert uids(taken.instances) == expected
    assert {(str(one).strip(), number) for one, number in taken.originators} <= {("RAWPEER", 77)}
    assert responses[-1][0].Status == 0
    assert counters(responses[-1][0]) == (0, len(expected), 0, 0)
    for number, (one, _) in enumerate(responses[:-1], start=1):
        assert (one.Status, counters(one)) == (0xFF00, (len(expected) - number, number, 0, 0))


def test_what_the_receiver_refuses_is_counted_and_named(
    archive: Archive, mover: Association
) -> None:
    refused = f"{STUDY}.1.2"

    def picky(event: Any) -> int:
        return 0xA700 if event.request.AffectedSOPInstanceUID == refused else 0xB000

    with raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], picky, RAWDEST):
        responses = raw_peer.move(mover, *SELECTIONS["a study"][:2], "RAWDEST")
    status, failed = responses[-1]
    assert status.Status == 0xB000
    assert counters(status) == (0, 0, 1, 5)
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == refused


def test_a_destination_nobody_knows_is_refused(mover: Association) -> None:
    ((status, _),) = raw_peer.move(mover, *SELECTIONS["a study"][:2], "UNKNOWN")
    assert status.Status == 0xA801


def test_a_destination_that_is_down_fails_every_suboperation(mover: Association) -> None:
    status, failed = raw_peer.move(mover, *SELECTIONS["a study"][:2], "NOBODY")[-1]
    assert status.Status == 0xA702
    assert counters(status) == (0, 0, 6, 0)
    assert failed is not None
    assert sorted(failed.FailedSOPInstanceUIDList) == below(f"{STUDY}.")


KEYS = {
    "no key": (STUDY_ROOT, identifier("STUDY")),
    "an empty key": (STUDY_ROOT, identifier("STUDY", StudyInstanceUID="")),
    "a wildcard": (PATIENT_ROOT, identifier("PATIENT", PatientID="MOV*")),
    "no key above": (STUDY_ROOT, identifier("SERIES", SeriesInstanceUID=f"{STUDY}.1")),
    "an empty key above": (
        STUDY_ROOT,
        identifier("SERIES", StudyInstanceUID="", SeriesInstanceUID=f"{STUDY}.1"),
    ),
    "a list above": (
        STUDY_ROOT,
        identifier("SERIES", StudyInstanceUID=[STUDY, f"{ROOT}.2"], SeriesInstanceUID=f"{STUDY}.1"),
    ),
    "no patient": (PATIENT_ROOT, identifier("STUDY", StudyInstanceUID=STUDY)),
    "a level of another model": (STUDY_ROOT, identifier("PATIENT", PatientID="MOVED")),
}


@pytest.mark.parametrize("fault", KEYS)
def test_unique_keys_are_needed(archive: Archive, mover: Association, fault: str) -> None:
    model, asked = KEYS[fault]
    ((status, _),) = raw_peer.move(mover, model, asked, "NOBODY")
    assert status.Status == 0xA900
    assert "OffendingElement" in status
    responses, arrived = raw_peer.get(archive.port, model, asked, [(CT, EXPLICIT_LITTLE)])
    assert [one.Status for one, _ in responses] == [0xA900]
    assert arrived == []


def test_relational_retrieval_needs_no_keys_above(archive: Archive) -> None:
    uid = STUDY_ROOT + raw_peer.MOVE
    taken = Taken()
    with (
        raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], taken, RAWDEST),
        raw_peer.associated(
            archive.port, [(uid, [IMPLICIT_LITTLE])], extended=[(uid, b"\x01")]
        ) as mover,
    ):
        responses = raw_peer.move(mover, *KEYS["no key above"], "RAWDEST")
    assert responses[-1][0].Status == 0
    assert uids(taken.instances) == below(f"{STUDY}.1.")


def test_a_move_is_cancelled_between_suboperations(archive: Archive, mover: Association) -> None:
    def cancelling(event: Any) -> int:
        mover.send_c_cancel(5, query_model=STUDY_ROOT + raw_peer.MOVE)
        time.sleep(0.2)  # time to hear of it on the other association, twelve times over
        return 0

    with raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], cancelling, RAWDEST):
        responses = raw_peer.move(mover, *SELECTIONS["two studies"][:2], "RAWDEST", message_id=5)
    status = responses[-1][0]
    remaining, completed, *_ = counters(status)
    assert status.Status == 0xFE00
    assert remaining > 0
    assert completed + remaining == len(HELD)


def test_more_contexts_than_one_association_holds(
    new_database: Callable[[], str], tmp_path: Path
) -> None:
    """Two presentation contexts for each SOP Class: 64 classes fill an association."""
    known = [str(one.abstract_syntax) for one in StoragePresentationContexts]
    classes = [one for one in known if one.startswith("1.2.840.10008.5.1.4.")]
    private = [f"{ROOT}.99.{number}" for number in range(6)]
    assert len(classes) > 64
    some = [image(9, 1, number, one) for number, one in enumerate([*classes, *private])]
    connections, taken = list[int](), Taken()

    def counting(event: Any) -> int:
        connections.append(id(event.assoc))
        return taken(event)

    supported = [(one, [EXPLICIT_LITTLE]) for one in [*classes, *private]]
    with (
        serving(tmp_path / "home", new_database()) as archive,
        raw_peer.receiving(supported, counting) as port,
    ):
        assert set(raw_peer.send(archive.port, some[:100])) == {0}
        assert set(raw_peer.send(archive.port, some[100:])) == {0}
        archive.add_peer("RAWDEST", port)
        model = [(STUDY_ROOT + raw_peer.MOVE, [IMPLICIT_LITTLE])]
        asked = identifier("STUDY", StudyInstanceUID=f"{ROOT}.9")
        with raw_peer.associated(archive.port, model) as mover:
            responses = raw_peer.move(mover, STUDY_ROOT, asked, "RAWDEST")
    assert responses[-1][0].Status == 0
    assert uids(taken.instances) == uids(some)
    assert len(set(connections)) == -(-len(some) // 64)


def test_receiver_of_implicit_little_endian_gets_decompressed_originals(
    samples: Path, peer_tool: Tool, new_database: Callable[[], str], tmp_path: Path
) -> None:
    """RLE, JPEG lossless, JPEG-LS and JPEG 2000, decoded by pydicom and by us."""
    folders = ("compressed_rle", "compressed", "compressed_jpegls", "compressed_jpeg")
    paths = [
        samples / COMPRESSED / folder / f"001/IM-0001-000{number}-0001.dcm"
        for number, folder in enumerate(folders, start=1)
    ]
    originals = {str(one.SOPInstanceUID): one for one in map(dcmread, paths)}
    assert len(originals) == len({one.file_meta.TransferSyntaxUID for one in originals.values()})
    with (
        serving(tmp_path / "home", new_database()) as archive,
        storescp(peer_tool, tmp_path / "in", "+xi") as receiver,
    ):
        archive.add_peer("IMPLICIT", receiver.port)
        assert set(raw_peer.send(archive.port, map(as_stored, paths))) == {0}
        for uid in {str(one.StudyInstanceUID) for one in originals.values()}:
            said = run(
                peer_tool("movescu"), "-v", "-S", "-aem", "IMPLICIT",
                "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}",
                "127.0.0.1", str(archive.port),
            )  # fmt: skip
            assert "Received Final Move Response (Success)" in said.text
        arrived = [dcmread(one) for one in receiver.taken()]
    assert sorted(str(one.SOPInstanceUID) for one in arrived) == sorted(originals)
    for got in arrived:
        original = originals[str(got.SOPInstanceUID)]
        assert got.file_meta.TransferSyntaxUID == IMPLICIT_LITTLE
        assert np.array_equal(got.pixel_array, original.pixel_array)
        assert same_elements(got, original)


def as_stored(path: Path) -> Instance:
    one = dcmread(path, stop_before_pixels=True)
    return Instance(
        sop_class_uid=str(one.SOPClassUID),
        sop_instance_uid=str(one.SOPInstanceUID),
        transfer_syntax_uid=str(one.file_meta.TransferSyntaxUID),
        data_set=data_set_of(path),
    )


def same_elements(got: Dataset, original: Dataset) -> bool:
    """Everything but the pixels is as it was, nested items included."""
    for one in (got, original):
        del one.PixelData
        one.remove_private_tags()
    tags = {int(one.tag) for one in original if one.tag.element} - {0x00280006}
    return all(got[tag].value == original[tag].value for tag in tags)
