"""The pixels of derived images: how the Data Set describes them, and writing them.

Owns the Image Pixel module, rescale and window of a result.
PS3.3 Sections C.7.6.3, C.11.1 and C.11.2; PS3.5 Annex A.2.
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

from processing.datasets.scale import DISPLAY_BITS, Scale
from processing.operations.operation import Values

_SOURCE_IMAGES = 0x0008_2112
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_LEAST_LINEAR = 100.0
"""A range of fewer units is shown by LINEAR_EXACT: LINEAR takes a whole unit for itself."""
_SHOWN = (0.5, 99.5)
"""Percentiles of the values that a new window shows."""


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
    """Say which values the samples stand for. ``unit`` is a Rescale Type (PS3.3 Section C.11.1.1.2), if any."""
    derived.RescaleIntercept = format_number_as_ds(scale.intercept)
    derived.RescaleSlope = format_number_as_ds(scale.slope)
    if unit:
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
    cell_bytes = derived.BitsAllocated // 8
    for frame in frames:
        assert frame.dtype.itemsize == cell_bytes, "samples are as wide as they are said to be"
        file.write(np.ascontiguousarray(frame).data)
    length = file.tell() - at - 4
    file.write(b"\0" * (length % 2))
    file.seek(at)
    file.write((length + length % 2).to_bytes(4, "little"))


def _describe(
    derived: Dataset, shape: tuple[int, ...], allocated: int, stored: int, *, signed: bool
) -> None:
    assert stored <= allocated, "samples fit their cells"
    derived.Rows, derived.Columns = shape[:2]
    derived.BitsAllocated, derived.BitsStored = allocated, stored
    derived.HighBit = stored - 1
    derived.PixelRepresentation = int(signed)
