"""The record of a change in the Data Set itself, and the bytes of changes.

Owns Original Attributes Sequence (0400,0561), PS3.3 Section C.12.1.1.9: one item
more, behind those that are there. Owns the group lengths that an edit would make
false (PS3.5 Section 7.2, retired). Refuses to know what was changed and why.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from processing.datasets.elements import ITEM, SHORT_VRS, UNDEFINED_LENGTH, Encoding
from processing.datasets.spans import Slot
from processing.datasets.text_values import padded

ORIGINAL_ATTRIBUTES: Final = 0x0400_0561
LENGTH_TO_END: Final = 0x0008_0001

_MODIFIED_ATTRIBUTES: Final = 0x0400_0550
_MODIFICATION_DATE_TIME: Final = 0x0400_0562
_MODIFYING_SYSTEM: Final = 0x0400_0563
_SOURCE_OF_PREVIOUS_VALUES: Final = 0x0400_0564
_REASON: Final = 0x0400_0565
_DELIMITER_BYTES: Final = 8


class ChangeRefused(ValueError):
    """A coercion cannot be done, on this Data Set or on any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """``data`` instead of the bytes from ``start`` to ``end`` of the file: something of ``tag``."""

    tag: int
    start: int
    end: int
    data: bytes


class ElementWriter:
    """Writes elements in the encoding of the Data Set."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def element(self, tag: int, vr: str, value: bytes) -> bytes:
        """A whole element."""
        return self.head(tag, vr, len(value)) + value

    def head(self, tag: int, vr: str, length: int) -> bytes:
        """Tag, VR and length. Raises ``ChangeRefused`` where the length has no room."""
        if length >= UNDEFINED_LENGTH:
            raise ChangeRefused("a sequence longer than its length field can say")
        head = self.packed("HH", tag >> 16, tag & 0xFFFF)
        if not self._encoding.explicit:
            return head + self.packed("I", length)
        if vr.encode() in SHORT_VRS:
            return head + vr.encode() + self.packed("H", length)
        return head + vr.encode() + self.packed("HI", 0, length)

    def item(self, content: bytes) -> bytes:
        """An item of a sequence."""
        return self.packed("HHI", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content

    def packed(self, form: str, *numbers: int) -> bytes:
        """Numbers in the byte order of the encoding."""
        return struct.pack(self._encoding.order + form, *numbers)

    def number(self, data: bytes) -> int:
        """A UL."""
        return int(struct.unpack(self._encoding.order + "I", data)[0])


def recorded(
    slot: Slot, previous: bytes, writing: ElementWriter, system: str, now: datetime
) -> list[Edit]:
    """Give the edits that append one item. ``previous``: the elements as they were.

    Source of Previous Values is Type 2 and empty: who made the values is not known.
    """
    item = writing.item(
        writing.element(_MODIFIED_ATTRIBUTES, "SQ", writing.item(previous))
        + writing.element(_MODIFICATION_DATE_TIME, "DT", f"{now:%Y%m%d%H%M%S.%f%z}".encode())
        + writing.element(_MODIFYING_SYSTEM, "LO", padded(system.encode("ascii")))
        + writing.element(_SOURCE_OF_PREVIOUS_VALUES, "LO", b"")
        + writing.element(_REASON, "CS", b"COERCE")
    )
    span = slot.span
    if span is None:
        return [_edit(slot.at, slot.at, writing.element(ORIGINAL_ATTRIBUTES, "SQ", item))]
    if span.vr not in (None, b"SQ"):
        raise ChangeRefused("Original Attributes are of an unknown form")
    if span.delimited:
        before_delimiter = span.end - _DELIMITER_BYTES
        return [_edit(before_delimiter, before_delimiter, item)]
    head = writing.head(ORIGINAL_ATTRIBUTES, "SQ", span.end - span.value + len(item))
    return [_edit(span.start, span.value, head), _edit(span.end, span.end, item)]


def with_lengths(
    file: BinaryIO, edits: Sequence[Edit], slots: Mapping[int, Slot], writing: ElementWriter
) -> list[Edit]:
    """Put edits in the order of the file, with the lengths that they would make false."""
    lengths: list[Edit] = []
    for tag, slot in slots.items():
        span = slot.span
        if span is None or span.end - span.value != struct.calcsize("I"):
            continue
        grown = sum(len(one.data) - (one.end - one.start) for one in edits if _counts(tag, one.tag))
        file.seek(span.value)
        if grown:
            told = (writing.number(file.read(4)) + grown) % UNDEFINED_LENGTH
            data = writing.packed("I", told)
            lengths.append(Edit(tag=tag, start=span.value, end=span.end, data=data))
    # What is inserted before an element starts where that one does; its tag is lower.
    return sorted((*edits, *lengths), key=lambda one: (one.start, one.tag))


def _counts(length_tag: int, tag: int) -> bool:
    """Tell whether the length in ``length_tag`` covers the bytes of ``tag``."""
    if length_tag == LENGTH_TO_END:
        return True
    return length_tag & 0xFFFF == 0 and length_tag >> 16 == tag >> 16


def _edit(start: int, end: int, data: bytes) -> Edit:
    return Edit(tag=ORIGINAL_ATTRIBUTES, start=start, end=end, data=data)
