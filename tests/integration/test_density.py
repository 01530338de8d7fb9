"""A purpose that bounds pixel density, as receivers meet it: what is denser arrives reduced, or not at all."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import JPEGLSLossless, generate_uid
from scipy import ndimage

from pacs.app.archive import Archive
from pacs.app.gate import contract_gate
from pacs.app.listening import listening
from pacs.core.caller import Right
from pacs.core.contract import Purpose
from tests import raw_peer
from tests.archive import Tool, run, storescp
from tests.association_fakes import FakeAudit
from tests.keeping import ADMIN, keep, loaded_for, opened
from tests.legitimacy import Book, contract, device
from tests.phantoms import CT, Array, ct_series, hounsfield, image, patient
from tests.raw_peer import EXPLICIT_LITTLE, IMPLICIT_LITTLE, MOVE, STUDY_ROOT, Instance, identifier

XA, ULTRASOUND = "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.6.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
CLASSES = (CT, XA, ULTRASOUND, SECONDARY_CAPTURE, REPORT)
BOUND_PX = 256
READER = "READER"
WITHIN_S = 60
RIGHTS = frozenset({Right.QUERY, Right.RECEIVE})


@dataclass(frozen=True, kw_only=True)
class Place:
    """The archive behind a contract with a purpose, and what it holds by name."""

    archive: Archive
    book: Book
    port: int
    held: dict[str, FileDataset]

    def asked(self, *names: str, purpose: str = "teaching") -> Dataset:
        some = [self.held[one] for one in names] or list(self.held.values())
        asked = identifier(
            "IMAGE",
            StudyInstanceUID=some[0].StudyInstanceUID,
            SeriesInstanceUID=some[0].SeriesInstanceUID,
            SOPInstanceUID=[one.SOPInstanceUID for one in some],
        )
        asked.private_block(0x3109, "PACS ARCHIVE 1", create=True).add_new(3, "LO", purpose)
        return asked

    def got(
        self, *names: str, classes: tuple[str, ...] = CLASSES, syntax: str = EXPLICIT_LITTLE
    ) -> tuple[Dataset, set[str], list[Instance]]:
        """C-GET: the last response, what failed, what came."""
        contexts = [(one, syntax) for one in classes]
        responses, arrived = raw_peer.get(
            self.port, STUDY_ROOT, self.asked(*names), contexts, ae_title=READER
        )
        last, failed = responses[-1]
        return last, listed(failed), arrived

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for file in sorted((self.archive.home / "audit").glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]
        return [one for one in lines if one["event"] == event]

    def processed(self) -> list[tuple[Any, ...]]:
        """Subscriber, purpose, operation and study of what was done, with all its images and bytes."""
        return list(
            self.archive.database.execute(
                "SELECT subscriber, purpose, operation, study_instance_uid, SUM(amount), SUM(bytes) "
                "FROM usage_fact WHERE kind = 'process' GROUP BY 1, 2, 3, 4"
            )
        )

    def sent(self) -> tuple[int, int]:
        """Instances and bytes of all deliveries, however many facts they are."""
        ((amount, size_bytes),) = self.archive.database.execute(
            "SELECT COALESCE(SUM(amount), 0), COALESCE(SUM(bytes), 0) "
            "FROM usage_fact WHERE kind = 'deliver'"
        )
        return int(amount), int(size_bytes)

    def clean(self) -> bool:
        """Tell whether nothing is being made and no file of a reduction is left."""
        return self.archive.shipping._ahead.used == (0, 0) and not list(
            self.archive.scratch.glob("process-*")
        )


def listed(failed: Dataset | None) -> set[str]:
    value = [] if failed is None else failed.FailedSOPInstanceUIDList
    return {value} if isinstance(value, str) else set(value)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to hold"
        time.sleep(0.02)


# --- what is held ------------------------------------------------------------------------


def slices(study: Dataset, count: int, side_px: int) -> list[FileDataset]:
    return ct_series(
        count=count, rows=side_px, columns=side_px, spacing_mm=64 / side_px, study=study
    )


def frames(study: Dataset) -> FileDataset:
    """A run of X-rays, wider than high."""
    rng = np.random.default_rng(11)
    made = image(rng.integers(0, 200, (4, 300, 500)).astype(np.uint8), study, sop_class=XA)
    made.NumberOfFrames, made.Modality = 4, "XA"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(made, name)
    made.ImagerPixelSpacing = [0.2, 0.2]
    return made


def palette(study: Dataset) -> FileDataset:
    """An ultrasound image whose samples name colours: blocks of 16 pixels."""
    rng = np.random.default_rng(12)
    samples = np.kron(rng.integers(0, 256, (20, 32)), np.ones((16, 16))).astype(np.uint8)
    made = image(samples, study, sop_class=ULTRASOUND)
    made.Modality, made.PhotometricInterpretation = "US", "PALETTE COLOR"
    for number, color in enumerate(("Red", "Green", "Blue")):
        setattr(made, f"{color}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.arange(256) * (number + 1) % 256 * 257).astype("<u2")
        setattr(made, f"{color}PaletteColorLookupTableData", table.tobytes())
    return made


def shared(study: Dataset) -> FileDataset:
    """Two frames of ultrasound, gray, of which two pixels share their chrominance."""
    made = image(np.zeros((320, 512), np.uint8), study, sop_class=ULTRASOUND)
    made.Modality, made.NumberOfFrames, made.SamplesPerPixel = "US", 2, 3
    made.PhotometricInterpretation, made.PlanarConfiguration = "YBR_FULL_422", 0
    pairs = np.full((2, 320, 256, 4), 128, np.uint8)
    pairs[..., :2] = np.array((50, 200)).reshape(2, 1, 1, 1)
    made.PixelData = pairs.tobytes()
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(made, name)
    return made


def report(study: Dataset) -> FileDataset:
    made = image(np.zeros((1, 1), np.uint16), study, sop_class=REPORT)
    made.Modality = "SR"
    for name in ("PixelData", "Rows", "Columns"):
        delattr(made, name)
    return made


def contents() -> dict[str, FileDataset]:
    """What is held, all in one series so that one question names it."""
    study = patient()
    ct_1, ct_2 = slices(study, 2, 512)
    small, dose = slices(study, 2, 256)
    wide = image(np.arange(300 * 600, dtype=np.uint16).reshape(300, 600), study)
    broken = image(np.ones((512, 512), np.uint16), study)
    broken.PixelData = broken.PixelData[:1000]
    held = {
        "ct 1": ct_1,
        "ct 2": ct_2,
        "small": small,
        "smaller": dose,
        "wide": wide,
        "frames": frames(study),
        "palette": palette(study),
        "shared": shared(study),
        "report": report(study),
        "broken": broken,
    }
    series = generate_uid()
    for one in held.values():
        one.SeriesInstanceUID = series
    return held


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("density")
    # No right to have anything processed: the purpose says so once more.
    terms = contract(
        rights=RIGHTS, purposes=(Purpose(name="teaching", max_matrix=BOUND_PX, process=False),)
    )
    book = Book(terms, device(READER, host="127.0.0.1"))
    gate = contract_gate(home, loaded_for(home).settings, snapshots=book, audit=FakeAudit())
    with opened(home, gate=gate) as archive:
        held = contents()
        for one in held.values():
            keep(archive, Dataset(dict(one.items())), registrant="alpha")
        with listening(archive) as port:
            yield Place(archive=archive, book=book, port=port, held=held)


def read(one: Instance) -> FileDataset:
    """The Data Set that came, as a file would have it."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = one.transfer_syntax_uid
    meta.MediaStorageSOPClassUID = one.sop_class_uid
    meta.MediaStorageSOPInstanceUID = one.sop_instance_uid
    found = read_dataset(BytesIO(one.data_set), False, True)
    assert (found.SOPClassUID, found.SOPInstanceUID) == (one.sop_class_uid, one.sop_instance_uid)
    return FileDataset("", found, file_meta=meta, preamble=b"\0" * 128)


def halved(values: Array) -> Array:
    """A plane of half the size by a formula of our own: smoothed a little, then the mean of four."""
    smooth = ndimage.gaussian_filter(values, 0.5, mode="nearest")
    rows, columns = values.shape
    quarters: Array = smooth.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return quarters


# --- what arrives ------------------------------------------------------------------------


def test_a_dense_image_arrives_reduced_beside_one_that_is_within(
    place: Place, tmp_path: Path, peer_tool: Tool
) -> None:
    source, small = place.held["ct 1"], place.held["small"]
    last, failed, arrived = place.got("ct 1", "small")
    assert (last.Status, last.NumberOfCompletedSuboperations, failed) == (0x0000, 2, set())
    came = {one.SOPInstanceUID: one for one in map(read, arrived)}
    assert came.pop(small.SOPInstanceUID).PixelData == small.PixelData
    (reduced,) = came.values()
    assert (reduced.Rows, reduced.Columns) == (256, 256)
    assert np.abs(hounsfield(reduced) - halved(hounsfield(source))).max() <= 0.5 + 1e-6
    assert [float(one) for one in reduced.PixelSpacing] == [0.25, 0.25], "0.125 mm before"
    first = [float(one) for one in source.ImagePositionPatient]
    moved = [first[0] + 0.0625, first[1] + 0.0625, first[2]]
    assert [float(one) for one in reduced.ImagePositionPatient] == pytest.approx(moved, abs=1e-6)
    assert reduced.SOPClassUID == CT
    assert list(reduced.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert reduced.DerivationDescription.startswith("resize ")
    assert "factor=0.5" in reduced.DerivationDescription
    assert reduced.DerivationCodeSequence[0].CodeValue == "113085"
    assert reduced.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reduced.StudyInstanceUID == source.StudyInstanceUID
    assert reduced.SeriesInstanceUID != source.SeriesInstanceUID
    tool = peer_tool("dciodvfy")
    assert errors(tool, reduced, tmp_path) <= errors(tool, source, tmp_path)


def errors(tool: str, one: FileDataset, folder: Path) -> set[str]:
    """What dciodvfy calls an error."""
    path = folder / f"{one.SOPInstanceUID}.dcm"
    one.save_as(path, enforce_file_format=True)
    said = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
    return {line for line in said.stderr.splitlines() if line.startswith("Error")}


def test_who_asks_twice_gets_the_same_objects_in_one_series(place: Place) -> None:
    once, again = (place.got("ct 1", "ct 2")[2] for _ in range(2))
    assert [one.data_set for one in once] == [one.data_set for one in again]
    assert len({one.sop_instance_uid for one in once}) == 2
    assert len({read(one).SeriesInstanceUID for one in once}) == 1
    for one in once:
        assert one.sop_instance_uid.startswith("2.25.")
        assert len(one.sop_instance_uid) <= 64


def test_another_bound_is_another_object(place: Place) -> None:
    (at_256,) = place.got("ct 1")[2]
    terms = place.book.snapshot.contracts["alpha"]  # type: ignore[index]
    place.book.write(contract(rights=RIGHTS, purposes=(Purpose(name="teaching", max_matrix=200),)))
    try:
        (at_200,) = place.got("ct 1")[2]
    finally:
        place.book.write(terms)
    assert read(at_200).Rows == 200
    assert at_200.sop_instance_uid != at_256.sop_instance_uid
    assert read(at_200).SeriesInstanceUID != read(at_256).SeriesInstanceUID


def test_the_shape_stays_and_so_do_frames(place: Place) -> None:
    last, _, arrived = place.got("wide", "frames")
    assert last.Status == 0x0000
    wide, run = sorted(map(read, arrived), key=lambda one: str(one.Modality))
    assert (wide.SOPClassUID, wide.Rows, wide.Columns) == (CT, 128, 256)
    assert [float(one) for one in wide.PixelSpacing] == pytest.approx([300 / 128, 600 / 256])
    assert (run.SOPClassUID, run.NumberOfFrames, run.Rows, run.Columns) == (XA, 4, 154, 256)
    expected = [0.2 * 300 / 154, 0.2 * 500 / 256]
    assert [float(one) for one in run.ImagerPixelSpacing] == pytest.approx(expected)
    before, after = hounsfield(place.held["frames"]), hounsfield(run)
    assert np.abs(after.mean(axis=(1, 2)) - before.mean(axis=(1, 2))).max() < 1, "frame by frame"


def test_a_palette_becomes_a_secondary_capture_in_colours(place: Place) -> None:
    last, _, (capture,) = place.got("palette")
    assert last.Status == 0x0000
    found, source = read(capture), place.held["palette"]
    assert (found.SOPClassUID, found.Rows, found.Columns) == (SECONDARY_CAPTURE, 160, 256)
    assert (found.PhotometricInterpretation, found.BitsStored) == ("RGB", 16)
    colors = np.frombuffer(found.PixelData, "<u2").reshape(160, 256, 3)
    samples = np.frombuffer(source.PixelData, np.uint8).reshape(320, 512)[8::16, 8::16]
    expected = np.stack([samples.astype(int) * n % 256 * 257 for n in (1, 2, 3)], axis=-1)
    assert np.abs(colors[4::8, 4::8].astype(int) - expected).max() <= 1, "in the middle of blocks"


def test_frames_of_shared_chrominance_stay_frames_of_their_class(place: Place) -> None:
    last, _, (reduced,) = place.got("shared")
    assert last.Status == 0x0000
    found = read(reduced)
    assert (found.SOPClassUID, found.NumberOfFrames) == (ULTRASOUND, 2)
    assert (found.Rows, found.Columns, found.PhotometricInterpretation) == (160, 256, "RGB")
    colors = np.frombuffer(found.PixelData, np.uint8).reshape(2, 160, 256, 3)
    assert (colors[0] == 50).all() and (colors[1] == 200).all()


def test_what_becomes_of_another_class_goes_in_the_syntax_taken_for_that(place: Place) -> None:
    contexts = [(ULTRASOUND, EXPLICIT_LITTLE), (SECONDARY_CAPTURE, IMPLICIT_LITTLE)]
    asked = place.asked("palette")
    _, (capture,) = raw_peer.get(place.port, STUDY_ROOT, asked, contexts, ae_title=READER)
    assert capture.context == (SECONDARY_CAPTURE, IMPLICIT_LITTLE)
    found = read_dataset(BytesIO(capture.data_set), True, True)
    assert (found.Rows, found.SOPInstanceUID) == (160, capture.sop_instance_uid)


def test_what_takes_no_other_class_counts_as_failed(place: Place) -> None:
    last, failed, arrived = place.got("palette", "small", classes=(CT, ULTRASOUND))
    assert (last.Status, failed) == (0xB000, {place.held["palette"].SOPInstanceUID})
    assert [one.sop_instance_uid for one in arrived] == [place.held["small"].SOPInstanceUID]


def test_it_is_compressed_where_only_that_is_taken(place: Place) -> None:
    (plain,) = place.got("ct 1")[2]
    last, _, (packed,) = place.got("ct 1", syntax=str(JPEGLSLossless))
    assert last.Status == 0x0000
    assert (packed.sop_instance_uid, packed.transfer_syntax_uid) == (
        plain.sop_instance_uid,
        JPEGLSLossless,
    )
    assert np.array_equal(read(packed).pixel_array, read(plain).pixel_array)


def test_what_cannot_be_reduced_fails_and_is_named_and_audited(place: Place) -> None:
    names = ("broken", "ct 1", "report", "small")
    last, failed, arrived = place.got(*names)
    broken = place.held["broken"].SOPInstanceUID
    assert (last.Status, last.NumberOfCompletedSuboperations, failed) == (0xB000, 3, {broken})
    assert {one.sop_class_uid for one in arrived} == {CT, REPORT}
    withheld, reduced = (
        place.audited("delivery-withheld")[-1],
        place.audited("delivery-reduced")[-1],
    )
    assert (withheld["sop_instance_uids"], withheld["count"], withheld["reduced"]) == (
        [broken],
        1,
        1,
    )
    assert (reduced["count"], reduced["withheld"]) == (1, 1)
    for said in (withheld, reduced):
        assert (said["purpose"], said["max_matrix"]) == ("teaching", BOUND_PX)
        assert said["ae_title"] == READER


def test_without_the_purpose_everything_is_as_it_was(place: Place) -> None:
    before = len(place.audited("delivery-reduced"))
    contexts = [(CT, EXPLICIT_LITTLE)]
    asked = place.asked("ct 1", purpose="")
    _, (arrived,) = raw_peer.get(place.port, STUDY_ROOT, asked, contexts, ae_title=READER)
    assert arrived.sop_instance_uid == place.held["ct 1"].SOPInstanceUID
    assert len(place.audited("delivery-reduced")) == before


def test_usage_counts_what_was_sent_and_what_was_done_for_it(place: Place) -> None:
    who = ("alpha", "teaching", "resize", place.held["ct 1"].StudyInstanceUID)
    before, sent = {row[:4]: row[4:] for row in place.processed()}, place.sent()
    *_, arrived = place.got("ct 1", "ct 2", "small")
    after = {row[:4]: row[4:] for row in place.processed()}
    images, size_bytes = before.get(who, (0, 0))
    assert after[who][0] - images == 2
    assert after[who][1] - size_bytes > 2 * 512 * 512 * 2
    travelled = sum(len(one.data_set) for one in arrived)
    assert place.sent() == (sent[0] + 3, sent[1] + travelled)
    assert travelled < 4 * 256 * 256 * 2
    place.got("small")
    assert {row[:4]: row[4:] for row in place.processed()} == after, (
        "nothing was to be made smaller"
    )


def test_nothing_is_added_to_what_is_held(place: Place) -> None:
    place.got()
    rows = place.archive.database.execute("SELECT COUNT(*) FROM instance")
    assert next(iter(rows))[0] == len(place.held)
    until(place.clean)


# --- C-MOVE, and ends that come early ------------------------------------------------------


def test_movescu_has_all_of_it_sent_to_a_storescp(
    place: Place, peer_tool: Tool, tmp_path: Path
) -> None:
    with storescp(peer_tool, tmp_path / "received") as receiver:
        place.archive.peers.add(ADMIN, "DEST", "127.0.0.1", receiver.port)
        place.archive.snapshots.newest()
        place.book.write(device("DEST", host="127.0.0.1", port=receiver.port))
        file = tmp_path / "question.dcm"
        place.asked().save_as(file, implicit_vr=False, little_endian=True)
        run(peer_tool("movescu"), "-S", "-aet", READER, "-aec", "PACS", "-aem", "DEST",
            "127.0.0.1", str(place.port), str(file))  # fmt: skip
        came = [dcmread(one, force=True) for one in receiver.taken()]
    assert len(came) == len(place.held) - 1, "all but the broken one"
    sides = [int(one.get("Rows", 0)) for one in came] + [int(one.get("Columns", 0)) for one in came]
    assert max(sides) == BOUND_PX
    expected = {CT, XA, ULTRASOUND, SECONDARY_CAPTURE, REPORT}
    assert {str(one.SOPClassUID) for one in came} == expected
    assert len([one for one in came if one.ImageType[0] == "DERIVED"]) == 6


def test_a_cancelled_move_leaves_no_files(place: Place) -> None:
    contexts = [(one, [EXPLICIT_LITTLE]) for one in CLASSES]
    model = [(STUDY_ROOT + MOVE, [IMPLICIT_LITTLE])]
    with raw_peer.associated(place.port, model, ae_title=READER) as mover:
        cancelled, over = threading.Event(), threading.Event()

        def cancelling(_: Any) -> int:
            """Cancel at the first, and answer nothing before the move has ended by that."""
            if not cancelled.is_set():
                cancelled.set()
                mover.send_c_cancel(9, query_model=STUDY_ROOT + MOVE)
            over.wait(WITHIN_S)
            return 0x0000

        with raw_peer.receiving(contexts, cancelling) as port:
            place.archive.peers.add(ADMIN, "DEST", "127.0.0.1", port)
            place.archive.snapshots.newest()
            place.book.write(device("DEST", host="127.0.0.1", port=port))
            *_, (last, _) = raw_peer.move(mover, STUDY_ROOT, place.asked(), "DEST", message_id=9)
            over.set()
    assert (last.Status, last.NumberOfRemainingSuboperations > 0) == (0xFE00, True)
    until(place.clean)


def test_a_dropped_association_leaves_no_files(place: Place) -> None:
    contexts = [(STUDY_ROOT + raw_peer.GET, [IMPLICIT_LITTLE])]
    contexts += [(one, [EXPLICIT_LITTLE]) for one in CLASSES]
    with raw_peer.associated(
        place.port, contexts, received=lambda _: 0x0000, ae_title=READER
    ) as association:
        answer, _ = next(association.send_c_get(place.asked(), STUDY_ROOT + raw_peer.GET))
        assert (answer.Status, answer.NumberOfCompletedSuboperations) == (0xFF00, 1)
        association.abort()
    until(place.clean)
    last, _, arrived = place.got("ct 1")
    assert (last.Status, len(arrived)) == (0x0000, 1), "the next one is served"
