"""Where the elements of a stored Data Set begin and end, without reading their values.

Owns the way over the top level of an encoded Data Set, no further than is
asked. Refuses to hold or interpret anything, so that what it finds costs no
memory, however large the values. PS3.5 Sections 7.1 to 7.5.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from processing.datasets.elements import (
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    DataSetMalformed,
    Encoding,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One element: where it starts, where its value does, and where all of it ends.

    ``vr`` is ``None`` where the encoding does not say. ``delimited``: the
    length is undefined, and ``end`` lies behind the delimiter.
    """

    tag: int
    vr: bytes | None
    start: int
    value: int
    end: int
    delimited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where an element is, or, where there is none, would have to be."""

    at: int
    span: Span | None = None


class Walk:
    """Goes over one Data Set that begins at ``begin`` of a file and ends at ``end``."""

    def __init__(
        self,
        file: BinaryIO,
        encoding: Encoding,
        *,
        begin: int,
        end: int,
        max_depth: int,
        max_elements: int,
    ) -> None:
        self._file = file
        self._encoding = encoding
        self._begin = begin
        self._end = end
        self._max_depth = max_depth
        self._elements_left = max_elements

    def find(self, tags: Sequence[int]) -> Mapping[int, Slot]:
        """Find the slots of these tags; what lies behind the last of them is not looked at.

        Raises ``DataSetMalformed``, also where elements do not ascend.
        """
        wanted, found = sorted(tags, reverse=True), dict[int, Slot]()
        at, last = self._begin, -1
        while wanted and at < self._end:
            span = self._span(at, self._encoding, depth=0)
            if span.tag <= last:
                raise DataSetMalformed("elements do not ascend")
            while wanted and wanted[-1] <= span.tag:
                tag = wanted.pop()
                found[tag] = Slot(at=at, span=span if span.tag == tag else None)
            at, last = span.end, span.tag
        return found | {tag: Slot(at=self._end) for tag in wanted}

    def _span(self, at: int, encoding: Encoding, *, depth: int) -> Span:
        self._elements_left -= 1
        if self._elements_left < 0:
            raise DataSetMalformed("too many elements")
        tag = self._tag(at, encoding)
        if tag >> 16 == 0xFFFE:
            raise DataSetMalformed("a delimiter stands where an element should")
        vr, value, length = self._head(at + 4, encoding)
        if length != UNDEFINED_LENGTH:
            return Span(tag=tag, vr=vr, start=at, value=value, end=self._within(value + length))
        # PS3.5 Section 6.2.2 Note 2: UN of undefined length is Implicit VR Little Endian inside.
        inner = IMPLICIT_LITTLE if vr == b"UN" else encoding
        end = self._end_of_sequence(value, inner, depth=depth + 1)
        return Span(tag=tag, vr=vr, start=at, value=value, end=end, delimited=True)

    def _head(self, at: int, encoding: Encoding) -> tuple[bytes | None, int, int]:
        """VR, position of the value and its length."""
        if not encoding.explicit:
            return None, at + 4, self._number("I", at, encoding)
        vr = self._bytes(at, 2)
        if not (vr.isalpha() and vr.isupper()):
            raise DataSetMalformed("no VR where one should be")
        if vr in SHORT_VRS:
            return vr, at + 4, self._number("H", at + 2, encoding)
        return vr, at + 8, self._number("I", at + 4, encoding)

    def _end_of_sequence(self, at: int, encoding: Encoding, *, depth: int) -> int:
        if depth > self._max_depth:
            raise DataSetMalformed("sequences nest too deeply")
        while (tag := self._tag(at, encoding)) != SEQUENCE_END:
            if tag != ITEM:
                raise DataSetMalformed("something else where an item should be")
            length = self._number("I", at + 4, encoding)
            at = self._within(at + 8)
            if length == UNDEFINED_LENGTH:
                at = self._end_of_item(at, encoding, depth=depth)
            else:
                at = self._within(at + length)
        return self._within(at + 8)

    def _end_of_item(self, at: int, encoding: Encoding, *, depth: int) -> int:
        while self._tag(at, encoding) != ITEM_END:
            at = self._span(at, encoding, depth=depth).end
        return self._within(at + 8)

    def _tag(self, at: int, encoding: Encoding) -> int:
        return self._number("H", at, encoding) << 16 | self._number("H", at + 2, encoding)

    def _number(self, form: str, at: int, encoding: Encoding) -> int:
        data = self._bytes(at, struct.calcsize(form))
        return int(struct.unpack(encoding.order + form, data)[0])

    def _bytes(self, at: int, length: int) -> bytes:
        self._within(at + length)
        self._file.seek(at)
        data = self._file.read(length)
        if len(data) != length:
            raise DataSetMalformed("the file ends within the Data Set")
        return data

    def _within(self, end: int) -> int:
        if end > self._end:
            raise DataSetMalformed("an element ends beyond the Data Set")
        return end
