"""Turns encapsulated Pixel Data into native Pixel Data, frame by frame.

Owns the Image Pixel attributes that must change with it: Planar Configuration
and Photometric Interpretation say what the decoded bytes are, Bits Stored holds
them, and what has lost something is called lossy. The samples are the codec's
own, without arithmetic, with two exceptions: JPEG's lossy processes in YBR come
out as RGB, as receivers of native Pixel Data expect (PS3.3 C.7.6.3.1.2), and
the sign repeats above the codestream's bits (PS3.5 Section 8.1.1).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from processing.codecs import codestream
from processing.codecs.frame import Form
from processing.datasets import decoders, encapsulation, unused_bits
from processing.datasets.elements import PIXEL_DATA, DataSet, Element
from processing.datasets.image_pixel import (
    BITS_STORED,
    EXTENDED_OFFSETS,
    HIGH_BIT,
    LOSSY_IMAGE_COMPRESSION,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    ImagePixel,
    PixelsUndecodable,
    described,
    embeds_overlay,
    put,
    put_text,
    text,
)
from processing.datasets.source import TooLarge, mapped
from processing.datasets.syntaxes import (
    JPEG_2000,
    LOSSY,
    RLE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """A frame, and what has to be said of it."""

    cells: Any
    photometric: str
    bits_stored: int
    is_lossy: bool


def decompress(elements: DataSet, syntax: str, *, folder: str, max_bytes: int) -> None:
    """Replace encapsulated Pixel Data by native, in items such as icons as well.

    Decoded frames lie in unnamed files in ``folder``. Raises ``TooLarge`` or
    ``PixelsUndecodable``, and whatever a decoder raises.
    """
    is_lossy = _decompress(elements, syntax, folder, max_bytes)
    if is_lossy and text(elements, LOSSY_IMAGE_COMPRESSION) in ("", "00"):
        put_text(elements, LOSSY_IMAGE_COMPRESSION, "01")


def _decompress(elements: DataSet, syntax: str, folder: str, max_bytes: int) -> bool:
    """Tell whether the Pixel Data of the elements themselves had lost something."""
    for element in list(elements.values()):
        for item in element.items or ():
            _decompress(item, syntax, folder, max_bytes)
    pixel_data = elements.get(PIXEL_DATA)
    if pixel_data is None or pixel_data.fragments is None:
        return False
    image = described(elements, one_bit=syntax in JPEG_2000)
    if image.form.frame_bytes * image.frames > max_bytes:
        raise TooLarge("decoded Pixel Data")
    return _decode_into(elements, pixel_data.fragments, syntax, image, folder)


def _decode_into(
    elements: DataSet, fragments: list[memoryview], syntax: str, image: ImagePixel, folder: str
) -> bool:
    streams = _streams(fragments, syntax, image, elements)
    whole_cells = syntax == RLE or embeds_overlay(elements)
    photometric, bits_stored, is_lossy = "", image.form.bits_stored, False
    with tempfile.TemporaryFile(dir=folder) as native:
        packed = unused_bits.Packed() if image.one_bit else None
        for frame in _frames(streams, syntax, image, whole_cells=whole_cells):
            cells = _native(frame.cells, image.form)
            native.write(cells.data if packed is None else packed.add(cells))
            photometric = frame.photometric
            bits_stored = max(bits_stored, frame.bits_stored)
            is_lossy |= frame.is_lossy
        if packed is not None:
            native.write(packed.rest())
        native.write(b"\0" * (native.tell() % 2))
        native.flush()
        value = mapped(native)
    vr = b"OB" if image.form.bits_allocated <= 8 else b"OW"
    elements[PIXEL_DATA] = Element(tag=PIXEL_DATA, vr=vr, value=value)
    _describe(elements, image.form, photometric)
    _describe_bits(elements, image, bits_stored)
    return is_lossy


def _streams(
    fragments: list[memoryview], syntax: str, image: ImagePixel, elements: DataSet
) -> list[encapsulation.Fragments]:
    """Give each frame's fragments; more or less than Number of Frames are refused."""
    if not fragments:
        raise PixelsUndecodable("no fragments")
    offsets = encapsulation.basic_offsets(fragments[0])
    table = elements.get(EXTENDED_OFFSETS[0])
    if not offsets and table is not None:
        offsets = encapsulation.extended_offsets(table.value)
    return encapsulation.by_frame(fragments[1:], offsets, image.frames, syntax)


def _frames(
    streams: Sequence[encapsulation.Fragments], syntax: str, image: ImagePixel, *, whole_cells: bool
) -> Iterator[_Decoded]:
    """Yield the frames and what they became."""
    form = image.form
    for stream, samples, photometric in decoders.decoded(streams, syntax, image):
        cells, bits_stored = samples, form.bits_stored
        if not whole_cells:
            cells, bits_stored = _fitted(stream, syntax, samples, form)
        yield _Decoded(
            cells=cells,
            photometric=photometric,
            bits_stored=bits_stored,
            is_lossy=syntax in LOSSY and codestream.is_lossy(stream, syntax),
        )


def _fitted(stream: bytes, syntax: str, samples: Any, form: Form) -> tuple[Any, int]:
    """Give cells, and the Bits Stored that hold them."""
    precision = codestream.precision(stream, syntax)
    if syntax not in LOSSY:
        return unused_bits.lossless(samples, precision, form)
    signed = codestream.is_signed(stream, syntax)
    return unused_bits.lossy(samples, precision, form, signed_stream=signed)


def _native(frame: Any, form: Form) -> Any:
    """Lay a frame out in cells of Bits Allocated, color by pixel."""
    cell = np.dtype(f"<{frame.dtype.kind}{form.bits_allocated // 8}")
    if frame.shape != form.shape or frame.dtype.itemsize > cell.itemsize:
        raise PixelsUndecodable("a frame differs from Rows, Columns or Bits Allocated")
    return np.ascontiguousarray(frame, dtype=cell)


def _describe_bits(elements: DataSet, image: ImagePixel, bits_stored: int) -> None:
    """Let Bits Stored hold what a lossy codec made, that readers of native Pixel Data cut nothing off."""
    if bits_stored > image.form.bits_stored and image.high_bit == image.form.bits_stored - 1:
        put(elements, BITS_STORED, b"US", bits_stored.to_bytes(2, "little"))
        put(elements, HIGH_BIT, b"US", (bits_stored - 1).to_bytes(2, "little"))


def _describe(elements: DataSet, form: Form, photometric: str) -> None:
    """Make the Image Pixel module say what the decoded bytes are."""
    for tag in EXTENDED_OFFSETS:  # PS3.3 C.7.6.3: only for encapsulated Pixel Data
        elements.pop(tag, None)
    if photometric in ("YBR_RCT", "YBR_ICT"):
        raise PixelsUndecodable("colour transform of JPEG 2000 not undone")
    if photometric in ("YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"):
        # The decoder has already repeated the subsampled chrominance.
        photometric = "YBR_FULL"
    if photometric != text(elements, PHOTOMETRIC_INTERPRETATION):
        put_text(elements, PHOTOMETRIC_INTERPRETATION, photometric)
    if form.samples > 1:
        put(elements, PLANAR_CONFIGURATION, b"US", b"\0\0")
