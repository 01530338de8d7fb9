"""Data Sets as trees of raw elements: tag, VR and the value's bytes as they lie.

Owns the reading of encoded Data Sets without interpreting values, so that bad
character sets, unknown VRs and private elements pass through a conversion
untouched. Refuses to decide what a value means, or which VR an implicit
element should get: ``value_representations`` does. PS3.5 Sections 7.1 to 7.5
and A.4 (encapsulated Pixel Data).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

UNDEFINED_LENGTH = 0xFFFF_FFFF
MAX_DEPTH = 128
"""Nesting that is followed; deeper Data Sets are refused before Python's own stack ends."""

ITEM = 0xFFFE_E000
ITEM_END = 0xFFFE_E00D
SEQUENCE_END = 0xFFFE_E0DD

PIXEL_DATA = 0x7FE0_0010

SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
"""VRs with a 16-bit length field. PS3.5 Table 7.1-2."""


class DataSetMalformed(ValueError):
    """The bytes are not a Data Set in the syntax they are said to be in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How elements are written: explicit VR or not, and the byte order."""

    explicit: bool
    big_endian: bool = False

    @property
    def order(self) -> str:
        """The byte order in the words of ``struct``."""
        return ">" if self.big_endian else "<"


IMPLICIT_LITTLE = Encoding(explicit=False)
EXPLICIT_LITTLE = Encoding(explicit=True)
EXPLICIT_BIG = Encoding(explicit=True, big_endian=True)


@dataclass(slots=True, kw_only=True)
class Element:
    """One element. Exactly one of ``items`` and ``fragments`` may stand for ``value``.

    ``vr`` is ``None`` where the source did not say. ``big_endian`` is the byte
    order of ``value``. ``fragments`` are those of encapsulated Pixel Data, the
    first being the Basic Offset Table.
    """

    tag: int
    vr: bytes | None
    value: memoryview = field(default_factory=lambda: memoryview(b""))
    big_endian: bool = False
    items: "list[DataSet] | None" = None
    fragments: list[memoryview] | None = None


DataSet = dict[int, Element]
"""Elements by tag, in the order they were found in."""


SequenceTest = Callable[[int, DataSet], bool]
"""Tells whether a tag without VR is a sequence, given what was read before it."""


def is_private(tag: int) -> bool:
    """Tell whether the group of ``tag`` is odd."""
    return bool(tag & 0x1_0000)


class Reader:
    """Walks one buffer. Values are views on it, nothing is copied."""

    def __init__(self, buffer: memoryview, is_sequence: SequenceTest) -> None:
        self._buffer = buffer
        self._is_sequence = is_sequence
        self._at = 0

    def read(self, encoding: Encoding) -> DataSet:
        """Read the whole buffer as one Data Set. Raises ``DataSetMalformed``."""
        return self._data_set(encoding, end=len(self._buffer), depth=0)

    def read_items(self, encoding: Encoding, length: int | None) -> int:
        """Walk the items of a sequence, up to its delimiter where its length is unknown. Give their bytes.

        Raises ``DataSetMalformed``.
        """
        self._items(encoding, end=length, depth=0)
        return self._at

    def _data_set(self, encoding: Encoding, *, end: int | None, depth: int) -> DataSet:
        """Read elements up to ``end``, or up to an Item Delimitation where it is unknown."""
        if depth > MAX_DEPTH:
            raise DataSetMalformed("sequences nest too deeply")
        elements: DataSet = {}
        while end is None or self._at < end:
            tag = self._tag(encoding)
            if tag == ITEM_END and end is None:
                self._number("I", encoding)
                return elements
            if tag >> 16 == 0xFFFE:
                raise DataSetMalformed("a delimiter stands where an element should")
            if tag in elements:
                raise DataSetMalformed("an element occurs twice")
            elements[tag] = self._element(tag, encoding, elements, depth)
        if self._at != end:
            raise DataSetMalformed("an element ends beyond what holds it")
        return elements

    def _element(self, tag: int, encoding: Encoding, so_far: DataSet, depth: int) -> Element:
        vr, length = self._vr_and_length(encoding)
        if length == UNDEFINED_LENGTH:
            return self._open_ended(tag, vr, encoding, depth)
        if vr == b"SQ" or (vr is None and self._is_sequence(tag, so_far)):
            return self._closed_sequence(tag, encoding, length, depth)
        value = self._take(length)
        return Element(tag=tag, vr=vr, value=value, big_endian=encoding.big_endian)

    def _open_ended(self, tag: int, vr: bytes | None, encoding: Encoding, depth: int) -> Element:
        if tag == PIXEL_DATA and vr in (b"OB", b"OW", None):
            return Element(tag=tag, vr=b"OB", fragments=list(self._fragments(encoding)))
        if vr not in (b"SQ", b"UN", None):
            raise DataSetMalformed("undefined length where the VR forbids it")
        # PS3.5 Section 6.2.2 Note 2: UN of undefined length is Implicit VR Little Endian inside.
        inner = IMPLICIT_LITTLE if vr == b"UN" else encoding
        items = self._items(inner, end=None, depth=depth)
        return Element(tag=tag, vr=b"SQ", items=items)

    def _closed_sequence(self, tag: int, encoding: Encoding, length: int, depth: int) -> Element:
        start = self._at
        value = self._take(length)
        self._at = start
        try:
            return Element(
                tag=tag, vr=b"SQ", items=self._items(encoding, end=start + length, depth=depth)
            )
        except DataSetMalformed:
            # A private dictionary may be wrong about a sequence: then it is bytes.
            if encoding.explicit or not is_private(tag):
                raise
            self._at = start + length
            return Element(tag=tag, vr=b"UN", value=value)

    def _items(self, encoding: Encoding, *, end: int | None, depth: int) -> list[DataSet]:
        items: list[DataSet] = []
        while end is None or self._at < end:
            tag, length = self._tag(encoding), self._number("I", encoding)
            if tag == SEQUENCE_END and end is None:
                return items
            if tag != ITEM:
                raise DataSetMalformed("something else where an item should be")
            item_end = None if length == UNDEFINED_LENGTH else self._at + length
            items.append(self._data_set(encoding, end=item_end, depth=depth + 1))
        if self._at != end:
            raise DataSetMalformed("an item ends beyond its sequence")
        return items

    def _fragments(self, encoding: Encoding) -> Iterator[memoryview]:
        # Some writers leave the last delimiter out where the Data Set ends.
        while self._at < len(self._buffer):
            tag, length = self._tag(encoding), self._number("I", encoding)
            if tag == SEQUENCE_END:
                return
            if tag != ITEM or length == UNDEFINED_LENGTH:
                raise DataSetMalformed("something else where a fragment should be")
            yield self._take(length)

    def _vr_and_length(self, encoding: Encoding) -> tuple[bytes | None, int]:
        if not encoding.explicit:
            return None, self._number("I", encoding)
        vr = bytes(self._take(2))
        # PS3.5 Section 7.1.2: VRs yet to be defined have the 32-bit form; what
        # is no VR at all (not two capitals) is written with 16 bits in the field.
        if vr in SHORT_VRS or not (vr.isalpha() and vr.isupper()):
            return vr, self._number("H", encoding)
        self._take(2)
        return vr, self._number("I", encoding)

    def _tag(self, encoding: Encoding) -> int:
        return self._number("H", encoding) << 16 | self._number("H", encoding)

    def _number(self, form: str, encoding: Encoding) -> int:
        size = struct.calcsize(form)
        (number,) = struct.unpack(encoding.order + form, self._take(size))
        return int(number)

    def _take(self, length: int) -> memoryview:
        start, end = self._at, self._at + length
        if end > len(self._buffer):
            raise DataSetMalformed("an element ends beyond the Data Set")
        self._at = end
        return self._buffer[start:end]
