"""Operations on real images and series: what scipy and scikit-image make of pydicom's modality values, and what no volume is."""

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from scipy import ndimage
from skimage import exposure, feature, filters

from tests.phantoms import hounsfield, saved
from tests.unit.test_derived import asked, made
from tests.unit.test_process_samples import IMAGES, SERIES, sample, values_of

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _odd_values_are_expected() -> Iterator[None]:
    """Pydicom warns of odd values in samples; that is not what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def steepest(values: Array, across: Array) -> Array:
    """The magnitude of the gradient by whole kernels, one convolution each."""
    kernel = np.outer([-0.5, 0, 0.5], across / across.sum())
    down, right = (ndimage.correlate(values, one, mode="nearest") for one in (kernel, kernel.T))
    return np.sqrt(down**2 + right**2)


def unit_range(values: Array) -> Array:
    return (values - values.min()) / (values.max() - values.min())


def tiles(values: Array) -> tuple[int, int]:
    return values.shape[0] // 8, values.shape[1] // 8


REFERENCES: dict[str, tuple[dict[str, Any], Callable[[Array], Array]]] = {
    "gaussian": (
        {"sigma": 2, "unit": "px"},
        lambda v: filters.gaussian(v, 2, mode="nearest", preserve_range=True, truncate=4),
    ),
    "smooth-mean": ({"size_px": 5}, lambda v: ndimage.uniform_filter(v, 5, mode="nearest")),
    "median": (
        {"size_px": 5},
        lambda v: filters.median(v, np.ones((5, 5)), mode="nearest", behavior="ndimage"),
    ),
    "sobel": ({"unit": "px"}, lambda v: steepest(v, np.array([1.0, 2, 1]))),
    "prewitt": ({"unit": "px"}, lambda v: steepest(v, np.array([1.0, 1, 1]))),
    "scharr": ({"unit": "px"}, lambda v: steepest(v, np.array([3.0, 10, 3]))),
    "laplacian": ({"unit": "px"}, lambda v: ndimage.laplace(v, mode="nearest")),
    "unsharp": (
        {"sigma": 2, "amount": 1.5, "unit": "px"},
        lambda v: v + 1.5 * (v - ndimage.gaussian_filter(v, 2, mode="nearest")),
    ),
    "canny": (
        {"sigma_px": 2, "low": 20, "high": 60},
        lambda v: feature.canny(v, 2, 20, 60, mode="nearest").astype(float),
    ),
    "equalize": ({"bins": 512}, lambda v: exposure.equalize_hist(v, nbins=512)),
    "clahe": (
        {"tiles": 8, "clip": 0.03, "bins": 128},
        lambda v: exposure.equalize_adapthist(unit_range(v), tiles(v), 0.03, 128),
    ),
}
LEVELS = ("canny", "equalize", "clahe")
"""Their results are display levels of 12 bits."""


@pytest.mark.parametrize("operation", REFERENCES)
@pytest.mark.parametrize("name", ["CT, JPEG Lossless", "MR, implicit", "MR, big endian"])
def test_an_operation_on_a_real_image_is_what_others_compute(
    operation: str, name: str, samples: Path, tmp_path: Path
) -> None:
    source = sample(samples, IMAGES[name])
    head = pydicom.dcmread(source, stop_before_pixels=True)
    if "PixelPaddingValue" in head:
        pytest.skip("padding is for other tests: the references know none")
    settings, reference = REFERENCES[operation]
    (found,) = made(operation, [source], tmp_path, **settings)
    expected = reference(values_of(source)) * (4095 if operation in LEVELS else 1)
    step = float(found.get("RescaleSlope", 1))
    assert np.abs(hounsfield(found) - expected).max() <= step / 2 + 1e-6


# --- real slices as a stack: in which order, how evenly, how tilted -----------------------


@pytest.fixture
def stack(samples: Path) -> list[FileDataset]:
    """The slices of a real series, in order of their places, uncompressed."""
    files = sorted(samples.glob(SERIES["CT"]))
    if len(files) < 5:
        pytest.skip("not among the samples")
    found = [pydicom.dcmread(one) for one in files]
    return sorted(found, key=lambda one: float(one.ImagePositionPatient[2]))


def moved(slices: list[FileDataset], *way: tuple[float, float, float]) -> list[FileDataset]:
    """The same slices elsewhere."""
    copies = [deepcopy(one) for one in slices]
    for one, step in zip(copies, way, strict=True):
        at = [float(a) + b for a, b in zip(one.ImagePositionPatient, step, strict=True)]
        one.ImagePositionPatient = [f"{value:.6f}" for value in at]
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return copies


def test_a_reversed_real_stack_has_the_same_mip_and_coronal_mip(
    stack: list[FileDataset], tmp_path: Path
) -> None:
    backwards = [deepcopy(one) for one in reversed(stack)]
    for number, one in enumerate(backwards):
        one.InstanceNumber = number + 1
    files = [saved(stack, tmp_path / "in"), saved(backwards, tmp_path / "back")]
    for plane in ("stack", "coronal"):
        one, other = (
            made("mip", some, tmp_path / f"{plane}-{n}", plane=plane)[0]
            for n, some in enumerate(files)
        )
        assert np.array_equal(hounsfield(one), hounsfield(other))
        assert one.ImagePositionPatient == other.ImagePositionPatient


def test_a_real_stack_with_a_slice_missing_or_out_of_step_is_refused(
    stack: list[FileDataset], tmp_path: Path
) -> None:
    gapped = saved([*stack[:2], *stack[3:]], tmp_path / "gapped")
    assert asked("mip", gapped, tmp_path / "1")["refused"] == "1 slices are missing, in 1 gaps"
    still = (0.0, 0.0, 0.0)
    uneven = saved(moved(stack, still, still, (0, 0, 0.8), still, still), tmp_path / "uneven")
    assert "mm apart" in asked("mip", uneven, tmp_path / "2")["refused"]
    aside = saved(moved(stack, still, still, (3, 0, 0), still, still), tmp_path / "aside")
    assert "beside the line" in asked("mip", aside, tmp_path / "3")["refused"]
    twice = saved([*stack, *moved(stack[:1], still)], tmp_path / "twice")
    assert "same place" in asked("mip", twice, tmp_path / "4")["refused"]


def test_a_real_stack_of_a_tilted_gantry_is_compared_behind_each_other(
    stack: list[FileDataset], tmp_path: Path
) -> None:
    """Each slice lies two rows further down than the one before: whole pixels, so nothing is mixed."""
    row_mm = float(stack[0].PixelSpacing[0])
    tilted = moved(stack, *((0, 2 * row_mm * number, 0) for number in range(len(stack))))
    (found,) = made("mip", saved(tilted, tmp_path / "in"), tmp_path / "out")
    rows, columns = stack[0].Rows, stack[0].Columns
    expected = np.full((rows + 2 * (len(stack) - 1), columns), -np.inf)
    for number, one in enumerate(stack):
        place = expected[2 * number : 2 * number + rows]
        np.maximum(place, hounsfield(one), out=place)
    assert (found.Rows, found.Columns) == expected.shape
    assert np.abs(hounsfield(found) - expected).max() < 1e-6
    assert float(found.ImagePositionPatient[1]) == pytest.approx(
        float(tilted[0].ImagePositionPatient[1]), abs=1e-6
    )


def test_a_coronal_reformat_of_a_real_stack_is_that_of_scipy(
    stack: list[FileDataset], tmp_path: Path
) -> None:
    solid = np.array([hounsfield(one) for one in stack])
    first, last = (float(one.ImagePositionPatient[2]) for one in (stack[0], stack[-1]))
    between_mm = (last - first) / (len(stack) - 1)
    spacing = tuple(map(float, stack[0].PixelSpacing))
    results = made("mpr", saved(stack, tmp_path / "in"), tmp_path / "out", plane="coronal")
    assert len(results) > 3
    for found in results:
        x, y, z = map(float, found.ImagePositionPatient)
        down, right = map(float, found.PixelSpacing)
        slices = (z - down * np.arange(found.Rows) - first) / between_mm
        row = (y - float(stack[0].ImagePositionPatient[1])) / spacing[0]
        columns = (
            x + right * np.arange(found.Columns) - float(stack[0].ImagePositionPatient[0])
        ) / spacing[1]
        at = np.meshgrid(slices, [row], columns, indexing="ij")
        expected = ndimage.map_coordinates(solid, at, order=1, mode="nearest")[:, 0]
        step = float(found.RescaleSlope)
        assert np.abs(hounsfield(found) - expected).max() <= step / 2 + 1e-5
