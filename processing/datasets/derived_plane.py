"""Where derived images lie, and what speaks of their rows and columns.

Owns the image plane of a result, the positions of its frames and detectors, and
Patient Orientation. What cannot be moved with certainty is left out, not left as
it was. PS3.3 Sections C.7.6.2, C.7.6.1.1.1, C.8.4.11 and C.8.8.2.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from processing.datasets.derived_tables import OF_A_TILT, OF_THE_MATRIX
from processing.datasets.geometry import functional, grid_of
from processing.datasets.raw_values import numbers_of
from processing.operations.space import Grid

_ORIENTATION = 0x0020_0037
_OVERLAYS = 0x6000
_IN_PATIENT, _IN_VOLUME = "ImagePositionPatient", "ImagePositionVolume"
_WAYS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Towards which side of a biped each axis of the patient leads, and its opposite."""
_SLIGHT = 0.05
"""A cosine that no letter is written for."""
_RECEPTOR = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""RT Image Orientation where it is not stated: rows go down, y goes up."""
_PER_PIXEL = (
    "ImagePlanePixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelSpacing",
)


def placed(derived: Dataset, grid: Grid, thickness_mm: float) -> None:
    """Say where a result lies that does not lie where its source did."""
    _new_matrix(derived)
    _drop(derived, ("SliceLocation", "SpacingBetweenSlices", "PatientOrientation", *OF_A_TILT))
    derived.ImagePositionPatient = [_ds(one) for one in grid.origin_mm]
    derived.ImageOrientationPatient = [_ds(one) for one in (*grid.along_row, *grid.along_column)]
    derived.PixelSpacing = [_ds(one) for one in grid.spacing_mm]
    derived.SliceThickness = _ds(thickness_mm)


def stretched(derived: Dataset, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Say how large pixels are, and where the first lies, after the matrix has changed. The field of view has not."""
    _new_matrix(derived)
    factors = old[0] / new[0], old[1] / new[1]
    if (
        "DetectorInformationSequence" in derived
    ):  # what is changed in it is not changed in the source's
        derived.DetectorInformationSequence = deepcopy(derived.DetectorInformationSequence)
    _move_first(derived, factors)
    _move_on_receptor(derived, factors)
    for holder in (derived, *_measures(derived)):
        for keyword in _PER_PIXEL:
            if holder.get(keyword):
                both = zip(holder.get(keyword), factors, strict=True)
                setattr(holder, keyword, [_ds(float(one) * factor) for one, factor in both])


def unplaced(derived: Dataset) -> None:
    """Leave out a position that was said once of several frames: nobody knows of which it is true."""
    oriented(derived)
    _drop(derived, ("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"))


def oriented(derived: Dataset) -> None:
    """Say which sides of the patient rows and columns lead to; nothing where that is not known."""
    if derived.get("PatientOrientation"):
        return
    try:
        cosines = numbers_of(derived, _ORIENTATION)
    except (TypeError, ValueError):
        cosines = ()
    biped = derived.get("AnatomicalOrientationType") != "QUADRUPED"
    known = biped and len(cosines) == 6 and bool(np.isfinite(cosines).all())
    sides = [_side(cosines[:3]), _side(cosines[3:])] if known else []
    derived.PatientOrientation = sides if all(sides) else None


def _side(cosines: Sequence[float]) -> str:
    """Name the side a direction leads to, by the steepest axis first.

    >>> _side((1.0, 0.0, 0.0)), _side((0.0, -0.6, 0.8))
    ('L', 'HA')
    """
    axes = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    return "".join(_WAYS[axis][cosines[axis] < 0] for axis in axes if abs(cosines[axis]) > _SLIGHT)


def _measures(derived: Dataset) -> list[Dataset]:
    return [item for group in _groups(derived) for item in group.get("PixelMeasuresSequence") or ()]


def _groups(derived: Dataset) -> list[Dataset]:
    return [
        *(derived.get("SharedFunctionalGroupsSequence") or ()),
        *(derived.get("PerFrameFunctionalGroupsSequence") or ()),
    ]


def _move_first(derived: Dataset, factors: tuple[float, float]) -> None:
    """The first pixel's centre moves by half of what pixels have grown."""
    for holder, keyword, grid in list(_planes(derived)):
        if grid is None:
            _drop(holder, (keyword,))
            continue
        way = (factors[0] - 1) / 2 * grid.row_step_mm
        way = way + (factors[1] - 1) / 2 * grid.column_step_mm
        first = [round(one, 9) + 0.0 for one in (grid.origin_mm + way).tolist()]
        setattr(holder, keyword, first if keyword == _IN_VOLUME else list(map(_ds, first)))


def _planes(derived: Dataset) -> Iterator[tuple[Dataset, str, Grid | None]]:
    """Give all that state a position, and in which attribute, each with the plane it is of."""
    shared = derived.get("SharedFunctionalGroupsSequence") or ()
    per_frame = derived.get("PerFrameFunctionalGroupsSequence") or ()
    for frame, group in (*((0, one) for one in shared), *enumerate(per_frame)):
        for item in group.get("PlanePositionSequence") or ():
            yield item, _IN_PATIENT, grid_of(derived, frame)
        for item in group.get("PlanePositionVolumeSequence") or ():
            yield item, _IN_VOLUME, _grid_in_volume(derived, frame, item)
    for holder in (derived, *(derived.get("DetectorInformationSequence") or ())):
        if holder.get(_IN_PATIENT):  # frames behind the first lie the same way
            cosines = holder.get("ImageOrientationPatient")
            plane = _grid(derived, holder.get(_IN_PATIENT), cosines, derived.get("PixelSpacing"))
            yield holder, _IN_PATIENT, plane


def _grid_in_volume(derived: Dataset, frame: int, position: Dataset) -> Grid | None:
    """The plane of a frame in the volume of an enhanced ultrasound image. PS3.3 Section C.8.24.6."""
    axes = functional(derived, frame, "PlaneOrientationVolumeSequence") or Dataset()
    measures = functional(derived, frame, "PixelMeasuresSequence") or Dataset()
    return _grid(
        derived,
        position.get(_IN_VOLUME),
        axes.get("ImageOrientationVolume"),
        measures.get("PixelSpacing"),
    )


def _grid(derived: Dataset, position: object, cosines: object, spacing: object) -> Grid | None:
    alone = Dataset()
    alone.Rows, alone.Columns = derived.Rows, derived.Columns
    alone.ImagePositionPatient, alone.ImageOrientationPatient = position, cosines
    alone.PixelSpacing = spacing
    return grid_of(alone, 0)


def _move_on_receptor(derived: Dataset, factors: tuple[float, float]) -> None:
    """An RT Image lies on its receptor. PS3.3 Section C.8.8.2.4."""
    spacing, position = derived.get("ImagePlanePixelSpacing"), derived.get("RTImagePosition")
    if not (spacing and position):
        return
    along = [float(one) for one in derived.get("RTImageOrientation") or _RECEPTOR]
    down, right = ((f - 1) / 2 * float(mm) for f, mm in zip(factors, spacing, strict=True))
    derived.RTImagePosition = [
        _ds(float(position[axis]) + right * along[axis] + down * along[3 + axis]) for axis in (0, 1)
    ]


def _new_matrix(derived: Dataset) -> None:
    for tag in [one for one in derived.keys() if one.group & 0xFF00 == _OVERLAYS]:  # noqa: SIM118 - iterating would decode
        del derived[tag]
    _drop(derived, OF_THE_MATRIX)


def _drop(holder: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword in holder:
            delattr(holder, keyword)


def _ds(value: float) -> str:
    """Write a number of mm or a cosine: rounded to what an image can mean, -0 is 0."""
    return str(format_number_as_ds(round(float(value), 9) + 0.0))
