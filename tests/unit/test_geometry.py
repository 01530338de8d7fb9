"""Geometry: read from the image plane, put in order as a volume or refused with the reason."""

import math
import random
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from processing.datasets import geometry
from processing.datasets.geometry import grid_of, spacing_of, stack_of
from tests.phantoms import ct_series

TILT = math.radians(20)


def slices(**how: Any) -> list[Dataset]:
    return [*ct_series(lambda points: points[..., 0], rows=4, columns=6, **{"count": 9, **how})]


def stacked(images: list[Dataset]) -> geometry.Stack:
    return stack_of([grid_of(one, 0) for one in images])


def test_the_order_is_that_of_positions_whatever_the_files_say() -> None:
    images = slices()
    expected = [one.SOPInstanceUID for one in images]
    random.Random(3).shuffle(images)
    for number, one in enumerate(images):
        one.InstanceNumber, one.SliceLocation = number, -number
    stack = stacked(images)
    assert [images[number].SOPInstanceUID for number in stack.order] == expected
    assert np.allclose(stack.step_mm, (0, 0, 2))
    assert np.allclose(stack.first.origin_mm, (-2.5, -1.5, -8))


def test_a_stack_taken_backwards_is_the_same_stack() -> None:
    backwards = stacked(slices(step_mm=(0, 0, -2)))
    assert np.allclose(backwards.step_mm, (0, 0, 2))
    assert backwards.order == tuple(range(8, -1, -1))


def test_a_tilted_gantry_shows_in_the_step() -> None:
    stack = stacked(slices(along_column=(0, math.cos(TILT), -math.sin(TILT))))
    assert np.allclose(stack.step_mm, (0, 0, 2))
    assert math.isclose(stack.first.normal @ stack.step_mm, 2 * math.cos(TILT), rel_tol=1e-6)


def test_an_oblique_stack_is_a_volume() -> None:
    row, column = (0.6, 0.8, 0.0), (0.0, 0.0, -1.0)
    step = 1.5 * np.cross(row, column)
    stack = stacked(slices(along_row=row, along_column=column, step_mm=tuple(step)))
    assert np.allclose(stack.step_mm, step)


def moved(images: list[Dataset], number: int, way: tuple[float, float, float]) -> list[Dataset]:
    place = np.array(images[number].ImagePositionPatient, float) + way
    images[number].ImagePositionPatient = place.tolist()
    return images


def without(images: list[Dataset], *numbers: int) -> list[Dataset]:
    return [one for number, one in enumerate(images) if number not in numbers]


def turned(images: list[Dataset]) -> list[Dataset]:
    images[4].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return images


def sized(images: list[Dataset], keyword: str, value: Any) -> list[Dataset]:
    setattr(images[4], keyword, value)
    return images


@pytest.mark.parametrize(
    ("images", "refusal", "says"),
    [
        (turned(slices()), geometry.OrientationsMixed, "1 of 9 images"),
        (sized(slices(), "Rows", 5), geometry.SizesMixed, "1 of 9"),
        (sized(slices(), "PixelSpacing", [1, 1.1]), geometry.SizesMixed, "1 of 9"),
        (slices() + slices(), geometry.PositionsDoubled, "same place"),
        (moved(slices(), 4, (0, 0, -2)), geometry.PositionsDoubled, "2 or more"),
        (without(slices(), 4), geometry.SlicesMissing, "1 slices are missing, in 1 gaps"),
        (without(slices(), 2, 3, 6), geometry.SlicesMissing, "3 slices are missing, in 2 gaps"),
        (moved(slices(), 4, (0, 0, 0.6)), geometry.SpacingUneven, "1.400 to 2.600 mm"),
        (moved(slices(), 4, (0, 3, 0)), geometry.SlicesOutOfLine, "beside the line"),
        (sized(slices(), "ImagePositionPatient", None), geometry.GeometryMissing, "1 of 9"),
        (sized(slices(), "ImagePositionPatient", [1, 2]), geometry.GeometryMissing, "1 of 9"),
        (sized(slices(), "PixelSpacing", [0, 1]), geometry.GeometryMissing, "1 of 9"),
        (
            sized(slices(), "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
            geometry.GeometryMissing,
            "1 of 9",
        ),
        (sized(slices(), "NumberOfFrames", 3), geometry.GeometryMissing, "1 of 9"),
        (slices(count=1), geometry.GeometryMissing, "two slices or more"),
        ([], geometry.GeometryMissing, "two slices or more"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_reason(
    images: list[Dataset], refusal: type[Exception], says: str
) -> None:
    with pytest.raises(refusal, match=says):
        stacked(images)


def test_rounding_of_positions_is_no_uneven_spacing() -> None:
    images = slices(step_mm=(0, 0, 0.625))
    for one in images:
        one.ImagePositionPatient = [f"{float(v):.2f}" for v in one.ImagePositionPatient]
    assert math.isclose(stacked(images).step_mm[2], 0.625, abs_tol=0.01)


def enhanced(frames: int = 4) -> Dataset:
    """An enhanced image whose frames lie in another order than they are stored."""
    head = Dataset()
    head.Rows, head.Columns, head.NumberOfFrames = 4, 6, frames
    head.SeriesInstanceUID = "1.2.3"
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.75]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([orientation])
    head.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for number in range(frames):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, (number * 3 % frames) * 1.5]
        group.PlanePositionSequence = Items([position])
        groups.append(group)
    head.PerFrameFunctionalGroupsSequence = Items(groups)
    return head


def test_frames_lie_where_their_functional_groups_say() -> None:
    head = enhanced()
    stack = stack_of([grid_of(head, frame) for frame in range(4)])
    assert stack.order == (0, 3, 2, 1)
    assert np.allclose(stack.step_mm, (0, 0, 1.5))
    assert stack.first.spacing_mm == spacing_of(head, 0) == (0.5, 0.75)
    assert grid_of(head, 4) is None, "a frame without a group lies nowhere"


def test_positions_in_two_frames_of_reference_are_no_volume() -> None:
    images = slices()
    geometry.require_one_space(images)
    images[4].FrameOfReferenceUID = "1.2.3"
    with pytest.raises(geometry.SpacesMixed, match="1 of 9 images lie in another Frame of Ref"):
        geometry.require_one_space(images)
    del images[4].FrameOfReferenceUID
    with pytest.raises(geometry.SpacesMixed):
        geometry.require_one_space(images)
