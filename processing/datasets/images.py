"""Stored images as operations take them: frames of modality values, padding marked.

Owns the way from stored samples to modality values: Bits Stored, Modality LUT or
rescale, Pixel Padding, colour spaces. Refuses what is no image. Runs only in the
sandbox: it decodes what peers have sent. PS3.3 Sections C.7.6.3, C.7.5.1.1.2, C.11.1.
"""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, convert_color_space

from processing.codecs.frame import COLOR, GRAYSCALE, PALETTE
from processing.datasets import native, pixels, skim, source, writing
from processing.datasets.elements import EXPLICIT_LITTLE, PIXEL_DATA, DataSet
from processing.datasets.geometry import functional
from processing.datasets.image_pixel import ImagePixel, described
from processing.datasets.raw_values import numbers_of
from processing.datasets.scale import Scale
from processing.datasets.syntaxes import COMPRESSED, EXPLICIT_LITTLE_ENDIAN
from processing.datasets.value_representations import number
from processing.operations.operation import Mask, NotProcessable, Values

_PER_FRAME = 0x5200_9230
_MODALITY_LUT = 0x0028_3000
_BITS_ALLOCATED = 0x0028_0100
_FLOATING = (0x7FE0_0008, 0x7FE0_0009)
_RESCALE_INTERCEPT = 0x0028_1052
_RESCALE_SLOPE = 0x0028_1053

Stored = tuple[str, int, str]
"""Path, offset of the Data Set, transfer syntax UID."""


class NoImage(NotProcessable):
    """There are no pixels that are numbers of a whole image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where decoded pixels may lie, and how many bytes they may be."""

    folder: str
    max_bytes: int


class Source:
    """One stored image. Its frames are decoded when they are asked for."""

    def __init__(self, stored: Stored, place: Place) -> None:
        self._stored = stored
        self._place = place
        self._native: tuple[int, int] | None = None
        if not self._skimmed():
            with self._opened() as elements:
                _require_pixels(elements)
                self.head = head_of(elements)
                self._image = _described(elements)
        self._kept: tuple[memoryview, ImagePixel] | None = None
        self._scales: dict[int, Scale] = {}
        if self.photometric not in GRAYSCALE | {PALETTE} and self._image.form.samples != 3:
            raise NoImage("an image is neither gray nor of three colours")

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self._image.frames

    @property
    def is_framed(self) -> bool:
        """Tell whether its attributes are those of frames, be it one."""
        return self.frames > 1 or _PER_FRAME in self.head

    @property
    def photometric(self) -> str:
        """Photometric Interpretation as stored."""
        return self._image.form.photometric

    @property
    def is_color(self) -> bool:
        """Tell whether its pixels have colours."""
        return self.photometric not in GRAYSCALE

    @property
    def references(self) -> tuple[str, str]:
        """SOP Class and SOP Instance UID."""
        return str(self.head.SOPClassUID), str(self.head.SOPInstanceUID)

    def scale(self, frame: int) -> Scale:
        """Tell how a frame's samples stand for modality values."""
        key = frame if _PER_FRAME in self.head else 0
        if key not in self._scales:
            self._scales[key] = self._scale(key)
        return self._scales[key]

    def _scale(self, frame: int) -> Scale:
        form = self._image.form
        slope, intercept = _rescale(self.head, frame)
        return Scale(
            slope=slope,
            intercept=intercept,
            bits_allocated=form.bits_allocated,
            bits_stored=form.bits_stored,
            signed=form.signed,
            padding=_padding(self.head, form.signed, form.bits_allocated),
        )

    def values(self, frame: int) -> Values:
        """Give a gray frame's modality values, NaN where it is padded."""
        samples, padded = self.samples(frame)
        if self.has_table:
            values: Values = np.asarray(apply_modality_lut(samples, self.head), dtype=np.float64)
        else:
            values = self.scale(frame).values(samples)
        if padded is not None:
            values[padded] = np.nan
        return values

    @property
    def has_table(self) -> bool:
        """Tell whether a Modality LUT says what its samples stand for."""
        return _MODALITY_LUT in self.head

    def samples(self, frame: int) -> tuple[npt.NDArray[Any], Mask | None]:
        """Give a gray frame as it is stored, and where it is padded, if it is anywhere."""
        samples = self._samples(frame)
        return samples, _padded(samples, self.head, self.scale(frame))

    def colors(self, frame: int) -> tuple[Values, int]:
        """Give red, green and blue of a colour frame, and their bits."""
        samples = self._samples(frame)
        photometric = self._decoded()[1].form.photometric
        if photometric == PALETTE:
            mapped = apply_color_lut(samples, self.head)
            return mapped.astype(np.float64), mapped.dtype.itemsize * 8
        if photometric not in COLOR | {native.SHARED_CHROMINANCE}:
            raise NoImage(f"no operation takes {photometric[:16]}")
        if photometric != "RGB":
            if self._image.form.bits_stored != 8:
                raise NoImage("luminance and chrominance of another depth than 8 bits")
            samples = convert_color_space(samples, "YBR_FULL", "RGB")
        return samples.astype(np.float64), self._image.form.bits_stored

    def _samples(self, frame: int) -> npt.NDArray[Any]:
        value, image = self._decoded()
        cells = native.frame_of(value, image, frame)
        return _bits_stored(cells, image)

    def _decoded(self) -> tuple[memoryview, ImagePixel]:
        """Give all frames as native bytes; those of a multi-frame image stay at hand, in a file."""
        if self._kept is not None:
            return self._kept
        if self._native is not None:
            return self._mapped(*self._native), self._image
        with self._opened() as elements:
            if self._stored[2] in COMPRESSED:
                pixels.decompress(
                    elements,
                    self._stored[2],
                    folder=self._place.folder,
                    max_bytes=self._place.max_bytes,
                )
            elif elements[PIXEL_DATA].fragments is not None:
                raise NoImage("an image is compressed in a way that is not read here")
            image = _described(elements)
            decoded = native.value_of(elements, image), image
        if image.frames > 1:
            self._kept = decoded
        return decoded

    def _skimmed(self) -> bool:
        """Read what is plain the short way. What is not is left to the reader that follows everything."""
        path, offset, syntax = self._stored
        if syntax != EXPLICIT_LITTLE_ENDIAN:
            return False
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size > self._place.max_bytes:
                raise source.TooLarge("stored file")
            found = skim.skimmed(source.mapped(file)[offset:])
        if found is None or found.pixels is None:
            return False
        image = _described(found.described)
        wanted = native.stored_bytes(image) * image.frames
        if image.frames != 1 or found.pixels[1] not in (wanted, wanted + wanted % 2):
            return False
        self.head, self._image = found.head, image
        self._native = (offset + found.pixels[0], wanted)
        return True

    def _mapped(self, start: int, length: int) -> memoryview:
        with Path(self._stored[0]).open("rb") as file:
            value = source.mapped(file)[start : start + length]
        if len(value) != length:
            raise NoImage("an instance is shorter than it was")
        return value

    def _opened(self) -> Any:
        return source.opened(
            *self._stored, folder=self._place.folder, max_bytes=self._place.max_bytes
        )


def _require_pixels(elements: DataSet) -> None:
    """Refuse what has no pixels that are whole numbers. PS3.3 Section C.7.6.24."""
    if PIXEL_DATA in elements:
        return
    if any(tag in elements for tag in _FLOATING):
        raise NoImage("an image of floating point pixels: no operation takes those")
    raise NoImage("an instance holds no image")


def _described(elements: DataSet) -> ImagePixel:
    if number(elements, _BITS_ALLOCATED) == 1:
        raise NoImage("an image of single bits, as of a segmentation: no operation takes those")
    return described(elements)


def head_of(elements: DataSet) -> Dataset:
    """Give everything but the pixels as pydicom reads it; values stay raw until they are looked at."""
    encoded = BytesIO()
    kept = {tag: one for tag, one in elements.items() if tag >> 16 not in (0x7FE0, 0xFFFC)}
    writing.Writer(encoded, EXPLICIT_LITTLE).write(kept)
    encoded.seek(0)
    head: Dataset = read_dataset(encoded, is_implicit_VR=False, is_little_endian=True)
    return head


def _rescale(head: Dataset, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame. PS3.3 Sections C.11.1.1.2 and C.7.6.16.2.9."""
    if "ModalityLUTSequence" in head:
        return 1.0, 0.0
    holder = functional(head, frame, "PixelValueTransformationSequence") or head
    try:
        (slope,) = numbers_of(holder, _RESCALE_SLOPE) or (1.0,)
        (intercept,) = numbers_of(holder, _RESCALE_INTERCEPT) or (0.0,)
        slope = slope or 1.0
    except (TypeError, ValueError) as error:
        raise NoImage("Rescale Slope or Intercept is no number") from error
    if not np.isfinite((slope, intercept)).all():
        raise NoImage("Rescale Slope or Intercept is no number")
    return slope, intercept


def _padding(head: Dataset, signed: bool, bits_allocated: int) -> int | None:
    """Pixel Padding Value, read with the sign of the pixels however its VR is."""
    return _cell(head, "PixelPaddingValue", signed, bits_allocated)


def _cell(head: Dataset, keyword: str, signed: bool, bits_allocated: int) -> int | None:
    value = head.get(keyword)
    if not isinstance(value, int):
        return None
    value &= (1 << bits_allocated) - 1
    return value - (1 << bits_allocated) if signed and value >> bits_allocated - 1 else value


def _padded(samples: npt.NDArray[Any], head: Dataset, scale: Scale) -> Mask | None:
    if scale.padding is None:
        return None
    limit = _cell(head, "PixelPaddingRangeLimit", scale.signed, scale.bits_allocated)
    low, high = sorted((scale.padding, scale.padding if limit is None else limit))
    padded: Mask = samples == low if low == high else (samples >= low) & (samples <= high)
    return padded if padded.any() else None


def _bits_stored(cells: npt.NDArray[Any], image: ImagePixel) -> npt.NDArray[Any]:
    """Take the bits that are the sample, whatever lies beside them. PS3.5 Section 8.1.1."""
    form = image.form
    above = form.bits_allocated - 1 - image.high_bit
    below = form.bits_allocated - form.bits_stored
    if not (below or above):
        return cells
    if not 0 <= above <= below:
        raise NoImage("High Bit does not go together with Bits Stored")
    if not form.signed and not above:
        return np.asarray(cells >> below)
    if not form.signed and above == below:
        return np.asarray(cells & cells.dtype.type((1 << form.bits_stored) - 1))
    shifted = np.left_shift(cells, above)
    np.right_shift(shifted, below, out=shifted)
    return np.asarray(shifted)
