"""Peers that wait for a second only get what takes longer to convert. PS3.4 Sections C.4.2 and C.4.3."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from tests import raw_peer
from tests.archive import Archive, Tool, run, serving, storescp
from tests.crash import ct
from tests.raw_peer import IMPLICIT_LITTLE, STUDY_ROOT, Instance, identifier
from tests.transcoding import ARC, EXPLICIT, encoded

STUDY = generate_uid()
J2K = ARC + "90"
PIXELS = np.random.default_rng(0).integers(0, 1 << 16, (1_536, 2_048)).astype("<u2")
"""Noise, of which JPEG 2000 takes long to make anything."""


def slow() -> Instance:
    one = ct(study=STUDY, series=generate_uid(), size_bytes=2)
    one.Rows, one.Columns = PIXELS.shape
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation = 15, 0
    stream = bytes(imagecodecs.jpeg2k_encode(PIXELS, level=0, codecformat="j2k"))
    one.PixelData = encapsulate([stream])
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    return Instance(
        sop_class_uid=one.SOPClassUID,
        sop_instance_uid=one.SOPInstanceUID,
        transfer_syntax_uid=J2K,
        data_set=encoded(one),
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    home = tmp_path_factory.mktemp("slow") / "home"
    settings = {"retrieve.pending_interval_s": "0.1", "jobs.workers": "0", "serve.listeners": "1"}
    with serving(home, settings=settings) as running:
        assert raw_peer.send(running.port, [slow()]) == [0]
        yield running


def test_a_move_says_that_it_is_at_work_and_calls_an_impatient_destination_again(
    archive: Archive, peer_tool: Tool, tmp_path: Path
) -> None:
    with storescp(peer_tool, tmp_path / "taken", "+x=", "-ts", "1") as receiver:
        archive.add_peer("IMPATIENT", receiver.port)
        with raw_peer.associated(archive.port, [(STUDY_ROOT + "2", [IMPLICIT_LITTLE])]) as one:
            asked = identifier("STUDY", StudyInstanceUID=STUDY)
            *pending, (last, _) = raw_peer.move(one, STUDY_ROOT, asked, "IMPATIENT")
        assert (last.Status, last.NumberOfCompletedSuboperations) == (0x0000, 1)
        (path,) = receiver.taken()
    assert dcmread(path).file_meta.TransferSyntaxUID == EXPLICIT
    assert np.array_equal(dcmread(path).pixel_array, PIXELS)
    assert len(pending) > 1
    for said, _ in pending:
        assert (said.Status, said.NumberOfRemainingSuboperations) == (0xFF00, 1)


def test_getscu_waits_as_long_as_it_is_told_that_there_is_more(
    archive: Archive, peer_tool: Tool, tmp_path: Path
) -> None:
    said = run(
        peer_tool("getscu"), "-v", "-S", "-td", "1", "-aec", "PACS", "-od", str(tmp_path),
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}",
        "127.0.0.1", str(archive.port),
    )  # fmt: skip
    assert said.code == 0, said.text
    (path,) = tmp_path.iterdir()
    assert np.array_equal(dcmread(path).pixel_array, PIXELS)
    assert said.text.count("Pending") > 1
