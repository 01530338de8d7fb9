"""Pixels of other forms: shared chrominance, floating point, single bits; and how large pixels are."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space
from pydicom.sequence import Sequence as Items

from processing.datasets.pixel_size import pixel_size_of
from tests.phantoms import image, patient, saved
from tests.unit.test_derived import ULTRASOUND, asked, made
from tests.unit.test_places import CAPTURE, DX, unplaced

Array = npt.NDArray[Any]
SHARED = "pydicom__pydicom/src/pydicom/data/test_files/SC_ybr_full_422_uncompressed.dcm"


def shared(frames: int) -> tuple[FileDataset, Array]:
    """An image of which two pixels share their chrominance, and all its samples by pixel."""
    rng = np.random.default_rng(2)
    luminance = rng.integers(60, 180, (frames, 6, 8)).astype(np.uint8)
    chrominance = rng.integers(110, 140, (frames, 6, 4, 2)).astype(np.uint8)
    pairs = np.concatenate((luminance.reshape(frames, 6, 4, 2), chrominance), axis=-1)
    source = unplaced(ULTRASOUND)
    source.Rows, source.Columns, source.NumberOfFrames = 6, 8, frames
    source.BitsAllocated, source.BitsStored, source.HighBit = 8, 8, 7
    source.SamplesPerPixel, source.PlanarConfiguration = 3, 0
    source.PhotometricInterpretation, source.PixelData = "YBR_FULL_422", pairs.tobytes()
    whole = np.concatenate((luminance[..., None], np.repeat(chrominance, 2, axis=2)), axis=-1)
    return source, np.asarray(convert_color_space(whole, "YBR_FULL", "RGB"))


@pytest.mark.parametrize("frames", [1, 3])
def test_shared_chrominance_is_given_to_both_pixels(frames: int, tmp_path: Path) -> None:
    source, colors = shared(frames)
    (found,) = made(
        "gaussian", saved([source], tmp_path / "in"), tmp_path / "out", unit="px", sigma=0.01
    )
    cells = np.frombuffer(found.PixelData, np.uint8)[: colors.size].reshape(colors.shape)
    assert np.array_equal(cells, colors)
    assert (found.PhotometricInterpretation, found.SOPClassUID) == ("RGB", ULTRASOUND)
    assert int(found.get("NumberOfFrames") or 1) == frames


def test_a_real_image_of_shared_chrominance_is_as_pydicom_reads_it(
    samples: Path, tmp_path: Path
) -> None:
    path = samples / SHARED
    if not path.is_file():
        pytest.skip("not among the samples")
    (found,) = made("gaussian", [path], tmp_path, unit="px", sigma=0.01)
    expected = pydicom.dcmread(path).pixel_array  # in red, green and blue
    cells = np.frombuffer(found.PixelData, np.uint8).reshape(found.Rows, found.Columns, 3)
    assert np.array_equal(cells, expected)


def test_shared_chrominance_of_another_length_is_refused(tmp_path: Path) -> None:
    source, _ = shared(1)
    source.PixelData += b"\0" * 4
    answer = asked("median", saved([source], tmp_path / "in"), tmp_path / "out")
    assert answer == {"refused": "the pixels of an image cannot be read: SizeNotCarried"}


def test_samples_of_every_pixel_that_are_called_shared_are_refused(tmp_path: Path) -> None:
    """A label that is wrong is no reason to read the first two thirds as something else."""
    source, colors = shared(1)
    source.PixelData = bytes(colors.size)
    answer = asked("median", saved([source], tmp_path / "in"), tmp_path / "out")
    assert answer == {"refused": "the pixels of an image cannot be read: SizeNotCarried"}


def test_an_image_compressed_as_nobody_does_any_more_is_refused_for_that(tmp_path: Path) -> None:
    source = image(np.zeros((8, 8), np.uint16), patient())
    source.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.55"  # JPEG, full progression, retired
    source.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    source["PixelData"].is_undefined_length = True
    answer = asked("median", saved([source], tmp_path / "in"), tmp_path / "out")
    assert answer == {"refused": "an image is compressed in a way that is not read here"}


@pytest.mark.parametrize(
    ("keyword", "kind", "says"),
    [
        ("FloatPixelData", "<f4", "floating point pixels"),
        ("DoubleFloatPixelData", "<f8", "floating point pixels"),
        (None, "u1", "single bits"),
    ],
)
def test_pixels_of_other_forms_are_refused_for_what_they_are(
    keyword: str | None, kind: str, says: str, tmp_path: Path
) -> None:
    source = image(np.zeros((8, 8), np.uint16), patient())
    pixels = np.zeros((8, 8), kind).tobytes()
    if keyword is None:
        source.BitsAllocated, source.BitsStored, source.HighBit = 1, 1, 0
        source.PixelData = pixels[:8]
    else:
        del source.PixelData
        source.BitsAllocated = 8 * np.dtype(kind).itemsize
        setattr(source, keyword, pixels)
    refused = asked("median", saved([source], tmp_path / "in"), tmp_path / "out")["refused"]
    assert says in refused and "no operation takes those" in refused


# --- how large pixels are -----------------------------------------------------------------


def region(**says: Any) -> Items:
    """One ultrasound region that covers an image of 8 by 8, pixels of 0.2 by 0.4 mm."""
    one = Dataset()
    one.RegionSpatialFormat, one.RegionDataType = 1, 1
    one.PhysicalUnitsXDirection = one.PhysicalUnitsYDirection = 3
    one.RegionLocationMinX0 = one.RegionLocationMinY0 = 0
    one.RegionLocationMaxX1 = one.RegionLocationMaxY1 = 7
    one.PhysicalDeltaX, one.PhysicalDeltaY = 0.04, 0.02
    for name, value in says.items():
        setattr(one, name, value)
    return Items([one])


def sized(sop_class: str, **says: Any) -> FileDataset:
    one = unplaced(sop_class)
    del one.PixelSpacing
    for name, value in says.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize(
    ("source", "spacing", "says"),
    [
        (sized(DX, ImagerPixelSpacing=[0.2, 0.4]), (0.2, 0.4), "mm at the detector"),
        (
            sized(
                DX, ImagerPixelSpacing=[0.2, 0.4], EstimatedRadiographicMagnificationFactor="1.25"
            ),
            (0.16, 0.32),
            "Estimated Radiographic Magnification Factor",
        ),
        (sized(CAPTURE, NominalScannedPixelSpacing=[0.2, 0.4]), (0.2, 0.4), "what was scanned"),
        (sized(ULTRASOUND, SequenceOfUltrasoundRegions=region()), (0.2, 0.4), "region"),
        (unplaced(DX, ImagerPixelSpacing=[0.2, 0.4]), (1, 1), ""),
    ],
)
def test_mm_are_had_from_what_an_image_states_and_the_result_says_of_what(
    source: FileDataset, spacing: tuple[float, float], says: str, tmp_path: Path
) -> None:
    size = pixel_size_of(source, 0)
    assert size is not None and np.allclose(size.spacing_mm, spacing)
    files = saved([source], tmp_path / "in")
    (found,) = made("gaussian", files, tmp_path / "mm", sigma=0.5)
    said = "gaussian 1.0: sigma=0.5 unit=mm" + (f", {size.note}" if says else "")
    assert found.DerivationDescription == said and says in said
    (found,) = made("gaussian", files, tmp_path / "px", sigma=0.5, unit="px")
    assert found.DerivationDescription == "gaussian 1.0: sigma=0.5 unit=px"


@pytest.mark.parametrize(
    "source",
    [
        sized(DX),
        sized(DX, ImagerPixelSpacing=[0, 0.4]),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=Items([*region(), *region()])),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=region(RegionLocationMinX0=2)),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=region(RegionLocationMaxY1=5)),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=region(RegionSpatialFormat=2)),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=region(PhysicalUnitsYDirection=4)),
        sized(ULTRASOUND, SequenceOfUltrasoundRegions=region(PhysicalDeltaX=0.0)),
    ],
)
def test_without_a_size_mm_are_refused_and_pixels_taken(
    source: FileDataset, tmp_path: Path
) -> None:
    files = saved([source], tmp_path / "in")
    refused = asked("gaussian", files, tmp_path / "no")["refused"]
    assert refused.endswith("in mm: give unit=px")
    assert len(made("gaussian", files, tmp_path / "px", unit="px")) == 1
