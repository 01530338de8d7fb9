"""Writes trees of raw elements in a transfer syntax.

Owns headers, lengths and byte order. Refuses to change a value: what a short
length field cannot hold becomes UN (PS3.5 Section 6.2.2), sequences and items
are written with undefined length (PS3.5 Section 7.5), and only group lengths
(PS3.5 Section 7.2, retired), which would be false, are left out.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

from processing.datasets.elements import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    DataSet,
    DataSetMalformed,
    Element,
    Encoding,
)
from processing.datasets.value_representations import is_signed, resolved_vr, swapped

_CHUNK_BYTES = 1 << 20
_MAX_SHORT_BYTES = 0xFFFF
_MAX_LONG_BYTES = 0xFFFF_FFFE


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object:
        """Take all of ``data``."""
        ...


class Writer:
    """Encodes Data Sets into a sink."""

    def __init__(self, sink: Sink, encoding: Encoding, *, encapsulating: bool = False) -> None:
        self._sink = sink
        self._encoding = encoding
        self._encapsulating = encapsulating

    def write(self, elements: DataSet, *, signed: bool = False) -> None:
        """Write all elements in ascending order of their tags.

        ``signed`` is the Pixel Representation of what holds this Data Set.
        """
        signed = is_signed(elements, inherited=signed)
        for tag in sorted(elements):
            if tag & 0xFFFF:
                self._element(elements[tag], elements, signed=signed)

    def _element(self, element: Element, owner: DataSet, *, signed: bool) -> None:
        if element.items is not None:
            self._sequence(element.tag, element.items, signed=signed)
            return
        if element.fragments is not None:
            self._fragments(element.tag, element.fragments)
            return
        vr = resolved_vr(element, owner, signed=signed)
        self._header(element.tag, vr, len(element.value))
        for piece in self._pieces(element, vr, owner):
            self._sink.write(piece)

    def _pieces(self, element: Element, vr: bytes, owner: DataSet) -> Iterable[bytes]:
        if element.big_endian != self._encoding.big_endian:
            return swapped(element, vr, owner)
        return _chunks(element.value)

    def _header(self, tag: int, vr: bytes, length: int) -> None:
        if length > _MAX_LONG_BYTES and length != UNDEFINED_LENGTH:
            raise DataSetMalformed("a value is longer than its length field can say")
        self._pack("HH", tag >> 16, tag & 0xFFFF)
        if not self._encoding.explicit:
            self._pack("I", length)
            return
        if _is_short(vr) and length > _MAX_SHORT_BYTES:
            vr = b"UN"
        self._sink.write(vr)
        if _is_short(vr):
            self._pack("H", length)
        else:
            self._pack("HI", 0, length)

    def _sequence(self, tag: int, items: list[DataSet], *, signed: bool) -> None:
        self._header(tag, b"SQ", UNDEFINED_LENGTH)
        for item in items:
            self._delimiter(ITEM, UNDEFINED_LENGTH)
            self.write(item, signed=signed)
            self._delimiter(ITEM_END, 0)
        self._delimiter(SEQUENCE_END, 0)

    def _fragments(self, tag: int, fragments: list[memoryview]) -> None:
        if not self._encapsulating:
            raise DataSetMalformed("encapsulated Pixel Data in an uncompressed syntax")
        self._header(tag, b"OB", UNDEFINED_LENGTH)
        for fragment in fragments:
            self._delimiter(ITEM, len(fragment))
            for piece in _chunks(fragment):
                self._sink.write(piece)
        self._delimiter(SEQUENCE_END, 0)

    def _delimiter(self, tag: int, length: int) -> None:
        self._pack("HHI", tag >> 16, tag & 0xFFFF, length)

    def _pack(self, form: str, *numbers: int) -> None:
        self._sink.write(struct.pack(self._encoding.order + form, *numbers))


def _is_short(vr: bytes) -> bool:
    return vr in SHORT_VRS or not (vr.isalpha() and vr.isupper())


def _chunks(value: memoryview) -> Iterator[bytes]:
    for start in range(0, len(value), _CHUNK_BYTES):
        yield bytes(value[start : start + _CHUNK_BYTES])
