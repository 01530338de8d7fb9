"""Operations on real images: valid results, and the values that pydicom and numpy find."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from tests.phantoms import hounsfield
from tests.unit.test_derived import asked, errors_of, made

__all__ = ["errors_of"]

_NIFTI = "icometrix__dicom2nifti/tests/data/"
_PYDICOM = "pydicom__pydicom/src/pydicom/data/test_files/"
IMAGES = {
    "DX, inverse": "ImagingDataCommons__highdicom/data/test_files/dx_image.dcm",
    "CT, deflated": "cornerstonejs__cornerstoneWADOImageLoader/examples/test-images/"
    "CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
    "CT, JPEG Lossless": "dcm4che__dcm4che/dcm4che-test-data/src/main/resources/CT-JPEGLosslessSV1.dcm",
    "MR, implicit": f"{_NIFTI}generic/anatomical/001_implicit/IM-0001-0001-0001.dcm",
    "MR, big endian": f"{_PYDICOM}MR_small_bigendian.dcm",
    "MR, RLE": f"{_PYDICOM}MR_small_RLE.dcm",
    "PET": "suyashkumar__dicom/testdata/1.dcm",
    "Enhanced MR": "fo-dicom__fo-dicom/Tests/FO-DICOM.Tests/Test_Data/mr_brucker.dcm",
    "NM": "dcm4che__dcm4che/dcm4che-test-data/src/main/resources/NM-MONO2-16-13x-heart",
}
SERIES = {
    "CT": f"{_PYDICOM}dicomdirtests/98892001/CT5N/*",
    "MR, compressed": f"{_NIFTI}generic/compressed/001/*.dcm",
}
REQUESTS = (
    ("unsharp", {"unit": "px"}),
    ("sobel", {"unit": "px"}),
    ("resize", {"interpolation": "nearest"}),
)


@pytest.fixture(autouse=True)
def _odd_values_are_expected() -> Iterator[None]:
    """Pydicom warns of odd values in samples; that is not what these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def sample(samples: Path, name: str) -> Path:
    path = samples / name
    if not path.is_file():
        pytest.skip("not among the samples")
    return path


def values_of(path: Path) -> npt.NDArray[Any]:
    one = pydicom.dcmread(path)
    return np.asarray(apply_modality_lut(one.pixel_array, one), dtype=float)


@pytest.mark.parametrize("name", IMAGES)
def test_results_are_as_valid_as_real_images(
    name: str, samples: Path, tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    source = sample(samples, IMAGES[name])
    before = errors_of(source)
    for operation, settings in REQUESTS:
        made(operation, [source], tmp_path / operation, **settings)
        found = errors_of(tmp_path / operation / "0.dcm.dcm")
        assert found - before == set(), operation


@pytest.mark.parametrize("name", SERIES)
def test_a_mip_of_a_real_series_is_the_maximum(name: str, samples: Path, tmp_path: Path) -> None:
    files = sorted(samples.glob(SERIES[name]))
    if len(files) < 3:
        pytest.skip("not among the samples")
    answer = asked("mip", files, tmp_path / "ask")
    assert "refused" not in answer, answer
    (found,) = made("mip", files, tmp_path / "out")
    known = list(map(values_of, files))
    assert np.array_equal(hounsfield(found), np.max(known, axis=0))


def test_a_time_series_is_no_volume(samples: Path, tmp_path: Path) -> None:
    path = sample(samples, f"{_NIFTI}philips_enhanced/fmri/001_implicit/IM-0001-9600-0001.dcm")
    assert "same place" in asked("mip", [path], tmp_path)["refused"]
    (mean, *_) = made("mean", [path], tmp_path / "mean")
    assert mean.ImageType[-1] == "MEAN"
