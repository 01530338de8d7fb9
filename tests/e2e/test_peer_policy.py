"""What a peer's policy changes on the wire: the form in which instances arrive, and how fast they leave."""

import io
import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from pacs.services.delivery.choice import LOSSLESS
from tests import raw_peer
from tests.archive import Archive, Tool, free_port, serving, storescp
from tests.association_fakes import until
from tests.raw_peer import EXPLICIT_LITTLE, IMPLICIT_LITTLE, STUDY_ROOT, Instance, Taken, identifier
from tests.settled import known

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CT = "1.2.840.10008.5.1.4.1.1.2"
RLE = "1.2.840.10008.1.2.5"
STUDY = "1.2.826.0.1.3680043.10.996.1"
TOTAL, SIDE = 12, 256
MBIT_S = 8.0
_NUMBERS = itertools.count(1)


def image(number: int, *, compressed: bool) -> tuple[Instance, np.ndarray]:
    """Give an instance as it is stored, and its pixels."""
    pixels = np.random.default_rng(number).integers(0, 4_096, (SIDE, SIDE)).astype("<u2")
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = CT, f"{STUDY}.{1 + compressed}.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = STUDY, f"{STUDY}.{1 + compressed}"
    one.PatientID, one.PatientName, one.Modality = "POLICY", "Test^Policy", "CT"
    one.Rows = one.Columns = SIDE
    one.SamplesPerPixel, one.PixelRepresentation = 1, 0
    one.PhotometricInterpretation = "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 12, 11
    one.PixelData = pixels.tobytes()
    if compressed:
        one.compress(RLELossless, generate_instance_uid=False)
    syntax = one.file_meta.TransferSyntaxUID
    del one.file_meta
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, one)
    return (
        Instance(
            sop_class_uid=CT,
            sop_instance_uid=str(one.SOPInstanceUID),
            transfer_syntax_uid=str(syntax),
            data_set=target.getvalue(),
        ),
        pixels,
    )


MADE = [
    image(number, compressed=compressed) for compressed in (False, True) for number in range(TOTAL)
]
HELD = {one.sop_instance_uid: one for one, _ in MADE}
PIXELS = {one.sop_instance_uid: pixels for one, pixels in MADE}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with serving(tmp_path_factory.mktemp("policy") / "home") as running:
        assert set(raw_peer.send(running.port, HELD.values())) == {0}
        yield running


def add(archive: Archive, ae_title: str, port: int, *policy: str) -> None:
    """Name a peer; one that is new, for what is known already tells nothing of a change."""
    archive.pacs("peer", "add", ae_title, "127.0.0.1", str(port), *policy)
    known(archive.port, ae_title)


def moved(archive: Archive, *policy: str) -> dict[str, Instance]:
    """Have the study sent to a peer of that policy that takes every syntax it is offered."""
    taken, port = Taken(), free_port()
    destination = f"DEST{next(_NUMBERS)}"
    add(archive, destination, port, *policy)
    with (
        raw_peer.receiving([(CT, [EXPLICIT_LITTLE])], taken, port),
        raw_peer.associated(archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as mover,
    ):
        responses = raw_peer.move(
            mover, STUDY_ROOT, identifier("STUDY", StudyInstanceUID=STUDY), destination
        )
    last = responses[-1][0]
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 2 * TOTAL)
    assert len(taken.instances) == 2 * TOTAL
    return {one.sop_instance_uid: one for one in taken.instances}


def shows_the_same(received: Instance) -> bool:
    """Its pixels are those that went in."""
    one = Dataset()
    file = io.BytesIO()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = received.transfer_syntax_uid
    one.file_meta.MediaStorageSOPClassUID = CT
    one.file_meta.MediaStorageSOPInstanceUID = received.sop_instance_uid
    one.save_as(file, enforce_file_format=True)
    file.write(received.data_set)
    file.seek(0)
    return np.array_equal(dcmread(file).pixel_array, PIXELS[received.sop_instance_uid])


def syntaxes(received: dict[str, Instance], *, stored: str) -> set[str]:
    """In which syntaxes those arrived that are stored in this one."""
    return {
        one.transfer_syntax_uid
        for uid, one in received.items()
        if HELD[uid].transfer_syntax_uid == stored
    }


EVERYTHING = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, RLE)


@pytest.mark.parametrize("policy", [(), ("--encoding", "as-stored")])
def test_as_stored_is_as_stored(archive: Archive, policy: tuple[str, ...]) -> None:
    assert moved(archive, *policy) == HELD


def test_uncompressed_decompresses_what_would_be_taken_compressed(archive: Archive) -> None:
    received = moved(archive, "--encoding", "uncompressed", "--associations", "2")
    assert syntaxes(received, stored=RLE) == {EXPLICIT_LITTLE}
    for uid, one in received.items():
        assert shows_the_same(one)
        if HELD[uid].transfer_syntax_uid == EXPLICIT_LITTLE:
            assert one == HELD[uid]


def test_uncompressed_to_a_peer_that_takes_only_implicit(
    archive: Archive, peer_tool: Tool, tmp_path: Path
) -> None:
    with storescp(peer_tool, tmp_path / "in", "+xi") as receiver:
        add(archive, "PLAIN", receiver.port, "--encoding", "uncompressed", "--associations", "2")
        with raw_peer.associated(archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as mover:
            raw_peer.move(mover, STUDY_ROOT, identifier("STUDY", StudyInstanceUID=STUDY), "PLAIN")
        received = [dcmread(one) for one in receiver.taken()]
    assert sorted(one.SOPInstanceUID for one in received) == sorted(HELD)
    for one in received:
        assert one.file_meta.TransferSyntaxUID == IMPLICIT_LITTLE
        assert np.array_equal(one.pixel_array, PIXELS[one.SOPInstanceUID])


def test_compressed_leaves_what_is_compressed_as_it_lies(archive: Archive) -> None:
    received = moved(archive, "--encoding", "compressed")
    lossless = {EXPLICIT_LITTLE, *LOSSLESS.values()}
    assert syntaxes(received, stored=EXPLICIT_LITTLE) <= lossless
    for uid, one in received.items():
        if HELD[uid].transfer_syntax_uid == RLE:
            assert one == HELD[uid]


def got(archive: Archive, takes: Sequence[str]) -> dict[str, Instance]:
    asked = identifier("STUDY", StudyInstanceUID=STUDY)
    responses, received = raw_peer.get(
        archive.port, STUDY_ROOT, asked, [(CT, one) for one in takes]
    )
    assert responses[-1][0].Status == 0x0000
    return {one.sop_instance_uid: one for one in received}


def test_a_get_follows_the_policy_of_who_calls(archive: Archive) -> None:
    """The calling AE title names the peer; what it did not propose cannot be chosen."""
    assert got(archive, EVERYTHING) == HELD, "nobody knows RAWPEER: as stored"
    add(archive, "RAWPEER", free_port(), "--encoding", "uncompressed")
    received = got(archive, EVERYTHING)
    assert syntaxes(received, stored=RLE) == {EXPLICIT_LITTLE}
    assert all(map(shows_the_same, received.values()))
    assert syntaxes(got(archive, (RLE, IMPLICIT_LITTLE)), stored=RLE) == {IMPLICIT_LITTLE}
    archive.pacs("peer", "remove", "RAWPEER")


@pytest.mark.parametrize("associations", ["1", "3"])
def test_a_move_is_not_faster_than_the_peers_rate(
    archive: Archive, peer_tool: Tool, tmp_path: Path, associations: str
) -> None:
    paced = f"PACED{associations}"
    with storescp(peer_tool, tmp_path / "in") as receiver:
        policy = ("--rate", str(MBIT_S), "--associations", associations)
        add(archive, paced, receiver.port, *policy)
        began_s = time.monotonic()
        with raw_peer.associated(archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as mover:
            responses = raw_peer.move(
                mover, STUDY_ROOT, identifier("STUDY", StudyInstanceUID=STUDY), paced
            )
        took_s = time.monotonic() - began_s
        files = receiver.taken()
    assert responses[-1][0].NumberOfCompletedSuboperations == len(files) == 2 * TOTAL
    sent_bytes = sum(len(one.data_set) for one in HELD.values())
    saved_s = 0.2  # an idle line's credit, and the last piece needs no time of its own
    assert took_s >= sent_bytes / (MBIT_S * 125_000) - saved_s


def leftovers(archive: Archive) -> list[Path]:
    return list((archive.home / "work").rglob("transcode-*"))


@pytest.mark.parametrize("ending", ["cancel", "abort"])
def test_a_paced_move_that_ends_early_leaves_nothing_behind(
    archive: Archive, peer_tool: Tool, tmp_path: Path, ending: str
) -> None:
    """It would take minutes; what was converted ahead is removed, and no association stays."""
    crawling = f"CRAWL{ending}"
    with storescp(peer_tool, tmp_path / "in") as receiver:
        policy = ("--rate", "0.2", "--encoding", "uncompressed", "--associations", "2")
        add(archive, crawling, receiver.port, *policy)
        with raw_peer.associated(archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as mover:
            series = identifier("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.2")
            model, began = STUDY_ROOT + "2", threading.Event()

            def end() -> None:
                assert until(lambda: bool(leftovers(archive)), 60)
                began.set()
                if ending == "cancel":
                    mover.send_c_cancel(1, query_model=model)
                    return
                mover.abort()
                mover.dimse.msg_queue.put((None, None))  # or pynetdicom waits for half a minute

            ender = threading.Thread(target=end)
            ender.start()
            responses = raw_peer.move(mover, STUDY_ROOT, series, crawling)
            ender.join(60)
        assert began.is_set()
        if ending == "cancel":
            assert responses[-1][0].Status == 0xFE00
            assert responses[-1][0].NumberOfRemainingSuboperations > 0
        assert until(lambda: not leftovers(archive))
        assert len(receiver.taken()) < TOTAL
