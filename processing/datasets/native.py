"""Reads native Pixel Data as frames of samples, for those who encode or process them.

Owns byte order, Planar Configuration, chrominance that pixels share, and the question whether
the bits above Bits Stored hold anything. Refuses Pixel Data whose length is not that of its
frames, so that no byte is left behind. PS3.5 Section 8.1.1, PS3.3 C.7.6.3.1.2 and C.7.6.3.1.3.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np

from processing.codecs.frame import ImageMissing, Samples, SizeNotCarried, UnusedBitsInUse, numbers
from processing.datasets.elements import PIXEL_DATA, DataSet
from processing.datasets.image_pixel import ImagePixel
from processing.datasets.value_representations import is_signed, resolved_vr, swapped

SHARED_CHROMINANCE = "YBR_FULL_422"


def stored_bytes(image: ImagePixel) -> int:
    """Tell how many bytes a native frame has: of YBR_FULL_422, two pixels have four samples."""
    whole = image.form.frame_bytes
    return whole * 2 // 3 if _is_shared(image) else whole


def _is_shared(image: ImagePixel) -> bool:
    form = image.form
    pairs = form.samples == 3 and not image.by_plane and form.columns % 2 == 0
    return pairs and form.photometric == SHARED_CHROMINANCE


def value_of(elements: DataSet, image: ImagePixel) -> memoryview:
    """Give the bytes of all frames in little endian, without padding. Raises ``NotEncodable``."""
    element = elements.get(PIXEL_DATA)
    if element is None or element.items is not None or element.fragments is not None:
        raise ImageMissing("no native Pixel Data in the Data Set itself")
    wanted = stored_bytes(image) * image.frames
    if len(element.value) != wanted + wanted % 2 and len(element.value) != wanted:
        raise SizeNotCarried("length of Pixel Data")
    value = element.value
    if element.big_endian:
        vr = resolved_vr(element, elements, signed=is_signed(elements, inherited=False))
        value = memoryview(b"".join(chain(swapped(element, vr, elements))))
    return value[:wanted]


def frame_of(value: memoryview, image: ImagePixel, frame: int) -> Samples:
    """Give one frame as it lies, color by pixel; the chrominance that two pixels share is given to both.

    PS3.3 Section C.7.6.3.1.2: Y1 Y2 CB CR for the pixels 1 and 2 of a row, and so on.
    """
    length = stored_bytes(image)
    piece = value[frame * length : (frame + 1) * length]
    if not _is_shared(image):
        (cells,) = frames(piece, image, whole_cells=True)
        return cells
    form = image.form
    pairs = np.frombuffer(piece, dtype=form.cell).reshape(form.rows, form.columns // 2, 4)
    whole = np.empty((form.rows, form.columns // 2, 2, 3), dtype=form.cell)
    whole[..., 0] = pairs[..., :2]
    whole[..., 1:] = pairs[..., None, 2:]
    return whole.reshape(form.shape)


def frames(value: memoryview, image: ImagePixel, *, whole_cells: bool) -> Iterator[Samples]:
    """Yield each frame, color by pixel, its samples as numbers, or as they lie if ``whole_cells``.

    Raises ``NotEncodable`` where bits above Bits Stored hold something else than the sign.
    """
    form = image.form
    for start in range(0, len(value), form.frame_bytes):
        cells = np.frombuffer(value[start : start + form.frame_bytes], dtype=form.cell)
        if image.by_plane and form.samples > 1:
            planes = cells.reshape(form.samples, form.rows, form.columns)
            cells = np.ascontiguousarray(np.moveaxis(planes, 0, -1))
        cells = cells.reshape(form.shape)
        samples = cells if whole_cells else numbers(cells, form)
        if samples is None:
            raise UnusedBitsInUse("bits above Bits Stored are in use")
        yield samples
