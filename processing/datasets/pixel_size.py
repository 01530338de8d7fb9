"""How large the pixels of an image are in mm, and where that is so.

Owns the choice among what images state: Pixel Spacing first, which lies in the patient;
else what projection radiographs, digitized films and ultrasound state instead, and the
words that tell a reader of the result which it was. PS3.3 Sections 10.7.1.3, C.8.6.1, C.8.5.5.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset

from processing.datasets.geometry import spacing_of, stated_numbers

_IMAGER_PIXEL_SPACING = 0x0018_1164
_NOMINAL_SCANNED_PIXEL_SPACING = 0x0018_2010
_MAGNIFICATION = 0x0018_1114
_TWO_DIMENSIONAL: Final = 1
"""Region Spatial Format. PS3.3 Section C.8.5.5.1.1."""
_CM: Final = 3
"""Physical Units. PS3.3 Section C.8.5.5.1.15."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSize:
    """Between rows and between columns. ``note`` says where, unless that is the patient by Pixel Spacing."""

    spacing_mm: tuple[float, float]
    note: str = ""


def pixel_size_of(head: Dataset, frame: int) -> PixelSize | None:
    """Tell how large the pixels of an image or frame are; ``None`` where it does not say."""
    spacing = spacing_of(head, frame)
    if spacing is not None:
        return PixelSize(spacing_mm=spacing)
    return _at_the_detector(head) or _on_film(head) or _by_region(head)


def _at_the_detector(head: Dataset) -> PixelSize | None:
    spacing = _pair(head, _IMAGER_PIXEL_SPACING)
    if spacing is None:
        return None
    factor = stated_numbers(head, _MAGNIFICATION, 1)
    if factor is None or not factor[0] > 0:
        return PixelSize(spacing_mm=spacing, note="mm at the detector (Imager Pixel Spacing)")
    return PixelSize(
        spacing_mm=(spacing[0] / float(factor[0]), spacing[1] / float(factor[0])),
        note="mm by Imager Pixel Spacing and Estimated Radiographic Magnification Factor",
    )


def _on_film(head: Dataset) -> PixelSize | None:
    spacing = _pair(head, _NOMINAL_SCANNED_PIXEL_SPACING)
    if spacing is None:
        return None
    return PixelSize(
        spacing_mm=spacing, note="mm on what was scanned (Nominal Scanned Pixel Spacing)"
    )


def _by_region(head: Dataset) -> PixelSize | None:
    """Take the calibration of an ultrasound image that is one region of two dimensions all over."""
    regions: Any = head.get("SequenceOfUltrasoundRegions")
    if not regions or len(regions) != 1 or not _covers(regions[0], head):
        return None
    region = regions[0]
    try:
        deltas = abs(float(region.PhysicalDeltaY)), abs(float(region.PhysicalDeltaX))
    except (AttributeError, TypeError, ValueError):
        return None
    if not all(0 < one < float("inf") for one in deltas):
        return None
    return PixelSize(
        spacing_mm=(10 * deltas[0], 10 * deltas[1]), note="mm by the ultrasound region"
    )


def _covers(region: Dataset, head: Dataset) -> bool:
    corners = [region.get(f"RegionLocation{one}") for one in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    if not all(isinstance(one, int) for one in corners):
        return False
    left, top, right, bottom = map(int, corners)
    form = ("RegionSpatialFormat", "PhysicalUnitsXDirection", "PhysicalUnitsYDirection")
    if [region.get(one) for one in form] != [_TWO_DIMENSIONAL, _CM, _CM]:
        return False
    return (left, top) == (0, 0) and right >= head.Columns - 1 and bottom >= head.Rows - 1


def _pair(head: Dataset, tag: int) -> tuple[float, float] | None:
    numbers = stated_numbers(head, tag, 2)
    if numbers is None or not (numbers > 0).all():
        return None
    return float(numbers[0]), float(numbers[1])
