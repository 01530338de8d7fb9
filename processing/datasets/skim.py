"""Reads the top of a Data Set fast: which elements there are, where its pixels lie, and nothing else.

Owns the common case only: Explicit VR Little Endian, tags in order, native Pixel
Data. Whatever is odd gives ``None``, and ``elements.Reader``, which is strict and
follows everything, decides what it is. Sequences are walked as it walks them, so that
nothing malformed gets through. PS3.5 Sections 7.1 and 7.5.
"""

import struct
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from processing.datasets.elements import (
    EXPLICIT_LITTLE,
    PIXEL_DATA,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    DataSet,
    DataSetMalformed,
    Element,
    Reader,
)

_Kept = DataElement | RawDataElement

_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<I")
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_DELIMITER_BYTES = 8
_CHARACTER_SET = 0x0008_0005
_IMAGE_PIXEL = range(0x0028_0000, 0x0028_0200)
_LEFT_OUT = (0x7FE0, 0xFFFC)
"""Groups of pixels and of what fills a file up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skimmed:
    """The head as pydicom keeps it, values raw until looked at; and the span of native Pixel Data."""

    head: Dataset
    described: DataSet
    """What says how the pixels lie."""
    pixels: tuple[int, int] | None
    """First byte and length, within the Data Set."""


@dataclass(frozen=True, slots=True)
class _Span:
    tag: int
    vr: bytes
    start: int
    length: int
    stop: int


def skimmed(buffer: memoryview) -> Skimmed | None:
    """Read a Data Set in Explicit VR Little Endian; ``None`` where there is anything odd."""
    try:
        spans = list(_spans(buffer))
    except (_Odd, struct.error, DataSetMalformed):
        return None
    raw: dict[BaseTag, _Kept] = {}
    described: DataSet = {}
    pixels = None
    for one in spans:
        if one.tag >> 16 in _LEFT_OUT:
            pixels = (one.start, one.length) if one.tag == PIXEL_DATA else pixels
        elif one.tag & 0xFFFF:
            tag = BaseTag(one.tag)
            raw[tag] = _raw(tag, one, buffer)
            if one.tag in _IMAGE_PIXEL:
                value = buffer[one.start : one.start + one.length]
                described[one.tag] = Element(tag=one.tag, vr=one.vr, value=value)
    try:
        head = _head(raw)
    except ValueError:  # pydicom's, for character sets with a NUL in their names
        return None
    return Skimmed(head=head, described=described, pixels=pixels)


class _Odd(Exception):
    """Not the common case."""


def _spans(buffer: memoryview) -> Iterable[_Span]:
    at, end, before = 0, len(buffer), 0
    while at < end:
        group, number, vr, length = _SHORT.unpack_from(buffer, at)
        tag, start = group << 16 | number, at + 8
        if tag <= before:
            raise _Odd
        if vr not in SHORT_VRS:
            if vr not in _LONG_VRS:
                raise _Odd
            (length,) = _LONG.unpack_from(buffer, start)
            start += 4
        if vr == b"SQ":
            length, at = _walked(buffer, start, length)
        else:
            at = start + length  # an undefined length is beyond every end
        if at > end:
            raise _Odd
        before = tag
        yield _Span(tag, vr, start, length, at)


def _walked(buffer: memoryview, start: int, length: int) -> tuple[int, int]:
    """Give the length of a sequence's items, and where it ends. Raises ``DataSetMalformed``."""
    if length != UNDEFINED_LENGTH:
        if length:
            Reader(buffer[start : start + length], _none).read_items(EXPLICIT_LITTLE, length)
        return length, start + length
    walked = Reader(buffer[start:], _none).read_items(EXPLICIT_LITTLE, None)
    return walked - _DELIMITER_BYTES, start + walked


def _none(*_: object) -> bool:
    """Where VRs are explicit nobody has to ask which elements are sequences."""
    return False


def _raw(tag: BaseTag, one: _Span, buffer: memoryview) -> RawDataElement:
    vr = one.vr.decode("ascii")
    value = bytes(buffer[one.start : one.start + one.length])
    held: Any = value or empty_value_for_VR(vr, raw=True)
    return RawDataElement(tag, vr, one.length, held, 0, False, True)


def _head(raw: dict[BaseTag, _Kept]) -> Dataset:
    head = Dataset(raw)
    said = raw.get(BaseTag(_CHARACTER_SET))
    value = said.value if said is not None and isinstance(said.value, bytes) else b""
    head.set_original_encoding(False, True, _characters(value))
    return head


@lru_cache(maxsize=16)
def _characters(value: bytes) -> str | MutableSequence[str]:
    """Give the encodings of a Specific Character Set, as pydicom finds them."""
    if not value:
        return default_encoding
    element = _SHORT.pack(_CHARACTER_SET >> 16, _CHARACTER_SET & 0xFFFF, b"CS", len(value)) + value
    read: Dataset = read_dataset(BytesIO(element), is_implicit_VR=False, is_little_endian=True)
    found: str | MutableSequence[str] = read.original_character_set
    return found
