"""Volumes from files: samples as stored or values, whichever way, the results are the reference's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import FileDataset
from scipy import ndimage

from tests.phantoms import ct_series, hounsfield, saved
from tests.unit.test_derived import asked, made

Array = npt.NDArray[Any]


def padded_series(*, signed: bool, limit: bool) -> tuple[list[FileDataset], Array]:
    """Slices whose corners are padding, one of them whole; and their values, NaN where padded."""
    rng = np.random.default_rng(9)
    images = ct_series(count=70, rows=20, columns=24)
    known = []
    for number, one in enumerate(images):
        samples = rng.integers(-300 if signed else 100, 900, (20, 24))
        missing = np.zeros((20, 24), bool)
        if number != 40:
            missing[:4, :6] = True
        missing[10 + number % 9, 3:9] = True
        missing[:2, :2] = True
        padding, other = (-2000, -1990) if signed else (5, 9)
        samples[missing] = padding
        if limit:
            samples[missing & (np.arange(24) % 2 == 0)] = other - 3 if signed else 7
        one.PixelRepresentation = int(signed)
        vr = "SS" if signed else "US"
        one.add_new("PixelPaddingValue", vr, padding)
        if limit:
            one.add_new("PixelPaddingRangeLimit", vr, other)
        one.PixelData = samples.astype("<i2" if signed else "<u2").tobytes()
        known.append(np.where(missing, np.nan, samples - 1024.0))
    return images, np.array(known)


@pytest.mark.parametrize(
    ("operation", "formula"),
    [("mip", np.nanmax), ("minip", np.nanmin), ("mean-projection", np.nanmean)],
)
@pytest.mark.parametrize(
    ("signed", "limit"), [(True, False), (False, False), (True, True), (False, True)]
)
@pytest.mark.filterwarnings("ignore:All-NaN|Mean of empty")
def test_padding_has_no_part_in_what_is_projected_as_stored(
    operation: str, formula: Any, signed: bool, limit: bool, tmp_path: Path
) -> None:
    images, known = padded_series(signed=signed, limit=limit)
    (found,) = made(operation, saved(images, tmp_path / "in"), tmp_path / "out")
    expected = formula(known, axis=0)
    missing = np.isnan(expected)
    assert missing[:2, :2].all() and missing.sum() == 4
    values = hounsfield(found)
    assert np.abs(values - expected)[~missing].max() <= 0.5 * (operation == "mean-projection")
    samples = (values - float(found.RescaleIntercept)) / float(found.RescaleSlope)
    assert (samples[missing] == found.PixelPaddingValue).all()


@pytest.mark.parametrize("alike", [True, False])
def test_an_off_plane_reformat_is_what_double_precision_gives(alike: bool, tmp_path: Path) -> None:
    """Values near 30,000 with fine steps: single precision would be wrong by more than a step."""
    rng = np.random.default_rng(11)
    images = ct_series(count=9, rows=16, columns=18, step_mm=(0, 0, 1.7))
    known = []
    for number, one in enumerate(images):
        samples = rng.integers(0, 65_000, (16, 18))
        one.PixelData = samples.astype("<u2").tobytes()
        slope = 0.001 if alike else 0.001 * (1 + number % 2)
        one.RescaleSlope, one.RescaleIntercept = f"{slope:g}", "32000"
        known.append(samples * slope + 32000)
    (found, *_) = made(
        "mpr", saved(images, tmp_path / "in"), tmp_path / "out", plane="coronal", step_mm=100
    )
    solid = np.array(known)
    down = np.arange(found.Rows) * float(found.PixelSpacing[0])
    top = float(found.ImagePositionPatient[2]) - float(images[0].ImagePositionPatient[2])
    at = np.meshgrid((top - down) / 1.7, [0.0], np.arange(18.0), indexing="ij")
    expected = ndimage.map_coordinates(solid, at, order=1, output=np.float64)[:, 0]
    step = float(found.RescaleSlope)
    assert step <= 0.0021
    assert np.abs(hounsfield(found) - expected).max() <= step / 2 + 1e-9


@pytest.mark.parametrize("turn", [lambda one: one, lambda one: list(reversed(one))])
def test_a_mixed_rescale_is_projected_by_value(
    turn: Callable[[list[FileDataset]], list[FileDataset]], tmp_path: Path
) -> None:
    images = ct_series(count=6, rows=20, columns=24)
    for number, one in enumerate(images):
        one.RescaleIntercept = str(-1024 + 100 * number)
    expected = np.max([hounsfield(one) for one in images], axis=0)
    (found,) = made("mip", saved(turn(images), tmp_path / "in"), tmp_path / "out")
    assert np.array_equal(hounsfield(found), expected)


def test_a_falling_rescale_keeps_what_is_largest_by_value(tmp_path: Path) -> None:
    images = ct_series(count=6, rows=20, columns=24)
    for one in images:
        one.RescaleSlope = "-1"
    expected = np.max([hounsfield(one) for one in images], axis=0)
    (found,) = made("mip", saved(images, tmp_path / "in"), tmp_path / "out")
    assert np.array_equal(hounsfield(found), expected)


def numbers(found: FileDataset, images: list[FileDataset]) -> list[int]:
    """Which slices a result says it was made of, counted along the stack."""
    known = {one.SOPInstanceUID: number for number, one in enumerate(images)}
    return sorted(known[one.ReferencedSOPInstanceUID] for one in found.SourceImageSequence)


def test_results_name_the_slices_they_were_made_of(tmp_path: Path) -> None:
    images = ct_series(count=12, rows=20, columns=24)
    files = saved(images, tmp_path / "in")
    slabs = made("slab", files, tmp_path / "slab", thickness_mm=6, step_mm=4)
    assert [numbers(one, images) for one in slabs[:2]] == [[0, 1, 2], [2, 3, 4]]
    plain = made("mpr", files, tmp_path / "plain", plane="axial")
    assert [numbers(one, images) for one in plain] == [[number] for number in range(12)]
    between = made("mpr", files, tmp_path / "between", plane="axial", spacing_mm=1)
    assert [numbers(one, images) for one in between[:4]] == [[0], [0, 1], [1], [1, 2]]
    (coronal, *_) = made("mpr", files, tmp_path / "coronal", plane="coronal", step_mm=100)
    assert numbers(coronal, images) == list(range(12))
    (whole,) = made("mip", files, tmp_path / "mip")
    assert numbers(whole, images) == list(range(12))


def test_planes_through_an_oblique_stack_name_only_what_they_cut(tmp_path: Path) -> None:
    half = 0.5**0.5
    images = ct_series(
        count=30, rows=8, columns=24, step_mm=(0, -half, half), along_column=(0, half, half)
    )
    found = made("mpr", saved(images, tmp_path / "in"), tmp_path / "out", plane="axial")
    named = [numbers(one, images) for one in found]
    assert all(one == list(range(one[0], one[-1] + 1)) for one in named)
    assert named[0][0] == 0 and named[-1][-1] == 29 and max(map(len, named)) < 30


def test_an_image_in_another_plane_is_not_axial_any_more(tmp_path: Path) -> None:
    files = saved(ct_series(count=12, rows=20, columns=24), tmp_path / "in")
    for operation, settings, third in (
        ("mip", {}, "AXIAL"),
        ("slab", {}, "AXIAL"),
        ("mip", {"plane": "coronal"}, "OTHER"),
        ("mpr", {"plane": "sagittal"}, "OTHER"),
        ("rotating-mip", {"images": 1}, "OTHER"),
        ("gaussian", {}, "AXIAL"),
    ):
        (found, *_) = made(operation, files, tmp_path / operation / third, **settings)
        assert found.ImageType[2] == third, operation


@pytest.mark.parametrize("operation", ["mip", "mpr", "slab", "rotating-mip"])
def test_a_series_of_two_frames_of_reference_is_no_volume(operation: str, tmp_path: Path) -> None:
    images = ct_series(count=6, rows=8, columns=8)
    for one in images[:2]:
        one.FrameOfReferenceUID = "1.2.3"
    answer = asked(operation, saved(images, tmp_path / "in"), tmp_path / "out")
    assert answer == {"refused": "2 of 6 images lie in another Frame of Reference"}
