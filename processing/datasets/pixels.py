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
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from processing.codecs import codestream
from processing.codecs.frame import Form, numbers
from processing.codecs.registry import READERS
from processing.datasets.elements import PIXEL_DATA, DataSet, Element
from processing.datasets.image_pixel import (
    EXTENDED_OFFSETS,
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
from processing.datasets.syntaxes import COMPRESSED, JPEG_LOSSLESS, JPEG_LOSSY, RLE


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
    image = described(elements)
    if image.form.frame_bytes * image.frames > max_bytes:
        raise TooLarge("decoded Pixel Data")
    _decode_into(elements, pixel_data.fragments, syntax, image, folder)


def _decode_into(
    elements: DataSet, fragments: list[memoryview], syntax: str, image: ImagePixel, folder: str
) -> None:
    photometric = ""
    with tempfile.TemporaryFile(dir=folder) as native:
        for frame, found in _frames(fragments, syntax, image, elements):
            if syntax != RLE and not embeds_overlay(elements):
                _require_bits_stored(frame, image.form)
            native.write(_native(frame, image.form).data)
            photometric = found
        if native.tell() != image.form.frame_bytes * image.frames:
            raise PixelsUndecodable("number of frames differs from Number of Frames")
        native.write(b"\0" * (native.tell() % 2))
        native.flush()
        value = mapped(native)
    vr = b"OB" if image.form.bits_allocated <= 8 else b"OW"
    elements[PIXEL_DATA] = Element(tag=PIXEL_DATA, vr=vr, value=value)
    _describe(elements, image.form, photometric)


def _frames(
    fragments: list[memoryview], syntax: str, image: ImagePixel, elements: DataSet
) -> Iterator[tuple[Any, str]]:
    """Yield the frames and the Photometric Interpretation of what they became."""
    encapsulated = _encapsulated(fragments)
    offsets = _extended_offsets(elements)
    streams = generate_frames(encapsulated, number_of_frames=image.frames, extended_offsets=offsets)
    whole_cells = syntax == RLE or embeds_overlay(elements)
    if syntax in READERS:
        yield from _read(streams, syntax, image.form, whole_cells=whole_cells)
        return
    for stream in streams:
        codestream.require_size(stream, syntax, image.form)
    options = _options(image) | ({} if offsets is None else {"extended_offsets": offsets})
    # RLE keeps all bits as they were, and an overlay may lie in those above Bits Stored.
    options["correct_unused_bits"] = not whole_cells
    for frame, properties in get_decoder(syntax).iter_array(encapsulated, raw=True, **options):
        found = _agreed(str(properties["photometric_interpretation"]), image.form)
        if found.startswith("YBR") and syntax in JPEG_LOSSY:
            yield convert_color_space(frame, "YBR_FULL", "RGB"), "RGB"
        else:
            yield frame, found


def _read(
    streams: Iterator[bytes], syntax: str, form: Form, *, whole_cells: bool
) -> Iterator[tuple[Any, str]]:
    for stream in streams:
        codestream.require_size(stream, syntax, form)
        named = form.samples > 1 and syntax in JPEG_LOSSLESS
        found = _agreed(codestream.jpeg_colors(stream) if named else "", form)
        cells = READERS[syntax](stream, form)
        frame = cells if whole_cells else numbers(cells, form)
        if frame is None:
            raise PixelsUndecodable("codestream holds values beyond Bits Stored")
        yield frame, "RGB" if found == "RGB" else form.photometric


def _agreed(found: str, form: Form) -> str:
    if found.startswith("YBR") and not form.photometric.startswith("YBR"):
        # The codestream says YBR, the Data Set RGB, and toolkits trust either.
        raise PixelsUndecodable("codestream contradicts Photometric Interpretation")
    return found


def _extended_offsets(elements: DataSet) -> tuple[bytes, bytes] | None:
    first, second = (elements.get(tag) for tag in EXTENDED_OFFSETS)
    return None if first is None or second is None else (bytes(first.value), bytes(second.value))


def _options(image: ImagePixel) -> dict[str, Any]:
    """Say what a decoder of pydicom's has to know, in its words."""
    form = image.form
    return {
        "rows": form.rows,
        "columns": form.columns,
        "samples_per_pixel": form.samples,
        "bits_allocated": form.bits_allocated,
        "bits_stored": form.bits_stored,
        "pixel_representation": int(form.signed),
        "planar_configuration": int(image.by_plane),
        "photometric_interpretation": form.photometric,
        "number_of_frames": image.frames,
        "pixel_keyword": "PixelData",
    }


def _encapsulated(fragments: list[memoryview]) -> bytes:
    """Lay the fragments out in order again, as the decoders read them. PS3.5 A.4."""
    pieces: list[bytes | memoryview] = []
    for fragment in fragments:
        pieces += [b"\xfe\xff\x00\xe0", len(fragment).to_bytes(4, "little"), fragment]
    return b"".join(pieces)


def _require_bits_stored(frame: Any, form: Form) -> None:
    """Refuse values that readers of native Pixel Data would cut to Bits Stored."""
    bits = form.bits_stored
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if form.signed else (0, (1 << bits) - 1)
    if frame.size and not low <= int(frame.min()) <= int(frame.max()) <= high:
        raise PixelsUndecodable("codestream holds values beyond Bits Stored")


def _native(frame: Any, form: Form) -> Any:
    """Lay a frame out in cells of Bits Allocated, color by pixel."""
    cell = np.dtype(f"<{frame.dtype.kind}{form.bits_allocated // 8}")
    if frame.shape != form.shape or frame.dtype.itemsize > cell.itemsize:
        raise PixelsUndecodable("a frame differs from Rows, Columns or Bits Allocated")
    return np.ascontiguousarray(frame, dtype=cell)


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
