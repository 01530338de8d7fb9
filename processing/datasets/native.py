"""Reads native Pixel Data as frames of samples, for those who encode them.

Owns byte order, Planar Configuration and the question whether the bits above
Bits Stored hold anything. Refuses Pixel Data whose length is not that of its
frames, so that no byte is left behind. PS3.5 Section 8.1.1, PS3.3 C.7.6.3.1.3.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np

from processing.codecs.frame import ImageMissing, Samples, SizeNotCarried, UnusedBitsInUse, numbers
from processing.datasets.elements import PIXEL_DATA, DataSet
from processing.datasets.image_pixel import ImagePixel
from processing.datasets.value_representations import is_signed, resolved_vr, swapped


def value_of(elements: DataSet, image: ImagePixel) -> memoryview:
    """Give the bytes of all frames in little endian, without padding. Raises ``NotEncodable``."""
    element = elements.get(PIXEL_DATA)
    if element is None or element.items is not None or element.fragments is not None:
        raise ImageMissing("no native Pixel Data in the Data Set itself")
    wanted = image.form.frame_bytes * image.frames
    if len(element.value) != wanted + wanted % 2 and len(element.value) != wanted:
        raise SizeNotCarried("length of Pixel Data")
    value = element.value
    if element.big_endian:
        vr = resolved_vr(element, elements, signed=is_signed(elements, inherited=False))
        value = memoryview(b"".join(chain(swapped(element, vr, elements))))
    return value[:wanted]


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
