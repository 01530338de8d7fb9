"""Which images show the same place, and in which order of time they were taken.

Owns the question for sets of images. A stated position answers it. Without one it is
answered only where the standard says that frames or images differ in nothing but time:
frames whose Frame Increment Pointer is a time, X-ray and ultrasound cine, and single
X-ray, ultrasound and captured images of one series and the same stated view. All else is
refused with the reason. PS3.3 Sections C.7.6.2, C.7.6.5, C.7.6.6, C.7.6.16.2.2 and C.8.7.5.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from pacs.core.text import date_time_bounds, offset_minutes
from processing.datasets.geometry import functional, grid_of
from processing.operations.operation import NotProcessable
from processing.operations.space import Grid

Place = tuple[object, ...]
"""What images of one place have in common."""

_CINE: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{one}"
    for one in ("3", "3.1", "6", "6.1", "12.1", "12.1.1", "12.2", "12.2.1")
)
"""Ultrasound, X-Ray Angiographic and X-Ray Radiofluoroscopic images, enhanced ones included."""
_VIEWED: Final = _CINE | frozenset(
    f"1.2.840.10008.5.1.4.1.1.{one}" for one in ("1.1", "1.1.1", "7", "7.1", "7.2", "7.3", "7.4")
)
"""Those, Digital X-Ray and Secondary Capture: their single images say which view they are."""
_TIMES: Final = frozenset(
    (
        0x0018_1063,  # Frame Time
        0x0018_1065,  # Frame Time Vector
        0x0054_0030,  # Phase Vector
        0x0054_0060,  # R-R Interval Vector
        0x0054_0070,  # Time Slot Vector
        0x0054_0100,  # Time Slice Vector
    )
)
_DIVIDERS: Final = {0x0054_0010: "EnergyWindowVector", 0x0054_0020: "DetectorVector"}
"""Frames that differ in these are no images of one place, however they go on in time."""
_VIEW: Final = (
    "ViewPosition",
    "PatientOrientation",
    "Laterality",
    "ImageLaterality",
    "PositionerPrimaryAngle",
    "PositionerSecondaryAngle",
    "ViewCodeSequence",
)
_SIZE: Final = ("PixelSpacing", "ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor")
_MOVED: Final = {"PositionerMotion": "the positioner", "TableMotion": "the table"}
_POSITIONERS: Final = ("PositionerPositionSequence", "TablePositionSequence")
_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)


class PlaceUnknown(NotProcessable):
    """Images state no position, and nothing else says that they show the same place."""


def place_of(head: Dataset, frame: int) -> Place:
    """Give what images of one place have in common: the plane and its pixels. Raises ``PlaceUnknown``."""
    matrix = (int(head.Rows), int(head.Columns))
    grid = grid_of(head, frame)
    if grid is not None:
        return (str(head.get("FrameOfReferenceUID")), *matrix, *_plane(grid))
    _require_no_other_place(head)
    if int(head.get("NumberOfFrames") or 1) > 1:
        return (str(head.SOPInstanceUID), *matrix, *_within(head, frame))
    return (str(head.SeriesInstanceUID), *matrix, *_view(head))


def _plane(grid: Grid) -> Iterator[float]:
    lies = np.concatenate((grid.origin_mm, grid.along_row, grid.along_column, grid.spacing_mm))
    yield from np.round(lies, 2).tolist()


def _require_no_other_place(head: Dataset) -> None:
    """Refuse images that state places in another way than by position and orientation."""
    if "TotalPixelMatrixRows" in head or "TotalPixelMatrixColumns" in head:
        raise PlaceUnknown("tiles of a larger image lie side by side")
    if head.get("GridFrameOffsetVector") is not None:
        raise PlaceUnknown("frames lie behind each other (Grid Frame Offset Vector)")
    if int(head.get("NumberOfFrames") or 1) > 1 and (
        head.get("SliceVector") is not None or head.get("SpacingBetweenSlices")
    ):
        raise PlaceUnknown("frames are slices behind each other")
    if head.get("AngularViewVector") is not None:
        raise PlaceUnknown("frames are views from different angles")


def _within(head: Dataset, frame: int) -> Iterator[object]:
    """Tell the frames of one image apart by all but time. Raises ``PlaceUnknown``."""
    is_cine = str(head.get("SOPClassUID")) in _CINE
    pointers = [int(one) for one in _values(head.get("FrameIncrementPointer"))]
    if not pointers and not is_cine:
        raise PlaceUnknown("frames do not say that they differ in time only")
    for keyword, what in _MOVED.items():
        if str(head.get(keyword) or "").strip() == "DYNAMIC":
            raise PlaceUnknown(f"{what} moves from frame to frame")
    for tag in pointers:
        if tag in _DIVIDERS:
            vector = _values(head.get(_DIVIDERS[tag]))
            yield str(vector[frame]) if frame < len(vector) else ""
        elif tag not in _TIMES:
            raise PlaceUnknown("frames differ in more than time (Frame Increment Pointer)")
    for name in _POSITIONERS:
        position = functional(head, frame, name)
        yield "" if position is None else str(position)


def _view(head: Dataset) -> Iterator[str]:
    """Tell single images of a series apart by their view. Raises ``PlaceUnknown`` where none is stated."""
    if str(head.get("SOPClassUID")) not in _VIEWED:
        raise PlaceUnknown("images do not say where they lie")
    view = [_told(head, keyword) for keyword in _VIEW]
    if not any(view):
        raise PlaceUnknown("images state neither where they lie nor which view they are")
    yield from view
    yield from (_told(head, keyword) for keyword in _SIZE)


def _told(head: Dataset, keyword: str) -> str:
    value: Any = head.get(keyword)
    if isinstance(value, Items):
        return "/".join(str(one.get("CodeValue") or "") for one in value)
    return "\\".join(str(one).strip() for one in _values(value))


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (MultiValue, list)) else [value]


# --- time ---------------------------------------------------------------------------------


def time_of(head: Dataset, frame: int) -> tuple[float, float, int, int, int, int]:
    """When a frame was taken: what is known of that, in the order in which it is believed.

    The frame's own words come before those of its image: frames may be stored in any order.
    """
    said = functional(head, frame, "FrameContentSequence") or Dataset()
    zone = offset_minutes(str(head.get("TimezoneOffsetFromUTC") or "")) or 0
    acquired = _moment(said.get("FrameAcquisitionDateTime"), zone)
    referred = _moment(said.get("FrameReferenceDateTime"), zone)
    whole = _moment(head.get("AcquisitionDateTime"), zone) or _moment(_day_and_time(head), zone)
    return (
        acquired or referred or whole,
        referred or acquired or whole,
        number_of(said.get("TemporalPositionIndex")),
        number_of(head.get("SeriesNumber")),
        number_of(head.get("InstanceNumber")),
        frame,
    )


def number_of(value: object) -> int:
    """Read a whole number; 0 where there is none."""
    try:
        return int(str(value))
    except ValueError:
        return 0


def _day_and_time(head: Dataset) -> str:
    day, time = (str(head.get(f"Acquisition{one}") or "") for one in ("Date", "Time"))
    return (day or "19700101") + time if day or time else ""


def _moment(value: object, zone_min: int) -> float:
    """Seconds on a scale of our own; 0 where nothing is said that can be read. PS3.5 Section 6.2, DT."""
    bounds = date_time_bounds(str(value or ""))
    if bounds is None:
        return 0.0
    low, _, offset_min = bounds
    return (low - _EPOCH).total_seconds() - 60 * (zone_min if offset_min is None else offset_min)
