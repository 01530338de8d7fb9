"""Where derived images say they lie: positions of frames and detectors, orientation, the plane in Image Type."""

from collections.abc import Callable, Sequence
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence as Items

from tests.phantoms import CT, MR, ct_series, image, patient, saved
from tests.unit.test_derived import SECONDARY_CAPTURE, enhanced, errors_of, made, saved_one

__all__ = ["errors_of"]

NM = "1.2.840.10008.5.1.4.1.1.20"
RT_IMAGE = "1.2.840.10008.5.1.4.1.1.481.1"
XRAY_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.12.2"


def several(sop_class: str) -> FileDataset:
    """A classic image of four frames that states one position, on an oblique plane, of oblong pixels."""
    source = image(np.full((4, 16, 20), 9, np.uint16), patient(), sop_class=sop_class)
    source.NumberOfFrames, source.PixelSpacing = 4, [2, 0.5]
    source.ImagePositionPatient = [10, 20, 30]
    source.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return source


def test_the_position_of_a_classic_image_of_several_frames_moves_with_its_pixels(
    tmp_path: Path,
) -> None:
    path = saved_one(several(XRAY_MULTI_FRAME), tmp_path / "in")
    (found,) = made("resize", [path], tmp_path / "out", factor=0.5)
    assert (found.Rows, found.Columns, found.NumberOfFrames) == (8, 10, 4)
    assert found.PixelSpacing == [4, 1]
    assert np.allclose(np.array(found.ImagePositionPatient, float), [10, 20.25, 29])


def test_a_position_that_cannot_be_moved_is_not_stated(tmp_path: Path) -> None:
    source = several(XRAY_MULTI_FRAME)
    del source.PixelSpacing
    (found,) = made("resize", [saved_one(source, tmp_path / "in")], tmp_path / "out", factor=0.5)
    assert "ImagePositionPatient" not in found and found.NumberOfFrames == 4


def test_one_position_is_not_said_of_each_of_several_frames(tmp_path: Path) -> None:
    path = saved_one(several(XRAY_MULTI_FRAME), tmp_path / "in")
    for one in made("sobel", [path], tmp_path / "out", unit="px"):
        assert "ImagePositionPatient" not in one and "ImageOrientationPatient" not in one
        assert list(one.PatientOrientation) == ["P", "F"]


def test_positions_of_detectors_move_with_their_pixels(tmp_path: Path) -> None:
    source = several(NM)
    detector = Dataset()
    detector.ImagePositionPatient = [10, 20, 30]
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    del source.ImagePositionPatient, source.ImageOrientationPatient
    source.DetectorInformationSequence = Items([detector])
    (found,) = made("resize", [saved_one(source, tmp_path / "in")], tmp_path / "out", factor=0.25)
    (moved,) = found.DetectorInformationSequence
    assert np.allclose(np.array(moved.ImagePositionPatient, float), [10.75, 23, 30])


def test_positions_in_the_volume_of_an_ultrasound_scan_move_with_their_pixels(
    tmp_path: Path,
) -> None:
    source = enhanced()
    axes = Dataset()
    axes.ImageOrientationVolume = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    source.SharedFunctionalGroupsSequence[0].PlaneOrientationVolumeSequence = Items([axes])
    for number, group in enumerate(source.PerFrameFunctionalGroupsSequence):
        place = Dataset()
        place.ImagePositionVolume = [0.5, 0.25, 3.0 * number]
        group.PlanePositionVolumeSequence = Items([place])
    (found,) = made("resize", [saved_one(source, tmp_path / "in")], tmp_path / "out", factor=0.5)
    for number, group in enumerate(found.PerFrameFunctionalGroupsSequence):
        (place,) = group.PlanePositionVolumeSequence
        assert np.allclose(place.ImagePositionVolume, [1.5, 1.25, 3.0 * number])


def test_an_image_on_a_receptor_keeps_its_field(tmp_path: Path) -> None:
    source = image(np.full((16, 20), 9, np.uint16), patient(), sop_class=RT_IMAGE)
    source.Modality = "RTIMAGE"
    del source.PixelSpacing, source.ImagePositionPatient, source.ImageOrientationPatient
    source.ImagePlanePixelSpacing, source.RTImagePosition = [2, 1], [-9.5, 15]
    (found,) = made("resize", [saved_one(source, tmp_path / "in")], tmp_path / "out", factor=0.5)
    assert found.ImagePlanePixelSpacing == [4, 2]
    assert np.allclose(np.array(found.RTImagePosition, float), [-9, 14])


def test_frames_of_enhanced_images_move_each_from_its_own_place(tmp_path: Path) -> None:
    source = enhanced()
    source.ImagePositionPatient = [0, 0, 0]  # what it says beside its groups is nothing to them
    (found,) = made("resize", [saved_one(source, tmp_path / "in")], tmp_path / "out", factor=0.5)
    for before, after in zip(
        source.PerFrameFunctionalGroupsSequence,
        found.PerFrameFunctionalGroupsSequence,
        strict=True,
    ):
        way = np.subtract(
            *(
                np.array(one.PlanePositionSequence[0].ImagePositionPatient, float)
                for one in (after, before)
            )
        )
        assert np.allclose(way, (1, 1, 0))


@pytest.mark.parametrize(
    ("plane", "sides"),
    [("axial", ["L", "P"]), ("coronal", ["L", "F"]), ("sagittal", ["P", "F"])],
)
def test_a_capture_says_which_sides_of_the_patient_it_shows(
    plane: str, sides: Sequence[str], tmp_path: Path, errors_of: Callable[[Path], set[str]]
) -> None:
    source = enhanced()
    path = saved_one(source, tmp_path / "in")
    (found,) = made("mip", [path], tmp_path / "out", plane=plane)
    assert found.SOPClassUID == SECONDARY_CAPTURE
    assert list(found.PatientOrientation) == list(sides)
    assert errors_of(tmp_path / "out" / "0.dcm.dcm") - errors_of(path) == set()
    source.AnatomicalOrientationType = "QUADRUPED"
    (found,) = made("mip", [saved_one(source, tmp_path / "dog")], tmp_path / "pet", plane=plane)
    assert "PatientOrientation" in found and not found.PatientOrientation


def tilted(degrees: float) -> list[FileDataset]:
    angle = radians(degrees)
    images = ct_series(
        count=8,
        rows=20,
        columns=24,
        step_mm=(0, 0, 4),
        along_column=(0, cos(angle), -sin(angle)),
    )
    for one in images:
        one.GantryDetectorTilt = str(degrees)
    return images


@pytest.mark.parametrize(
    ("operation", "plane", "third"),
    [
        ("mip", "stack", "AXIAL"),
        ("mip", "axial", "AXIAL"),
        ("slab", "axial", "AXIAL"),
        ("mpr", "coronal", "OTHER"),
    ],
)
def test_a_tilted_stack_that_was_resampled_is_tilted_no_more(
    operation: str, plane: str, third: str, tmp_path: Path
) -> None:
    files = saved(tilted(20), tmp_path / "in")
    (found, *_) = made(operation, files, tmp_path / "out", plane=plane)
    assert found.SOPClassUID == CT and "GantryDetectorTilt" not in found
    assert found.ImageType[2] == third
    (smooth,) = made("median", files[:1], tmp_path / "smooth")
    assert smooth.GantryDetectorTilt == 20


@pytest.mark.parametrize(
    ("plane", "third"), [("stack", "CORONAL"), ("axial", "AXIAL"), ("sagittal", "SAGITTAL")]
)
def test_a_plane_in_image_type_is_that_of_the_result(
    plane: str, third: str, tmp_path: Path
) -> None:
    images = ct_series(count=8, rows=20, columns=24, step_mm=(0, 2, 0), along_column=(0, 0, -1.0))
    for one in images:
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = MR
        one.Modality, one.ImageType = "MR", ["ORIGINAL", "PRIMARY", "CORONAL"]
        del one.RescaleIntercept, one.RescaleSlope, one.RescaleType
    (found,) = made("mip", saved(images, tmp_path / "in"), tmp_path / "out", plane=plane)
    assert found.ImageType == ["DERIVED", "SECONDARY", third, "MAX_IP"]
