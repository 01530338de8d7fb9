"""Tells whether two Data Sets hold the same elements and pixels.

Owns what counts as the same: byte-equal values in little endian under equal
tags. Ignored are group lengths, Data Set Trailing Padding, offset tables and
the encoding itself. A difference in spelling, even of padding, is a
difference: it refuses to guess. PS3.5 Sections 7.2, 7.3, 8.2 and A.4.
"""

from itertools import chain

import numpy as np

from processing.datasets.elements import PIXEL_DATA, DataSet, Element
from processing.datasets.value_representations import (
    is_signed,
    number,
    resolved_vr,
    swapped,
)

_TRAILING_PADDING = 0xFFFC_FFFC
_SAMPLES_PER_PIXEL = 0x0028_0002
_PLANAR_CONFIGURATION = 0x0028_0006
_ROWS = 0x0028_0010
_COLUMNS = 0x0028_0011
_BITS_ALLOCATED = 0x0028_0100


def equal(left: DataSet, right: DataSet, *, signed: tuple[bool, bool] = (False, False)) -> bool:
    """Compare two Data Sets; ``signed`` are the Pixel Representations of what holds them."""
    if _tags(left) != _tags(right):
        return False
    signs = (is_signed(left, inherited=signed[0]), is_signed(right, inherited=signed[1]))
    return all(_equal_elements(tag, left, right, signs) for tag in _tags(left))


def color_by_pixel(elements: DataSet) -> None:
    """Reorder native Pixel Data of Planar Configuration 1 to 0, so that both compare.

    Source: PS3.3 Section C.7.6.3.1.3.
    """
    pixel_data = elements.get(PIXEL_DATA)
    if number(elements, _PLANAR_CONFIGURATION) != 1 or pixel_data is None:
        return
    samples, bits = number(elements, _SAMPLES_PER_PIXEL), number(elements, _BITS_ALLOCATED)
    plane = (number(elements, _ROWS) or 0) * (number(elements, _COLUMNS) or 0)
    if samples != 3 or bits not in (8, 16) or not plane:
        return
    value = _little(pixel_data, resolved_vr(pixel_data, elements, signed=False), elements)
    cells = len(value) // (bits // 8)
    used = cells - cells % (plane * samples)
    planes = np.frombuffer(value, dtype=f"<u{bits // 8}", count=used)
    ordered = planes.reshape(-1, samples, plane).transpose(0, 2, 1).tobytes()
    rest = bytes(value[len(ordered) :])
    elements[PIXEL_DATA] = Element(
        tag=PIXEL_DATA, vr=pixel_data.vr, value=memoryview(ordered + rest)
    )
    elements[_PLANAR_CONFIGURATION] = Element(
        tag=_PLANAR_CONFIGURATION, vr=b"US", value=memoryview(b"\0\0")
    )


def _tags(elements: DataSet) -> list[int]:
    return sorted(tag for tag in elements if tag & 0xFFFF and tag != _TRAILING_PADDING)


def _equal_elements(tag: int, left: DataSet, right: DataSet, signed: tuple[bool, bool]) -> bool:
    one, other = left[tag], right[tag]
    if one.items is not None and other.items is not None:
        return len(one.items) == len(other.items) and all(
            equal(first, second, signed=signed)
            for first, second in zip(one.items, other.items, strict=True)
        )
    if one.fragments is not None and other.fragments is not None:
        return one.fragments[1:] == other.fragments[1:]
    if not _plain(one) or not _plain(other):
        return False
    vrs = (
        resolved_vr(one, left, signed=signed[0]),
        resolved_vr(other, right, signed=signed[1]),
    )
    if _contradict(one, other):
        return False
    return _little(one, vrs[0], left) == _little(other, vrs[1], right)


def _plain(element: Element) -> bool:
    return element.items is None and element.fragments is None


def _contradict(one: Element, other: Element) -> bool:
    """Two VRs that both sources state; OB and OW are two names for the same pixels."""
    stated = {one.vr, other.vr} - {None, b"UN"}
    return len(stated) > 1 and stated != {b"OB", b"OW"}


def _little(element: Element, vr: bytes, owner: DataSet) -> memoryview | bytes:
    if not element.big_endian:
        return element.value
    return b"".join(chain(swapped(element, vr, owner)))
