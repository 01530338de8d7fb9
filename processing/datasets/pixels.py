"""Turns encapsulated Pixel Data into native Pixel Data, frame by frame.

Owns the call of the decoders and the Image Pixel attributes that must change
with it: Planar Configuration and Photometric Interpretation say what the
decoded bytes are. The samples are the codec's own, without arithmetic, with
two exceptions: JPEG's lossy processes in YBR come out as RGB, as receivers of
native Pixel Data expect (PS3.3 C.7.6.3.1.2), and bits above Bits Stored, which
codecs leave open (PS3.5 Section 8.1.1), repeat the sign or are zero.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from processing.datasets.elements import PIXEL_DATA, DataSet, Element
from processing.datasets.source import TooLarge, mapped
from processing.datasets.syntaxes import COMPRESSED, JPEG_LOSSY, RLE
from processing.datasets.value_representations import number

_SAMPLES_PER_PIXEL = 0x0028_0002
_PHOTOMETRIC_INTERPRETATION = 0x0028_0004
_PLANAR_CONFIGURATION = 0x0028_0006
_NUMBER_OF_FRAMES = 0x0028_0008
_ROWS = 0x0028_0010
_COLUMNS = 0x0028_0011
_BITS_ALLOCATED = 0x0028_0100
_BITS_STORED = 0x0028_0101
_PIXEL_REPRESENTATION = 0x0028_0103
_OVERLAY_BIT_POSITION = 0x6000_0102
_EXTENDED_OFFSETS = (0x7FE0_0001, 0x7FE0_0002)


class PixelsUndecodable(ValueError):
    """The Pixel Data do not become what the Image Pixel module says they are."""


def available() -> list[str]:
    """List the compressed syntaxes for which a decoder is installed."""
    return sorted(uid for uid in COMPRESSED if get_decoder(uid).is_available)


def decompress(elements: DataSet, syntax: str, *, folder: str, max_bytes: int) -> None:
    """Replace encapsulated Pixel Data by native, in items such as icons as well.

    Decoded frames lie in unnamed files in ``folder``. Raises ``TooLarge`` or
    ``PixelsUndecodable``, and whatever a decoder raises.
    """
    for element in list(elements.values()):
        for item in element.items or ():
            decompress(item, syntax, folder=folder, max_bytes=max_bytes)
    pixel_data = elements.get(PIXEL_DATA)
    if pixel_data is None or pixel_data.fragments is None:
        return
    options = _image_pixel(elements)
    if _frame_bytes(options) * options["number_of_frames"] > max_bytes:
        raise TooLarge("decoded Pixel Data")
    _decode_into(elements, pixel_data.fragments, syntax, options, folder)


def _decode_into(
    elements: DataSet,
    fragments: list[memoryview],
    syntax: str,
    options: dict[str, Any],
    folder: str,
) -> None:
    properties: dict[str, Any] = {}
    with tempfile.TemporaryFile(dir=folder) as native:
        for frame, described in _frames(fragments, syntax, options, elements):
            if syntax != RLE and not _embeds_overlay(elements):
                _require_bits_stored(frame, options)
            native.write(_native(frame, options).data)
            properties = described
        if native.tell() != _frame_bytes(options) * options["number_of_frames"]:
            raise PixelsUndecodable("number of frames differs from Number of Frames")
        native.write(b"\0" * (native.tell() % 2))
        native.flush()
        value = mapped(native)
    vr = b"OB" if options["bits_allocated"] <= 8 else b"OW"
    elements[PIXEL_DATA] = Element(tag=PIXEL_DATA, vr=vr, value=value)
    _describe(elements, properties)


def _frames(
    fragments: list[memoryview], syntax: str, options: dict[str, Any], elements: DataSet
) -> Iterator[tuple[Any, dict[str, Any]]]:
    offsets = [elements[tag] for tag in _EXTENDED_OFFSETS if tag in elements]
    if len(offsets) == 2:
        options = options | {"extended_offsets": tuple(bytes(e.value) for e in offsets)}
    stated = str(options["photometric_interpretation"])
    for frame, properties in get_decoder(syntax).iter_array(
        _encapsulated(fragments),
        raw=True,
        # RLE keeps all bits as they were, and an overlay may lie in those above Bits Stored.
        correct_unused_bits=syntax != RLE and not _embeds_overlay(elements),
        **options,
    ):
        found = str(properties["photometric_interpretation"])
        if found.startswith("YBR") and not stated.startswith("YBR"):
            # The codestream says YBR, the Data Set RGB, and toolkits trust either.
            raise PixelsUndecodable("codestream contradicts Photometric Interpretation")
        if found.startswith("YBR") and syntax in JPEG_LOSSY:
            rgb = convert_color_space(frame, "YBR_FULL", "RGB")
            yield rgb, properties | {"photometric_interpretation": "RGB"}
        else:
            yield frame, properties


def _embeds_overlay(elements: DataSet) -> bool:
    """Tell whether Overlay Bit Position points into the pixels. PS3.3 C.9.2, retired use."""
    positions = [tag for tag in elements if tag & 0xFF00_FFFF == _OVERLAY_BIT_POSITION]
    return any(tag & 0xFFFF_0000 | 0x3000 not in elements for tag in positions)


def _encapsulated(fragments: list[memoryview]) -> bytes:
    """Lay the fragments out in order again, as the decoders read them. PS3.5 A.4."""
    pieces: list[bytes | memoryview] = []
    for fragment in fragments:
        pieces += [b"\xfe\xff\x00\xe0", len(fragment).to_bytes(4, "little"), fragment]
    return b"".join(pieces)


def _require_bits_stored(frame: Any, options: dict[str, Any]) -> None:
    """Refuse values that readers of native Pixel Data would cut to Bits Stored."""
    bits, signed = options["bits_stored"], options["pixel_representation"] == 1
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if frame.size and not low <= int(frame.min()) <= int(frame.max()) <= high:
        raise PixelsUndecodable("codestream holds values beyond Bits Stored")


def _native(frame: Any, options: dict[str, Any]) -> Any:
    """Lay a frame out in cells of Bits Allocated, color by pixel."""
    shape: tuple[int, ...] = (options["rows"], options["columns"])
    if options["samples_per_pixel"] > 1:
        shape += (options["samples_per_pixel"],)
    cell = np.dtype(f"<{frame.dtype.kind}{options['bits_allocated'] // 8}")
    if frame.shape != shape or frame.dtype.itemsize > cell.itemsize:
        raise PixelsUndecodable("a frame differs from Rows, Columns or Bits Allocated")
    return np.ascontiguousarray(frame, dtype=cell)


def _describe(elements: DataSet, properties: dict[str, Any]) -> None:
    """Make the Image Pixel module say what the decoded bytes are."""
    for tag in _EXTENDED_OFFSETS:  # PS3.3 C.7.6.3: only for encapsulated Pixel Data
        elements.pop(tag, None)
    photometric = str(properties["photometric_interpretation"])
    if photometric in ("YBR_RCT", "YBR_ICT"):
        raise PixelsUndecodable("colour transform of JPEG 2000 not undone")
    if photometric in ("YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422"):
        # The decoder has already repeated the subsampled chrominance.
        photometric = "YBR_FULL"
    if photometric != text(elements, _PHOTOMETRIC_INTERPRETATION):
        _put_text(elements, _PHOTOMETRIC_INTERPRETATION, photometric)
    if (number(elements, _SAMPLES_PER_PIXEL) or 1) > 1:
        _put(elements, _PLANAR_CONFIGURATION, b"US", b"\0\0")


def _put_text(elements: DataSet, tag: int, value: str) -> None:
    _put(elements, tag, b"CS", (value + " " * (len(value) % 2)).encode())


def _put(elements: DataSet, tag: int, vr: bytes, value: bytes) -> None:
    elements[tag] = Element(tag=tag, vr=vr, value=memoryview(value))


def text(elements: DataSet, tag: int) -> str:
    """A CS or IS value without its padding, empty where there is none."""
    element = elements.get(tag)
    return "" if element is None else bytes(element.value).decode("ascii").strip(" \0")


def _image_pixel(elements: DataSet) -> dict[str, Any]:
    """Read what a decoder has to know. Raises ``PixelsUndecodable`` where it is missing."""
    numbers = {
        "rows": number(elements, _ROWS),
        "columns": number(elements, _COLUMNS),
        "samples_per_pixel": number(elements, _SAMPLES_PER_PIXEL) or 1,
        "bits_allocated": number(elements, _BITS_ALLOCATED),
        "bits_stored": number(elements, _BITS_STORED) or number(elements, _BITS_ALLOCATED),
    }
    if not all(numbers.values()) or numbers["bits_allocated"] not in (8, 16, 32):
        raise PixelsUndecodable("Image Pixel attributes are missing or of no native form")
    return {
        **numbers,
        "pixel_representation": number(elements, _PIXEL_REPRESENTATION) or 0,
        "planar_configuration": number(elements, _PLANAR_CONFIGURATION) or 0,
        "photometric_interpretation": text(elements, _PHOTOMETRIC_INTERPRETATION),
        "number_of_frames": max(1, int(text(elements, _NUMBER_OF_FRAMES) or 1)),
        "pixel_keyword": "PixelData",
    }


def _frame_bytes(options: dict[str, Any]) -> int:
    pixels = int(options["rows"]) * int(options["columns"]) * int(options["samples_per_pixel"])
    return pixels * int(options["bits_allocated"]) // 8
