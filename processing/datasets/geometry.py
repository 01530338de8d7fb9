"""Where images lie in the patient: read from Data Sets, and put in order as a volume.

Owns the reading of Image Position and Orientation (Patient) and Pixel Spacing,
of an image or of a frame's functional groups, and the question whether slices
make up a volume. File order and Instance Number say nothing here. What is no
volume is refused with the reason, never mended. PS3.3 Sections C.7.6.2 and C.7.6.16.2.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydicom.dataset import Dataset

from processing.datasets.raw_values import numbers_of, text_of
from processing.operations.operation import NotProcessable
from processing.operations.space import Grid, Vector

_POSITION = 0x0020_0032
_ORIENTATION = 0x0020_0037
_FRAME_OF_REFERENCE = 0x0020_0052
_PIXEL_SPACING = 0x0028_0030
_NUMBER_OF_FRAMES = 0x0028_0008
_PER_FRAME = 0x5200_9230

_SAME_DIRECTION = 1e-3
"""Difference of direction cosines that rounding explains."""
_SAME_SPACING = 1e-3
"""Difference of Pixel Spacing that rounding explains, as a share."""
_SAME_PLACE_MM = 1e-2
_OFF_PLACE = 0.05
"""How far a slice may lie from where an even stack has it, as a share of the distance of two."""
_FLATTENED = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
)
_GAP = 1.5
"""A distance of so many is a gap."""


class GeometryMissing(NotProcessable):
    """An image does not say where it lies."""


class OrientationsMixed(NotProcessable):
    """Not all images are parallel and turned the same way."""


class SizesMixed(NotProcessable):
    """Not all images have the same Rows, Columns and Pixel Spacing."""


class PositionsDoubled(NotProcessable):
    """Several images lie at the same place."""


class SlicesMissing(NotProcessable):
    """Slices are evenly spaced but for gaps."""


class SpacingUneven(NotProcessable):
    """The distances between slices differ."""


class SpacesMixed(NotProcessable):
    """Positions are counted from different origins."""


class SlicesOutOfLine(NotProcessable):
    """Slices are evenly spaced but do not lie behind each other on a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Slices as a volume: their numbers in order along the normal, the first one, and the way to the next."""

    order: tuple[int, ...]
    first: Grid
    step_mm: Vector


def functional(head: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Give a frame's functional group, its own or the one shared by all."""
    per_frame = head.get("PerFrameFunctionalGroupsSequence")
    shared = head.get("SharedFunctionalGroupsSequence")
    for groups in (
        per_frame[frame] if per_frame and frame < len(per_frame) else None,
        *(shared or ()),
    ):
        sequence = None if groups is None else groups.get(keyword)
        if sequence:
            found: Dataset = sequence[0]
            return found
    return None


def spacing_of(head: Dataset, frame: int) -> tuple[float, float] | None:
    """Give the distance between rows and between columns, in mm in the patient, where it is stated."""
    numbers = stated_numbers(_holder(head, frame, "PixelMeasuresSequence"), _PIXEL_SPACING, 2)
    if numbers is None or not (numbers > 0).all():
        return None
    return float(numbers[0]), float(numbers[1])


def grid_of(head: Dataset, frame: int) -> Grid | None:
    """Tell where an image or frame lies; ``None`` where it does not say so."""
    groups = _has_groups(head)
    if not groups and _NUMBER_OF_FRAMES in head and int(head.get("NumberOfFrames") or 1) > 1:
        return None  # one position cannot be that of several frames
    position = stated_numbers(_holder(head, frame, "PlanePositionSequence"), _POSITION, 3)
    cosines = stated_numbers(_holder(head, frame, "PlaneOrientationSequence"), _ORIENTATION, 6)
    spacing = spacing_of(head, frame)
    if position is None or cosines is None or spacing is None:
        return None
    directions = _directions(*cosines.tolist())
    if directions is None:
        return None
    return Grid(
        origin_mm=position,
        along_row=directions[0],
        along_column=directions[1],
        spacing_mm=spacing,
        rows=int(head.Rows),
        columns=int(head.Columns),
    )


@lru_cache(maxsize=64)
def _directions(*cosines: float) -> tuple[Vector, Vector] | None:
    """Make cosines exact: of length one and at right angles; ``None`` where they are nowhere near it."""
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    lengths = np.linalg.norm(along_row), np.linalg.norm(along_column)
    if not np.allclose((*lengths, along_row @ along_column), (1, 1, 0), atol=_SAME_DIRECTION):
        return None
    along_row = along_row / lengths[0]
    along_column = along_column - (along_column @ along_row) * along_row
    return along_row, along_column / np.linalg.norm(along_column)


def stack_of(grids: Sequence[Grid | None]) -> Stack:
    """Put slices in order. Raises ``NotProcessable`` of the kind that says why they are no volume."""
    known = [one for one in grids if one is not None]
    if len(known) < len(grids):
        raise GeometryMissing(
            f"{len(grids) - len(known)} of {len(grids)} images do not say where they lie"
        )
    if len(known) < 2:
        raise GeometryMissing("a volume is made of two slices or more")
    _require_alike(known)
    depths = np.array([one.origin_mm @ known[0].normal for one in known])
    order = np.argsort(depths, kind="stable")
    _require_even(depths[order])
    origins = np.array([known[i].origin_mm for i in order])
    step = (origins[-1] - origins[0]) / (len(known) - 1)
    regular = origins[0] + np.arange(len(known))[:, None] * step
    off = np.linalg.norm(origins - regular, axis=1).max()
    if off > max(_SAME_PLACE_MM, _OFF_PLACE * float(np.linalg.norm(step))):
        raise SlicesOutOfLine(f"slices lie up to {off:.2f} mm beside the line of the stack")
    return Stack(order=tuple(map(int, order)), first=known[order[0]], step_mm=step)


def require_one_space(heads: Iterable[Dataset]) -> None:
    """Refuse images whose positions mean nothing to each other. PS3.3 Section C.7.4.1. Raises ``SpacesMixed``."""
    spaces = Counter(text_of(one, _FRAME_OF_REFERENCE) for one in heads)
    if len(spaces) > 1:
        others = spaces.total() - spaces.most_common(1)[0][1]
        raise SpacesMixed(f"{others} of {spaces.total()} images lie in another Frame of Reference")


def flattened(head: Dataset, frame: int) -> Dataset:
    """Give the head of one frame as if it were an image of its own: what its groups say stands in it."""
    flat = Dataset(dict(head.items()))  # of a Dataset it would share the elements, not copy them
    flat.set_original_encoding(False, True, head.original_character_set)
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in flat:
            delattr(flat, name)
    for name in _FLATTENED:
        group = functional(head, frame, name)
        for element in group or ():
            flat[element.tag] = element
    if "NumberOfFrames" in flat:
        del flat.NumberOfFrames
    return flat


def _require_alike(grids: Sequence[Grid]) -> None:
    axes = np.array([(*one.along_row, *one.along_column) for one in grids])
    turned = int((~np.isclose(axes, axes[0], atol=_SAME_DIRECTION).all(axis=1)).sum())
    if turned:
        raise OrientationsMixed(f"{turned} of {len(grids)} images lie in another orientation")
    sizes = np.array([(one.rows, one.columns) for one in grids])
    spacings = np.array([one.spacing_mm for one in grids])
    alike = (sizes == sizes[0]).all(axis=1)
    alike &= np.isclose(spacings, spacings[0], rtol=_SAME_SPACING, atol=0).all(axis=1)
    other = int((~alike).sum())
    if other:
        raise SizesMixed(f"{other} of {len(grids)} images have another size or Pixel Spacing")


def _require_even(depths: Vector) -> None:
    """Refuse a stack that is not evenly spaced; depths ascend."""
    distances = np.diff(depths)
    doubled = int((distances < _SAME_PLACE_MM).sum())
    if doubled:
        raise PositionsDoubled(f"{doubled + 1} or more images lie at the same place")
    usual = float(np.median(distances))
    gaps = distances[distances > _GAP * usual] / usual
    if gaps.size and (np.abs(gaps - np.rint(gaps)) < 2 * _OFF_PLACE * np.rint(gaps)).all():
        missing = int(np.rint(gaps).sum()) - gaps.size
        raise SlicesMissing(f"{missing} slices are missing, in {gaps.size} gaps")
    even = (depths[-1] - depths[0]) / distances.size
    off = float(np.abs(depths - depths[0] - np.arange(depths.size) * even).max())
    if off > max(_SAME_PLACE_MM, _OFF_PLACE * even):
        raise SpacingUneven(f"slices are {distances.min():.3f} to {distances.max():.3f} mm apart")


def _has_groups(head: Dataset) -> bool:
    return _PER_FRAME in head


def _holder(head: Dataset, frame: int, keyword: str) -> Dataset | None:
    """Where the attributes of a functional group stand: in it, or in a classic image itself."""
    return functional(head, frame, keyword) if _has_groups(head) else head


def stated_numbers(holder: Dataset | None, tag: int, count: int) -> Vector | None:
    """Give the values of an attribute, ``None`` unless they are ``count`` finite numbers."""
    try:
        numbers = np.array(() if holder is None else numbers_of(holder, tag), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return numbers if numbers.size == count and bool(np.isfinite(numbers).all()) else None
