"""The pixels of derived images: how the Data Set describes them, where they lie, and writing them.

Owns the Image Pixel module, rescale, window and image plane of a result.
PS3.3 Sections C.7.6.3, C.11.1, C.11.2 and C.7.6.2; PS3.5 Annex A.2.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydicom.charset import default_encoding
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import format_number_as_ds

from processing.datasets.derived_tables import OF_THE_MATRIX
from processing.datasets.scale import DISPLAY_BITS, Scale
from processing.operations.operation import Values
from processing.operations.space import Grid

_SOURCE_IMAGES = 0x0008_2112
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_LEAST_LINEAR = 100.0
"""A range of fewer units is shown by LINEAR_EXACT: LINEAR takes a whole unit for itself."""
_SHOWN = (0.5, 99.5)
"""Percentiles of the values that a new window shows."""
_OVERLAYS = 0x6000


def describe_gray(derived: Dataset, scale: Scale, shape: tuple[int, ...]) -> None:
    """Say how gray samples are stored."""
    _describe(derived, shape, scale.bits_allocated, scale.bits_stored, signed=scale.signed)
    if derived.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        derived.PhotometricInterpretation = "MONOCHROME2"
    derived.SamplesPerPixel = 1
    if "PixelPaddingValue" in derived:
        del derived.PixelPaddingValue
    if scale.padding is not None:
        derived.add_new("PixelPaddingValue", "SS" if scale.signed else "US", scale.padding)


def describe_color(derived: Dataset, bits: int, shape: tuple[int, ...]) -> None:
    """Say how colours are stored: by pixel, red, green and blue."""
    _describe(derived, shape, 8 if bits <= 8 else 16, bits, signed=False)
    derived.PhotometricInterpretation = "RGB"
    derived.SamplesPerPixel = 3
    derived.PlanarConfiguration = 0


def rescaled(derived: Dataset, scale: Scale, unit: str) -> None:
    """Say which values the samples stand for. ``unit`` is a Rescale Type (PS3.3 Section C.11.1.1.2)."""
    derived.RescaleIntercept = format_number_as_ds(scale.intercept)
    derived.RescaleSlope = format_number_as_ds(scale.slope)
    derived.RescaleType = unit


def windowed(derived: Dataset, values: Values) -> None:
    """Show nearly all values of a result."""
    known = values[~np.isnan(values)]
    low, high = np.percentile(known, _SHOWN).tolist() if known.size else (0.0, 1.0)
    if high - low >= _LEAST_LINEAR:
        center, width = (low + high) / 2 + 0.5, high - low + 1
    else:
        center, width = (low + high) / 2, (high - low) or 1.0
        derived.VOILUTFunction = "LINEAR_EXACT"
    derived.WindowCenter = format_number_as_ds(float(f"{center:.6g}"))
    derived.WindowWidth = format_number_as_ds(float(f"{width:.6g}"))


def shown_as_they_are(derived: Dataset) -> None:
    """Show display levels: all of them."""
    derived.WindowCenter = str(1 << DISPLAY_BITS - 1)
    derived.WindowWidth = str(1 << DISPLAY_BITS)


def placed(derived: Dataset, grid: Grid, thickness_mm: float) -> None:
    """Say where a result lies that does not lie where its source did."""
    _new_matrix(derived)
    for keyword in ("SliceLocation", "SpacingBetweenSlices", "PatientOrientation"):
        if keyword in derived:
            delattr(derived, keyword)
    derived.ImagePositionPatient = [_ds(one) for one in grid.origin_mm]
    derived.ImageOrientationPatient = [_ds(one) for one in (*grid.along_row, *grid.along_column)]
    derived.PixelSpacing = [_ds(one) for one in grid.spacing_mm]
    derived.SliceThickness = _ds(thickness_mm)


def stretched(derived: Dataset, old: tuple[int, ...], new: tuple[int, ...]) -> None:
    """Say how large pixels are, and where the first lies, after the matrix has changed. The field of view has not."""
    _new_matrix(derived)
    factors = old[0] / new[0], old[1] / new[1]
    groups = [
        *(derived.get("SharedFunctionalGroupsSequence") or ()),
        *(derived.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    _move_first(derived, [derived, *_items(groups)], factors)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        for holder in (derived, *_items(groups)):
            if holder.get(keyword):
                both = zip(holder.get(keyword), factors, strict=True)
                setattr(holder, keyword, [_ds(float(one) * factor) for one, factor in both])


def _items(groups: list[Dataset]) -> list[Dataset]:
    names = ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
    return [item for group in groups for name in names for item in group.get(name) or ()]


def _move_first(derived: Dataset, holders: list[Dataset], factors: tuple[float, float]) -> None:
    """The first pixel's centre moves by half of what pixels have grown."""
    from processing.datasets.geometry import grid_of

    moved = []
    frame = 0
    for holder in holders:
        if holder.get("ImagePositionPatient"):
            grid = grid_of(derived, frame)
            frame += 1
            if grid is not None:
                way = (factors[0] - 1) / 2 * grid.row_step_mm
                way = way + (factors[1] - 1) / 2 * grid.column_step_mm
                moved.append((holder, grid.origin_mm + way))
    for holder, position in moved:
        holder.ImagePositionPatient = [_ds(one) for one in position]


def write(
    derived: Dataset, sources: bytes, frames: Iterable[npt.NDArray[Any]], file: BinaryIO
) -> None:
    """Write a Data Set in Explicit VR Little Endian, its frames one at a time.

    ``sources`` is its Source Image Sequence, encoded already, or nothing.
    """
    characters = derived.get("SpecificCharacterSet") or default_encoding
    for part, before in ((derived[:_SOURCE_IMAGES], b""), (derived[_SOURCE_IMAGES:], sources)):
        encoded = BytesIO()  # many small writes are cheaper there
        buffer = DicomIO(encoded)
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, part, characters)
        file.write(before + encoded.getvalue())
    word = derived.BitsAllocated > 8
    file.write(_PIXEL_DATA + (b"OW" if word else b"OB") + b"\0\0")
    at = file.tell()
    file.write(b"\0\0\0\0")
    for frame in frames:
        file.write(np.ascontiguousarray(frame).data)
    length = file.tell() - at - 4
    file.write(b"\0" * (length % 2))
    file.seek(at)
    file.write((length + length % 2).to_bytes(4, "little"))


def _describe(
    derived: Dataset, shape: tuple[int, ...], allocated: int, stored: int, *, signed: bool
) -> None:
    derived.Rows, derived.Columns = shape[:2]
    derived.BitsAllocated, derived.BitsStored = allocated, stored
    derived.HighBit = stored - 1
    derived.PixelRepresentation = int(signed)


def _new_matrix(derived: Dataset) -> None:
    for tag in [one for one in derived.keys() if one.group & 0xFF00 == _OVERLAYS]:  # noqa: SIM118 - iterating would decode
        del derived[tag]
    for keyword in OF_THE_MATRIX:
        if keyword in derived:
            delattr(derived, keyword)


def _ds(value: float) -> str:
    """Write a number of mm or a cosine: rounded to what an image can mean, -0 is 0."""
    return str(format_number_as_ds(round(float(value), 9) + 0.0))
