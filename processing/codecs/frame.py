"""What a codec is told of a frame, and what it promises.

Owns the shape of one frame and the two forms of its samples: as numbers, and
as bit patterns of Bits Stored. Refuses to know Data Sets. PS3.5 Sections 8.1
and 8.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[Any]
"""One frame, rows × columns, × samples where a pixel has several; color by pixel."""

GRAYSCALE = frozenset(("MONOCHROME1", "MONOCHROME2"))
PALETTE = "PALETTE COLOR"
COLOR = frozenset(("RGB", "YBR_FULL"))
"""Photometric Interpretations whose every pixel has all samples, and which no codec has to change."""

_MAX_DIMENSION = 65_535
_BITS_PER_BYTE = 8


class NotEncodable(ValueError):
    """The standard does not let this syntax carry this image without loss, or this codec cannot.

    Callers learn the kind only, so each cause is a kind.
    """


class ImageMissing(NotEncodable):
    """There are no Pixel Data to encapsulate, or floating point ones."""


class ColorsNotCarried(NotEncodable):
    """Its Photometric Interpretation would have to be changed, or shares samples between pixels."""


class DepthNotCarried(NotEncodable):
    """Bits Allocated or Bits Stored are beyond the syntax, or beyond what its codecs carry."""


class SizeNotCarried(NotEncodable):
    """Rows, Columns or the length of Pixel Data do not go together with the codestream's fields."""


class UnusedBitsInUse(NotEncodable):
    """Something lies in the bits that are not stored, and would be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The Image Pixel module's description of a frame. PS3.3 Section C.7.6.3."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that holds a frame."""
        plane = (self.rows, self.columns)
        return plane if self.samples == 1 else (*plane, self.samples)

    @property
    def cell(self) -> "np.dtype[Any]":
        """Type of a sample in native Pixel Data, little endian."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Length of a frame in native Pixel Data."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One lossless transfer syntax: how a frame is encoded, and how that is proved."""

    check: Callable[[Form], None]
    """Raises ``NotEncodable``."""
    encode: Callable[[Samples, Form], bytes]
    """Gives the codestream of one frame. Raises ``NotEncodable`` or what the library raises."""
    decode: Callable[[bytes, Form], Samples]
    """Gives the samples back, by another implementation than ``encode`` where one is installed."""
    whole_cells: bool = False
    """It carries all Bits Allocated as they lie, what is above Bits Stored included."""


def check_photometric(form: Form) -> None:
    """Refuse colours that would have to be changed, or whose samples are not all there."""
    known = (
        (form.samples == 1 and form.photometric in GRAYSCALE)
        or (form.samples == 1 and form.photometric == PALETTE and not form.signed)
        or (form.samples == 3 and form.photometric in COLOR and not form.signed)
    )
    if not known:
        raise ColorsNotCarried(form.photometric)


def check_bits(form: Form, *, allocated: tuple[int, ...], stored: range) -> None:
    """Refuse depths that are not in the syntax's table of PS3.5 Section 8.2."""
    if form.bits_allocated not in allocated or form.bits_stored not in stored:
        raise DepthNotCarried("not in the table of PS3.5 Section 8.2")
    if form.bits_stored > form.bits_allocated:
        raise DepthNotCarried("Bits Stored exceed Bits Allocated")


def check_size(form: Form) -> None:
    """Refuse what the size fields of a JPEG codestream cannot say."""
    if not (0 < form.rows <= _MAX_DIMENSION and 0 < form.columns <= _MAX_DIMENSION):
        raise SizeNotCarried("Rows or Columns")


def numbers(cells: Samples, form: Form) -> Samples | None:
    """Give cells of Bits Allocated as numbers of Bits Stored, ``None`` where that would lose bits.

    PS3.5 Section 8.1.1 leaves the bits above open: where all are zero, or all
    repeat the sign, they say nothing.
    """
    unused = form.bits_allocated - form.bits_stored
    if unused == 0:
        return cells
    if not int(cells.view(f"<u{cells.dtype.itemsize}").max()) >> form.bits_stored:
        return np.right_shift(np.left_shift(cells, unused), unused) if form.signed else cells
    half = 1 << form.bits_stored - 1
    if form.signed and -half <= int(cells.min()) and int(cells.max()) < half:
        return cells
    return None


def as_cells(found: Samples, form: Form) -> Samples:
    """Give what a library decoded, signless, as cells of Bits Allocated. Raises ``ValueError``."""
    if found.shape != form.shape or found.dtype.itemsize * 8 > form.bits_allocated:
        raise ValueError("a frame of another shape")
    cells: Samples = found.astype(f"<u{form.bits_allocated // 8}").view(form.cell)
    return cells


def precision(form: Form) -> int:
    """Choose the sample precision of a codestream whose samples are patterns.

    Bits Stored; but whole cells up to 8 bits, because DCMTK and GDCM take the
    size of the decoded cells from the codestream, and refuse a cell of its own.
    """
    return form.bits_stored if form.bits_stored > _BITS_PER_BYTE else form.bits_allocated


def patterns(samples: Samples, form: Form) -> Samples:
    """Give samples as signless patterns of ``precision`` bits, two's complement."""
    unsigned = samples.view(f"u{samples.dtype.itemsize}")
    bits = precision(form)
    if form.signed and bits < form.bits_allocated:
        unsigned = unsigned & unsigned.dtype.type((1 << bits) - 1)
    return np.ascontiguousarray(unsigned)


def from_patterns(found: Samples, form: Form) -> Samples:
    """Give patterns as samples again; the inverse of ``patterns``."""
    cells = found.view(form.cell)
    unused = form.bits_allocated - precision(form)
    if not form.signed or not unused:
        return cells
    extended: Samples = np.right_shift(np.left_shift(cells, unused), unused)
    return extended
