"""What derived images say of their values: depth, scale, unit, window; nothing that was true of their source only."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid
from scipy import ndimage

from processing.datasets.scale import Scale, encoded
from tests.phantoms import CT, ct_series, hounsfield, image, patient, saved
from tests.unit.test_derived import (
    SECONDARY_CAPTURE,
    XA,
    computed,
    enhanced,
    errors_of,
    made,
    saved_one,
)

__all__ = ["errors_of"]

Array = npt.NDArray[Any]
PET = "1.2.840.10008.5.1.4.1.1.128"
OPTICAL = "1.2.840.10008.5.1.4.1.1.77.1.4.1"


def scaled(
    samples: Array,
    *,
    slope: float,
    intercept: float = 0.0,
    sop_class: str = CT,
    place_mm: float = 0,
) -> FileDataset:
    one = image(samples, patient(), sop_class=sop_class, series="1.2.826.0.1.3680043.8.498.5")
    one.RescaleSlope, one.RescaleIntercept = slope, intercept
    one.ImagePositionPatient = [0, 0, place_mm]
    return one


# --- depth ----------------------------------------------------------------------------------


def deep_colors(frames: int) -> tuple[FileDataset, Array]:
    rng = np.random.default_rng(8)
    colors = rng.integers(0, 1 << 32, (frames, 8, 10, 3), dtype=np.uint64).astype(np.uint32)
    colors[:, 0] = 0xFFFF_FFFF
    source = image(colors[0, ..., 0], patient(), sop_class=SECONDARY_CAPTURE)
    source.SamplesPerPixel, source.PlanarConfiguration = 3, 0
    source.PhotometricInterpretation, source.Modality = "RGB", "OT"
    for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if name in source:
            delattr(source, name)
    if frames > 1:
        source.NumberOfFrames = frames
    source.PixelData = colors.astype("<u4").tobytes()
    return source, colors


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("operation", ["median", "resize"])
def test_colours_deeper_than_16_bits_are_scaled_to_them_and_it_is_said(
    operation: str, frames: int, tmp_path: Path
) -> None:
    source, colors = deep_colors(frames)
    settings = {"factor": 1, "interpolation": "nearest"} if operation == "resize" else {}
    (found,) = made(operation, [saved_one(source, tmp_path / "in")], tmp_path / "out", **settings)
    assert (found.BitsAllocated, found.BitsStored, found.HighBit) == (16, 16, 15)
    cells = np.frombuffer(found.PixelData, "<u2").reshape(colors.shape)
    sizes = (1, 3, 3, 1) if operation == "median" else (1, 1, 1, 1)
    expected = ndimage.median_filter(colors.astype(float), sizes, mode="nearest") / 65537
    assert np.abs(cells - expected).max() <= 0.5 + 1e-6
    assert "samples of 32 bits scaled to 16" in found.DerivationDescription


def test_colours_of_16_bits_or_fewer_stay_as_deep_as_they_are(tmp_path: Path) -> None:
    source, colors = deep_colors(1)
    source.BitsAllocated, source.BitsStored, source.HighBit = 16, 12, 11
    source.PixelData = (colors[0] >> 20).astype("<u2").tobytes()
    path = saved_one(source, tmp_path / "in")
    (found,) = made("resize", [path], tmp_path / "out", factor=1, interpolation="nearest")
    assert (found.BitsAllocated, found.BitsStored) == (16, 12)
    assert found.PixelData == source.PixelData and "scaled" not in found.DerivationDescription


def test_gray_values_beyond_16_bits_are_read_back_as_what_was_computed(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    samples = rng.integers(0, 1 << 32, (16, 16), dtype=np.uint64).astype(np.uint32)
    source = scaled(samples, slope=1, sop_class=SECONDARY_CAPTURE)
    path = saved_one(source, tmp_path / "in")
    for operation, settings in (("median", {}), ("unsharp", {"amount": 3, "unit": "px"})):
        (found,) = made(operation, [path], tmp_path / operation, **settings)
        expected = computed(operation, source, **settings)
        assert np.abs(hounsfield(found) - expected).max() <= float(found.RescaleSlope) / 2 + 1e-3


# --- scales that differ -----------------------------------------------------------------------

SLOPES = (0.01, 0.02, 5.0, 50.0, 0.3, 0.007)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("minip", min(SLOPES) * 100),
        ("mip", max(SLOPES) * 100),
        ("mean-projection", sum(SLOPES) / len(SLOPES) * 100),
    ],
)
def test_slices_of_different_slopes_are_not_rounded_to_one_of_them(
    operation: str, expected: float, tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    images = [
        scaled(np.full((8, 8), 100, np.uint16), slope=slope, sop_class=PET, place_mm=3.0 * n)
        for n, slope in enumerate(SLOPES)
    ]
    for one in images:
        one.Modality, one.Units, one.ImageType = "PT", "BQML", ["ORIGINAL", "PRIMARY"]
    files = saved(images, tmp_path / "in")
    (found,) = made(operation, files, tmp_path / "out")
    assert np.allclose(hounsfield(found), expected, rtol=1e-5)
    assert (found.SOPClassUID, found.RescaleIntercept, found.BitsStored) == (PET, 0, 16)
    assert "RescaleType" not in found, "Units says it"
    assert errors_of(tmp_path / "out" / "0.dcm.dcm") - errors_of(files[0]) == set()


def test_images_of_one_place_with_different_slopes_are_combined_without_loss(
    tmp_path: Path,
) -> None:
    fine, coarse = np.full((8, 8), 3, np.uint16), np.full((8, 8), 1, np.uint16)
    images = [scaled(coarse, slope=100.0), scaled(fine, slope=0.25)]
    images[1].AcquisitionTime = "1"  # the later one: results take after the coarser
    (found,) = made("add", saved(images, tmp_path / "in"), tmp_path / "out")
    assert np.array_equal(hounsfield(found), np.full((8, 8), 100.75))


def test_a_scale_that_cannot_be_held_grows_no_more_than_it_must() -> None:
    fine = Scale(slope=0.001, intercept=5, bits_allocated=16, bits_stored=12, signed=True)
    coarse = Scale(slope=10, intercept=5, bits_allocated=16, bits_stored=16, signed=True)
    for low in (5.0, -4000.0):
        values = np.linspace(low, 4000, 60).reshape(6, 10)
        samples, scale = encoded(values.copy(), coarse, [coarse, fine])
        assert np.abs(scale.values(samples) - values).max() <= scale.slope / 2 + 1e-9
        assert scale.intercept == 5 and scale.slope < 1.02 * 4005 / (65_535 if low > 0 else 32_767)
        values[0, 0] = np.nan
        samples, scale = encoded(values.copy(), coarse, [coarse, fine])
        assert samples[0, 0] == scale.padding and (samples == scale.padding).sum() == 1


def test_scales_without_a_common_intercept_give_way_to_one_of_the_values_own() -> None:
    far = Scale(slope=0.001, intercept=-1e6, bits_allocated=16, bits_stored=16, signed=False)
    near = Scale(slope=1, intercept=0, bits_allocated=16, bits_stored=16, signed=False)
    values = np.linspace(0, 130, 60).reshape(6, 10)
    samples, scale = encoded(values.copy(), near, [near, far])
    assert np.abs(scale.values(samples) - values).max() <= 130 / 65_000


def test_a_padding_value_that_a_scale_does_not_hold_is_another_one() -> None:
    """Values that no longer fit signed samples, but unsigned ones, which have no -2000."""
    source = Scale(
        slope=1, intercept=0, bits_allocated=16, bits_stored=16, signed=True, padding=-2000
    )
    for missing in (5.0, np.nan):
        values = np.array([[40_000.0, missing]])
        samples, scale = encoded(values.copy(), source)
        assert not scale.signed and samples[0, 0] == 40_000
        assert np.isnan(missing) == (samples[0, 1] == scale.padding)


# --- windows ------------------------------------------------------------------------------------


def shown(one: Dataset) -> Array:
    """Display levels from 0 to 1 by the window that is said."""
    width = float(one.WindowWidth)
    return np.clip((hounsfield(one) - float(one.WindowCenter)) / width + 0.5, 0, 1)


def contrast_run(sop_class: str) -> list[FileDataset] | FileDataset:
    """Three images of one place, a vessel in the last; with the window and a table of unsubtracted values."""
    rng = np.random.default_rng(2)
    samples = np.repeat(rng.integers(1500, 2500, (1, 32, 32)), 3, axis=0).astype(np.uint16)
    samples[2, 8:16, 8:16] -= 800
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.LUTData = np.arange(0, 65536, 16, dtype="<u2").tobytes()

    def windowed(one: FileDataset) -> FileDataset:
        one.WindowCenter, one.WindowWidth = 2048, 4096
        one.VOILUTSequence = Items([table])
        one.RescaleIntercept, one.RescaleSlope = 0, 1
        return one

    if sop_class == XA:
        source = image(samples, patient(), sop_class=XA)
        source.NumberOfFrames, source.Modality = 3, "XA"
        del source.ImagePositionPatient, source.ImageOrientationPatient
        return windowed(source)
    study, series = patient(), generate_uid()
    images = [image(one, study, series=series, number=n + 1) for n, one in enumerate(samples)]
    return [windowed(one) for one in images]


@pytest.mark.parametrize("sop_class", [XA, CT])
def test_differences_and_sums_are_seen_by_a_window_of_their_own(
    sop_class: str, tmp_path: Path
) -> None:
    run = contrast_run(sop_class)
    files = saved(run if isinstance(run, list) else [run], tmp_path / "in")
    dsa = made("subtract", files, tmp_path / "dsa")[-1]
    assert "VOILUTSequence" not in dsa
    levels = shown(dsa)
    assert levels[8:16, 8:16].max() < 0.1 and levels[20:, 20:].min() > 0.9
    (total,) = made("add", files, tmp_path / "sum")
    assert "VOILUTSequence" not in total
    assert 0.2 < np.median(shown(total)) < 0.8 and shown(total).std() > 0.1
    (mean,) = made("mean", files, tmp_path / "mean")
    assert (mean.WindowCenter, mean.WindowWidth) == (2048, 4096), "in the range of its source"
    if sop_class == CT:
        assert (dsa.SOPClassUID, dsa.RescaleType) == (CT, "HU")


# --- what is said of values and samples ---------------------------------------------------------


def mapped(one: FileDataset) -> FileDataset:
    mapping = Dataset()
    mapping.add_new("RealWorldValueFirstValueMapped", "US", 0)
    mapping.add_new("RealWorldValueLastValueMapped", "US", 4095)
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = -1024.0, 1.0
    one.RealWorldValueMappingSequence = Items([mapping])
    return one


@pytest.mark.parametrize(
    ("operation", "settings", "stays"),
    [
        ("median", {}, True),
        ("sobel", {}, False),
        ("window", {}, False),
        ("unsharp", {"amount": 10}, False),
    ],
)
def test_real_world_values_are_said_only_of_samples_that_mean_the_same(
    operation: str, settings: dict[str, Any], stays: bool, tmp_path: Path
) -> None:
    source = mapped(ct_series(count=1, rows=20, columns=24)[0])
    (found,) = made(operation, [saved_one(source, tmp_path / "in")], tmp_path / "out", **settings)
    assert found.SOPClassUID == CT
    assert ("RealWorldValueMappingSequence" in found) is stays


def test_a_difference_has_no_real_world_values_of_its_source(tmp_path: Path) -> None:
    one = mapped(ct_series(count=1, rows=20, columns=24)[0])
    other = deepcopy(one)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    (found,) = made("subtract", saved([one, other], tmp_path / "in"), tmp_path / "out")
    assert "RealWorldValueMappingSequence" not in found


def test_display_levels_stored_like_their_source_say_what_they_are(tmp_path: Path) -> None:
    source = scaled(np.arange(256, dtype=np.uint16).reshape(16, 16), slope=1)
    source.BitsStored, source.HighBit = 12, 11
    (found,) = made("window", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    assert (found.RescaleType, found.WindowCenter, found.WindowWidth) == ("US", 2048, 4096)


@pytest.mark.parametrize(("said", "unit"), [("MGML", "MGML"), ("HU", "HU"), (None, "HU")])
def test_the_unit_is_the_source_s_own_where_values_keep_their_meaning(
    said: str | None, unit: str, tmp_path: Path
) -> None:
    samples = np.zeros((20, 20), np.uint16)
    samples[5:12, 5:12] = 4095
    source = scaled(samples, slope=0.01)
    source.BitsStored, source.HighBit, source.RescaleType = 12, 11, said
    path = saved_one(source, tmp_path / "in")
    (found,) = made("unsharp", [path], tmp_path / "out", amount=3)
    assert hounsfield(found).min() < 0 and found.RescaleType == unit
    (edges,) = made("sobel", [path], tmp_path / "edges")
    assert edges.RescaleType == "US"


def test_a_capture_names_the_unit_of_its_source(tmp_path: Path) -> None:
    source = enhanced()
    for group in source.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence[0].RescaleType = "Z_EFF"
    (found,) = made("mip", [saved_one(source, tmp_path / "in")], tmp_path / "out")
    assert (found.SOPClassUID, found.RescaleType) == (SECONDARY_CAPTURE, "Z_EFF")
    classic = scaled(np.full((8, 8), 60_000, np.uint16), slope=2, sop_class=OPTICAL)
    classic.Modality, classic.RescaleType = "OP", "OD"
    path = saved_one(classic, tmp_path / "optical")
    (found,) = made("unsharp", [path], tmp_path / "same", unit="px")
    assert found.RescaleType == "OD"
