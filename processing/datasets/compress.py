"""Turns native Pixel Data into encapsulated Pixel Data, without loss, and proves it.

Owns what of a Data Set changes with it: Pixel Data, its offset tables and
Planar Configuration; all else stays. Refuses what the syntax cannot carry, and
what does not come back sample by sample. Icons and other Pixel Data in items
stay native: their length is defined, and so readers tell. PS3.5 Sections 8.2
and A.4, PS3.3 Section C.7.6.3.1.8.
"""

import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pacs.core.errors import EncodingUnproved
from processing.codecs.frame import (
    Codec,
    DepthNotCarried,
    ImageMissing,
    SizeNotCarried,
    UnusedBitsInUse,
)
from processing.codecs.registry import CODECS
from processing.datasets import compare, native
from processing.datasets.elements import PIXEL_DATA, DataSet, Element
from processing.datasets.image_pixel import (
    EXTENDED_OFFSETS,
    PLANAR_CONFIGURATION,
    ImagePixel,
    PixelsUndecodable,
    described,
    embeds_overlay,
    put,
)
from processing.datasets.source import mapped

_OTHER_PIXELS = (0x7FE0_0008, 0x7FE0_0009)
"""Float and Double Float Pixel Data, which no encapsulated syntax may hold. PS3.5 Section A.4."""

ITEM_HEADER_BYTES = 8
MAX_BASIC_OFFSET = 0xFFFF_FFFF
_MAX_FRAGMENT_BYTES = 0xFFFF_FFFE


def compressed(elements: DataSet, target: str, *, folder: str) -> DataSet:
    """Give a Data Set whose Pixel Data are encapsulated; ``elements`` stay as they are.

    Codestreams lie in an unnamed file in ``folder``. Raises ``NotEncodable``
    and whatever an encoder raises.
    """
    codec = CODECS[target]
    image = _encodable(elements, codec)
    value = native.value_of(elements, image)
    with tempfile.TemporaryFile(dir=folder) as file:
        lengths = []
        for samples in native.frames(value, image, whole_cells=codec.whole_cells):
            stream = codec.encode(samples, image.form)
            file.write(stream + b"\0" * (len(stream) % 2))
            lengths.append(len(stream) + len(stream) % 2)
        file.flush()
        streams = mapped(file)
    return _encapsulated(elements, streams, lengths, image, codec)


def prove(written: DataSet, elements: DataSet, target: str) -> None:
    """Compare what was written, read back, with what went in. Raises ``EncodingUnproved``."""
    codec = CODECS[target]
    image = _encodable(elements, codec)
    if not compare.equal(_without_pixels(written), _without_pixels(elements)):
        raise EncodingUnproved("elements differ")
    fragments = written[PIXEL_DATA].fragments or []
    value = native.value_of(elements, image)
    if len(fragments) != 1 + image.frames:
        raise EncodingUnproved("frames are missing")
    before = native.frames(value, image, whole_cells=codec.whole_cells)
    for samples, fragment in zip(before, fragments[1:], strict=True):
        if not np.array_equal(codec.decode(bytes(fragment), image.form), samples):
            raise EncodingUnproved("samples differ")


def _encodable(elements: DataSet, codec: Codec) -> ImagePixel:
    """Read the Image Pixel module as the codec is to see it. Raises ``NotEncodable``."""
    if PIXEL_DATA not in elements or any(tag in elements for tag in _OTHER_PIXELS):
        raise ImageMissing("no Pixel Data, or floating point ones")
    try:
        image = described(elements)
    except PixelsUndecodable as error:
        raise DepthNotCarried("no form that a codec takes") from error
    if codec.whole_cells:
        whole = replace(image.form, bits_stored=image.form.bits_allocated, signed=False)
        image = replace(image, form=whole)
    elif image.high_bit != image.form.bits_stored - 1 or embeds_overlay(elements):
        raise UnusedBitsInUse("Pixel Data hold more than samples")
    codec.check(image.form)
    return image


def _encapsulated(
    elements: DataSet,
    streams: memoryview,
    lengths: Sequence[int],
    image: ImagePixel,
    codec: Codec,
) -> DataSet:
    result = {tag: one for tag, one in elements.items() if tag not in EXTENDED_OFFSETS}
    offsets = list(_offsets(lengths))
    basic = b""
    if offsets[-1] <= MAX_BASIC_OFFSET:
        basic = struct.pack(f"<{len(offsets)}I", *offsets)
    else:
        for tag, numbers in zip(EXTENDED_OFFSETS, (offsets, lengths), strict=True):
            put(result, tag, b"OV", struct.pack(f"<{len(numbers)}Q", *numbers))
    result[PIXEL_DATA] = Element(
        tag=PIXEL_DATA, vr=b"OB", fragments=[memoryview(basic), *_cut(streams, lengths)]
    )
    if image.by_plane and not codec.whole_cells:
        put(result, PLANAR_CONFIGURATION, b"US", b"\0\0")
    return result


def _offsets(lengths: Sequence[int]) -> Iterator[int]:
    """Yield where each frame's item begins, counted from the first one's. PS3.5 Section A.4."""
    at = 0
    for length in lengths:
        if length > _MAX_FRAGMENT_BYTES:
            raise SizeNotCarried("a frame longer than a fragment may be")
        yield at
        at += ITEM_HEADER_BYTES + length


def _cut(streams: memoryview, lengths: Sequence[int]) -> Iterator[memoryview]:
    at = 0
    for length in lengths:
        yield streams[at : at + length]
        at += length


def _without_pixels(elements: DataSet) -> DataSet:
    changed = (PIXEL_DATA, PLANAR_CONFIGURATION, *EXTENDED_OFFSETS)
    return {tag: one for tag, one in elements.items() if tag not in changed}
