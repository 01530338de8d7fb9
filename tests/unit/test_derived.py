"""Derived Data Sets: valid, labelled, placed, and holding the values that were computed."""

import subprocess
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian

from processing.datasets import process_tasks
from processing.operations.operation import Image, Kind, run_on_image
from processing.operations.parameters import read
from processing.operations.registry import OPERATIONS, PLACES
from tests.archive import data_set_offset
from tests.phantoms import MR, ct_series, ellipsoids, hounsfield, image, patient, saved

Array = npt.NDArray[Any]
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
XA = "1.2.840.10008.5.1.4.1.1.12.1"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
SERIES = "1.2.826.0.1.3680043.8.498.77"


def asked(
    operation: str,
    files: Sequence[Path],
    out: Path,
    *,
    share: tuple[int, int] = (0, 1),
    uid_root: str = "",
    **settings: object,
) -> dict[str, Any]:
    """Run one request as the sandbox does."""
    out.mkdir(parents=True, exist_ok=True)
    place = dict(zip(OPERATIONS, PLACES, strict=True))[operation]
    sources = [
        (str(one), data_set_offset(one), str(read_file_meta_info(one).TransferSyntaxUID))
        for one in files
    ]
    return dict(
        process_tasks.process(
            {
                "operation": place,
                "parameters": {name: str(value) for name, value in settings.items()},
                "series_instance_uid": SERIES,
                "series_description": "",
                "part": share[0],
                "parts": share[1],
                "uid_root": uid_root,
                "made": "2026-03-04T05:06:07+00:00",
                "sources": sources,
                "folder": str(out),
                "max_bytes": 1 << 30,
                "threads": 2,
            }
        )
    )


def made(operation: str, files: Sequence[Path], out: Path, **settings: Any) -> list[FileDataset]:
    """Run one request; read the results, and write them as files beside."""
    answer = asked(operation, files, out, **settings)
    assert "refused" not in answer, answer
    found = []
    for name, sop_class_uid, sop_instance_uid in answer["made"]:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = sop_class_uid
        meta.MediaStorageSOPInstanceUID = sop_instance_uid
        with (out / name).open("rb") as file:
            one = FileDataset(
                "", read_dataset(file, False, True), file_meta=meta, preamble=b"\0" * 128
            )
        assert (one.SOPClassUID, one.SOPInstanceUID) == (sop_class_uid, sop_instance_uid)
        one.save_as(out / f"{name}.dcm", enforce_file_format=True)
        found.append(one)
    return found


def saved_one(one: FileDataset, folder: Path) -> Path:
    return saved([one], folder)[0]


@pytest.fixture
def errors_of(peer_tool: Callable[[str], str]) -> Callable[[Path], set[str]]:
    """What dciodvfy calls an error in a file."""
    tool = peer_tool("dciodvfy")

    def errors(path: Path) -> set[str]:
        done = subprocess.run([tool, str(path)], capture_output=True, text=True, check=False)
        assert "Segmentation" not in done.stderr
        return {line for line in done.stderr.splitlines() if line.startswith("Error")}

    return errors


def computed(operation: str, one: Dataset, **settings: object) -> Array:
    """What an operation makes of the values by a formula of our own."""
    parameters = read(OPERATIONS[operation].parameters, {k: str(v) for k, v in settings.items()})
    values = Image(values=hounsfield(one), spacing_mm=(1.0, 1.0))
    return run_on_image(OPERATIONS[operation], values, parameters)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return saved(ct_series(count=12, rows=40, columns=48), tmp_path_factory.mktemp("ct"))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_result_is_as_valid_as_its_source(
    name: str, slices: list[Path], tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    again = ct_series(count=1, rows=40, columns=48)[0]
    pair = saved([again, deepcopy(again)], tmp_path / "pair")
    files = {Kind.IMAGE: slices[:1], Kind.VOLUME: slices, Kind.SET: pair}[OPERATIONS[name].kind]
    first = made(name, files, tmp_path / "out")[0]
    assert errors_of(tmp_path / "out" / "0.dcm.dcm") - errors_of(files[0]) == set()
    assert first.ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert first.SeriesInstanceUID == SERIES and first.PatientID == "PH-1"
    assert first.DerivationDescription.startswith(f"{name} 1.0")


def test_a_result_says_exactly_what_was_done_to_what(slices: list[Path], tmp_path: Path) -> None:
    (first,) = made("gaussian", slices[:1], tmp_path, sigma=1.5)
    assert first.DerivationDescription == "gaussian 1.0: sigma=1.5 unit=mm"
    assert [one.CodeValue for one in first.DerivationCodeSequence] == ["113088"]
    (reference,) = first.SourceImageSequence
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    (equipment,) = first.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert equipment.ContributionDescription == first.DerivationDescription
    assert (first.ContentDate, first.ContentTime, first.SeriesTime) == (
        "20260304",
        "050607",
        "050607",
    )
    assert first.SeriesDescription == "gaussian Thin" and first.SeriesNumber == 9003
    again = saved_one(first, tmp_path / "again")
    (second,) = made("median", [again], tmp_path / "second")
    said = "gaussian 1.0: sigma=1.5 unit=mm; median 1.0: size_px=3"
    assert second.DerivationDescription == said
    assert [one.CodeValue for one in second.DerivationCodeSequence] == ["113088", "113087"]
    assert len(second.ContributingEquipmentSequence) == 2
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("unsharp", "HU"),
        ("median", "HU"),
        ("sobel", "US"),
        ("laplacian", "US"),
        ("high-pass", "US"),
    ],
)
def test_the_values_read_back_are_those_computed(name: str, unit: str, tmp_path: Path) -> None:
    source = ct_series(count=1)[0]
    (found,) = made(name, [saved_one(source, tmp_path / "in")], tmp_path / "out")
    expected = computed(name, source)
    assert np.abs(hounsfield(found) - expected).max() <= float(found.RescaleSlope) / 2 + 1e-6
    assert found.RescaleType == unit
    if unit == "US":
        beside = np.abs(expected - float(found.WindowCenter))
        inside = beside <= 0.505 * float(found.WindowWidth)
        assert inside.mean() > 0.98


def test_display_levels_fill_their_range(tmp_path: Path) -> None:
    source = ct_series(count=1)[0]
    path = saved_one(source, tmp_path / "in")
    (found,) = made("window", [path], tmp_path / "out", center=40, width=400)
    levels = np.rint(computed("window", source, center=40, width=400) * 4095)
    assert np.array_equal(hounsfield(found), levels)
    assert (found.BitsStored, found.WindowCenter, found.WindowWidth) == (12, 2048, 4096)
    assert (found.RescaleSlope, found.RescaleIntercept, found.RescaleType) == (1, 0, "US")


def test_signed_samples_and_padding_come_through(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    samples = rng.integers(-900, 900, (20, 24)).astype(np.int16)
    samples[:4] = -2000
    source = image(samples, patient())
    source.RescaleIntercept = 0
    source.add_new("PixelPaddingValue", "US", 65536 - 2000)  # signed pixels, the wrong VR: as found
    (found,) = made("median", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    cells = np.frombuffer(found.PixelData, "<i2").reshape(20, 24)
    assert found.PixelPaddingValue == -2000 and (cells[:4] == -2000).all()
    values = np.where(samples == -2000, np.nan, samples.astype(float))
    parameters = OPERATIONS["median"].parameters()
    expected = run_on_image(OPERATIONS["median"], Image(values=values), parameters)
    assert np.array_equal(cells[4:], expected[4:])


def test_what_was_measured_never_looks_like_padding(tmp_path: Path) -> None:
    samples = np.full((16, 16), 100, np.uint16)
    samples[0], samples[8:] = 50, 0
    source = image(samples, patient())
    source.add_new("PixelPaddingValue", "US", 50)
    (found,) = made("smooth-mean", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    cells = np.frombuffer(found.PixelData, "<u2").reshape(16, 16)
    assert (cells[0] == 50).all() and not (cells[1:] == 50).any()


def test_bits_beside_the_samples_are_no_values(tmp_path: Path) -> None:
    samples = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    source = image(samples | 0xF000, patient())
    source.BitsStored, source.HighBit = 12, 11
    (found,) = made("median", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    source.PixelData = samples.tobytes()
    assert np.array_equal(hounsfield(found), computed("median", source))


def test_an_mr_image_stays_one_only_as_long_as_it_needs_no_rescale(
    tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    samples = np.rint(ellipsoids(np.zeros((32, 32, 3))) + 1000).astype(np.uint16)
    samples[8:20, 8:20] += 300
    source = image(samples, patient(), sop_class=MR)
    source.ScanningSequence, source.SequenceVariant, source.ScanOptions = "SE", "NONE", ""
    source.MRAcquisitionType, source.EchoTime, source.EchoTrainLength = "2D", "20", "1"
    source.RepetitionTime = "500"
    path = saved_one(source, tmp_path / "in")
    (smooth,) = made("gaussian", [path], tmp_path / "smooth")
    assert smooth.SOPClassUID == MR and "RescaleSlope" not in smooth
    (edges,) = made("sobel", [path], tmp_path / "edges")
    assert edges.SOPClassUID == SECONDARY_CAPTURE and "EchoTime" not in edges
    assert edges.Modality == "MR" and edges.PixelSpacing == [1, 1]
    for one in ("smooth", "edges"):
        assert errors_of(tmp_path / one / "0.dcm.dcm") - errors_of(path) == set()


def rgb() -> tuple[FileDataset, Array]:
    rng = np.random.default_rng(1)
    colors = rng.integers(0, 255, (24, 30, 3)).astype(np.uint8)
    source = image(colors[..., 0], patient(), sop_class=ULTRASOUND)
    source.Modality, source.SamplesPerPixel = "US", 3
    source.PhotometricInterpretation, source.PlanarConfiguration = "RGB", 1
    source.ImageType = ["ORIGINAL", "PRIMARY"]
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if name in source:
            delattr(source, name)
    source.PixelData = np.moveaxis(colors, -1, 0).tobytes()
    return source, colors


def test_colours_are_filtered_one_by_one_or_by_luminance(tmp_path: Path) -> None:
    source, colors = rgb()
    path = saved_one(source, tmp_path / "in")
    (smooth,) = made("median", [path], tmp_path / "smooth")
    found = np.frombuffer(smooth.PixelData, np.uint8).reshape(24, 30, 3)
    for one in range(3):
        plane = Image(values=colors[..., one].astype(float))
        expected = run_on_image(OPERATIONS["median"], plane, OPERATIONS["median"].parameters())
        assert np.array_equal(found[..., one], expected)
    assert (smooth.SOPClassUID, smooth.PlanarConfiguration) == (ULTRASOUND, 0)
    (edges,) = made("sobel", [path], tmp_path / "edges", unit="px")
    assert edges.PhotometricInterpretation == "MONOCHROME2" and edges.SamplesPerPixel == 1
    luminance = colors @ np.array((0.299, 0.587, 0.114))
    parameters = read(OPERATIONS["sobel"].parameters, {"unit": "px"})
    expected = run_on_image(OPERATIONS["sobel"], Image(values=luminance), parameters)
    assert np.abs(hounsfield(edges) - expected).max() < 0.01
    (equal,) = made("equalize", [path], tmp_path / "equal")
    lifted = np.frombuffer(equal.PixelData, np.uint8).reshape(24, 30, 3).astype(float)
    inside = (lifted > 0).all(axis=-1) & (lifted < 255).all(axis=-1)
    before, after = (one[..., 0] - one[..., 2] for one in (colors.astype(float), lifted))
    assert np.abs(before - after)[inside].max() <= 1, "differences of colour are kept"
    assert asked("mip", [path], tmp_path / "no")["refused"] == "mip takes gray images only"


def test_frames_stay_frames_where_they_fit_and_become_images_where_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    samples = rng.integers(0, 200, (5, 16, 20)).astype(np.uint8)
    source = image(samples, patient(), sop_class=XA)
    source.NumberOfFrames, source.Modality = 5, "XA"
    for name in ("ImagePositionPatient", "ImageOrientationPatient"):
        delattr(source, name)
    path = saved_one(source, tmp_path / "in")
    (smooth,) = made("median", [path], tmp_path / "smooth")
    assert (smooth.SOPClassUID, smooth.NumberOfFrames, smooth.BitsAllocated) == (XA, 5, 8)
    cells = np.frombuffer(smooth.PixelData, np.uint8).reshape(5, 16, 20)
    for frame in range(5):
        plane = Image(values=samples[frame].astype(float))
        expected = run_on_image(OPERATIONS["median"], plane, OPERATIONS["median"].parameters())
        assert np.array_equal(cells[frame], expected)
    masked = made("subtract", [path], tmp_path / "dsa", mask=2)
    assert [one.InstanceNumber for one in masked] == [1, 2, 3, 4]
    for one, frame in zip(masked, (0, 2, 3, 4), strict=True):
        assert one.SOPClassUID == SECONDARY_CAPTURE
        expected = samples[frame].astype(float) - samples[1]
        assert np.array_equal(hounsfield(one), expected)
        (reference,) = one.SourceImageSequence
        assert list(reference.ReferencedFrameNumber) == [frame + 1, 2]
    (mean,) = made("mean", [path], tmp_path / "mean")
    assert np.abs(hounsfield(mean) - samples.mean(axis=0)).max() <= 0.5
    assert "ReferencedFrameNumber" not in mean.SourceImageSequence[0], "all of them"


def enhanced(count: int = 6) -> FileDataset:
    """An enhanced CT of the phantom; frames are stored backwards, each with a rescale of its own."""
    images = ct_series(count=count, rows=24, columns=32, spacing_mm=2.0)
    source = deepcopy(images[0])
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    for name in [
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "KVP",
    ]:
        delattr(source, name)
    source.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    source.NumberOfFrames = count
    shared, measures, orientation, kind = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [2, 2], 2
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([orientation])
    shared.CTImageFrameTypeSequence = Items([kind])
    source.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for number, one in enumerate(reversed(images)):
        group, place, rescale = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(one.ImagePositionPatient)
        rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024 - number
        rescale.RescaleType = "HU"
        group.PlanePositionSequence = Items([place])
        group.PixelValueTransformationSequence = Items([rescale])
        groups.append(group)
    source.PerFrameFunctionalGroupsSequence = Items(groups)
    cells = [np.frombuffer(one.PixelData, "<u2") + n for n, one in enumerate(reversed(images))]
    source.PixelData = np.concatenate(cells).astype("<u2").tobytes()
    return source


def test_enhanced_frames_are_values_in_places_of_their_own(
    tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    classic = ct_series(count=6, rows=24, columns=32, spacing_mm=2.0)
    path = saved_one(enhanced(), tmp_path / "in")
    files = saved(classic, tmp_path / "classic")
    for plane in ("stack", "coronal"):
        (one,) = made("mip", [path], tmp_path / f"e{plane}", plane=plane)
        (other,) = made("mip", files, tmp_path / f"c{plane}", plane=plane)
        assert np.array_equal(hounsfield(one), hounsfield(other))
        assert one.ImagePositionPatient == other.ImagePositionPatient
        assert (one.SOPClassUID, one.RescaleType) == (SECONDARY_CAPTURE, "HU")
    (half,) = made("resize", [path], tmp_path / "half")
    assert half.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2.1"
    assert half.ImageType == ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    shared = half.SharedFunctionalGroupsSequence[0]
    assert shared.CTImageFrameTypeSequence[0].FrameType == half.ImageType
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [4, 4]
    derivation = shared.DerivationImageSequence[0]
    assert derivation.DerivationDescription.startswith("resize 1.0: factor=0.5")
    source = enhanced()
    before = source.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    after = half.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    moved = np.array(after.ImagePositionPatient) - np.array(before.ImagePositionPatient)
    assert np.allclose(moved, (1, 1, 0))
    assert errors_of(tmp_path / "half" / "0.dcm.dcm") - errors_of(path) == set()
    singles = made("sobel", [path], tmp_path / "sobel")
    assert len(singles) == 6 and {one.SOPClassUID for one in singles} == {SECONDARY_CAPTURE}
    assert singles[2].SourceImageSequence[0].ReferencedFrameNumber == 3
    assert singles[2].ImagePositionPatient == before.ImagePositionPatient


def test_warnings_and_only_what_is_still_true_are_carried_over(tmp_path: Path) -> None:
    images = ct_series(count=4, rows=16, columns=16)
    images[2].LossyImageCompression, images[2].LossyImageCompressionRatio = "01", "12.5"
    images[2].LossyImageCompressionMethod, images[0].BurnedInAnnotation = "ISO_10918_1", "YES"
    for one in images:
        one.add_new(0x0009_0010, "LO", "VENDOR")
        one.add_new(0x0009_1001, "LO", "secret of the source")
        one.LargestImagePixelValue = 7
        one.SliceLocation = "4"
        one.WindowCenter, one.WindowWidth = "40", "400"
        one.PatientName = "Müller^Ärzte"
    (found,) = made("mip", saved(images, tmp_path / "in"), tmp_path / "out", plane="coronal")
    assert (found.LossyImageCompression, found.LossyImageCompressionRatio) == ("01", 12.5)
    assert found.BurnedInAnnotation == "YES" and (found.WindowCenter, found.WindowWidth) == (
        40,
        400,
    )
    assert str(found.PatientName) == "Müller^Ärzte"
    for gone in ("SliceLocation", "LargestImagePixelValue"):
        assert gone not in found
    assert b"secret" not in (tmp_path / "out" / "0.dcm").read_bytes()
    assert len(found.SourceImageSequence) == 4
    assert found.SliceThickness == 16 and found.ImageOrientationPatient == [1, 0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"PixelData": b"\0" * 10}, "the pixels of an image cannot be read: SizeNotCarried"),
        ({"BitsAllocated": 12}, "the pixels of an image cannot be read: PixelsUndecodable"),
        ({"RescaleSlope": "nan"}, "Rescale Slope or Intercept is no number"),
        ({"PhotometricInterpretation": "CMYK"}, "an image is neither gray nor of three colours"),
        ({"HighBit": 3, "BitsStored": 12}, "High Bit does not go together with Bits Stored"),
    ],
)
def test_what_is_no_image_is_refused_in_words_of_ours(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    source = ct_series(count=1, rows=8, columns=8)[0]
    for name, value in change.items():
        setattr(source, name, value)
    path = saved_one(source, tmp_path / "in")
    assert asked("median", [path], tmp_path / "out") == {"refused": says}


def test_times_are_in_the_zone_of_the_source(tmp_path: Path) -> None:
    source = ct_series(count=1, rows=8, columns=8)[0]
    source.TimezoneOffsetFromUTC = "-0530"
    (found,) = made("median", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    assert (found.ContentDate, found.ContentTime) == ("20260303", "233607")
    (equipment,) = found.ContributingEquipmentSequence
    assert equipment.ContributionDateTime == "20260304050607+0000"


def test_an_instance_without_pixels_is_refused(tmp_path: Path) -> None:
    source = ct_series(count=1)[0]
    del source.PixelData
    path = saved_one(source, tmp_path / "in")
    assert asked("median", [path], tmp_path / "out") == {"refused": "an instance holds no image"}
