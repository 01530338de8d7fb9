"""Which VR an element has, and the size of the numbers in its value.

Owns the choice among the dictionary's ambiguous VRs (PS3.6 "US or SS" and its
kin, decided as PS3.3 C.7.6.3, C.11.1 and PS3.5 Annex A say) and the byte swap.
A private element whose creator is unknown is UN, PS3.5 Section 6.2.2.
"""

import struct
from array import array
from collections.abc import Iterator

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from processing.datasets.elements import PIXEL_DATA, DataSet, Element, is_private

_PIXEL_REPRESENTATION = 0x0028_0103
_BITS_ALLOCATED = 0x0028_0100
_LUT_DESCRIPTOR = 0x0028_3002
_LUT_DATA = 0x0028_3006

_UNIT_BYTES = {
    **dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"OL", b"OF"), 4),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8),
}
_ARRAY_CODES = {2: "H", 4: "I", 8: "Q"}
_CHUNK_BYTES = 1 << 20


class Undecidable(ValueError):
    """Two readings of a value are in use, and choosing wrongly would change it."""


def dictionary_vr(tag: int, siblings: DataSet) -> str:
    """Look a tag up; private ones under their creator, which stands among ``siblings``."""
    try:
        if not is_private(tag):
            return "UL" if tag & 0xFFFF == 0 else dictionary_VR(tag)
        return _private_vr(tag, siblings)
    except KeyError:
        return "UN"


def _private_vr(tag: int, siblings: DataSet) -> str:
    element_number = tag & 0xFFFF
    if element_number == 0:
        return "UL"
    if 0x10 <= element_number <= 0xFF:  # PS3.5 Section 7.8.1: Private Creator
        return "LO"
    creator = siblings.get(tag & 0xFFFF_0000 | element_number >> 8)
    if creator is None:
        return "UN"
    name = bytes(creator.value).decode("latin-1").rstrip(" \0")
    return private_dictionary_VR(tag, name)


def number(elements: DataSet, tag: int) -> int | None:
    """The first number of a US or SS element, ``None`` where there is none."""
    element = elements.get(tag)
    if element is None or len(element.value) < 2:
        return None
    order = ">" if element.big_endian else "<"
    (value,) = struct.unpack_from(order + "H", element.value)
    return int(value)


def resolved_vr(element: Element, owner: DataSet, *, signed: bool) -> bytes:
    """Give the VR of an element of ``owner``; ``signed`` is its Pixel Representation."""
    if element.vr is not None:
        return element.vr
    vr = dictionary_vr(element.tag, owner)
    vr = _unambiguous(vr, element.tag, owner, signed=signed)
    unit = _UNIT_BYTES.get(vr.encode(), 1)
    if vr == "SQ" or len(element.value) % unit:
        return b"UN"  # the dictionary and the value contradict each other
    return vr.encode()


def _unambiguous(vr: str, tag: int, owner: DataSet, *, signed: bool) -> str:
    if vr == "US or SS":
        return "SS" if signed else "US"
    if vr == "US or OW":
        # PS3.3 C.11.1.1: one entry is a number, a table is a stream of words.
        entries = number(owner, _LUT_DESCRIPTOR) if tag == _LUT_DATA else None
        return "US" if entries == 1 else "OW"
    if vr in ("OB or OW", "US or SS or OW"):
        return "OW"  # PS3.5 Section A.1: so it is in Implicit VR Little Endian
    return vr


def is_signed(elements: DataSet, *, inherited: bool) -> bool:
    """Pixel Representation of a Data Set, that of what holds it where it has none."""
    value = number(elements, _PIXEL_REPRESENTATION)
    return inherited if value is None else value == 1


def swapped(element: Element, vr: bytes, owner: DataSet) -> Iterator[bytes]:
    """Yield the value in the other byte order, in pieces.

    Raises ``Undecidable`` for OW Pixel Data with cells wider than a word:
    PS3.5 defines OW by its 16-bit words, and common toolkits swap whole cells.
    """
    if element.tag == PIXEL_DATA and vr == b"OW" and (number(owner, _BITS_ALLOCATED) or 0) > 16:
        raise Undecidable("byte order of pixel cells wider than 16 bits")
    unit = _UNIT_BYTES.get(vr, 1)
    for start in range(0, len(element.value), _CHUNK_BYTES):
        piece = element.value[start : start + _CHUNK_BYTES]
        yield bytes(piece) if unit == 1 else _swap(piece, unit)


def _swap(piece: memoryview, unit: int) -> bytes:
    whole = len(piece) - len(piece) % unit
    numbers = array(_ARRAY_CODES[unit], bytes(piece[:whole]))
    numbers.byteswap()
    return numbers.tobytes() + bytes(piece[whole:])
