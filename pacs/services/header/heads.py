"""The head of one element: tag, VR and length, as written or as most plausibly meant.

Source: PS3.5 Section 7.1.2 and 7.1.3. A VR that is not known, not two letters,
or that contradicts its length is decided by what follows the value: after the
right length comes the next tag, or the end.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from pydicom.datadict import dictionary_VR

from pacs.core.attributes import BY_TAG
from pacs.core.errors import InstanceTruncated
from pacs.services.header.encoding import Encoding
from pacs.services.header.window import SHORTEST_HEAD_BYTES, Window

UNDEFINED: Final = 0xFFFF_FFFF
_LONG_HEAD_BYTES: Final = 12
_ITEM_GROUP: Final = 0xFFFE

Head = tuple[int, str, int, int]
"""Tag, VR (empty for items and delimiters), position of the value, length."""

SHORT_VRS: Final = {
    vr.encode(): vr
    for vr in (
        *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO"),
        *("LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
    )
}
_LONG_VRS: Final = {
    vr.encode(): vr
    for vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
}


@lru_cache(maxsize=8_192)
def vr_of(tag: int) -> str:
    """Look the VR of a tag up; ``UN`` when only its maker knows."""
    if tag in BY_TAG:
        return BY_TAG[tag].vr
    if tag & 0xFFFF == 0:
        return "UL"  # group length, PS3.5 Section 7.2
    try:
        return dictionary_VR(tag)[:2]  # "US or SS" and its kin: the first
    except KeyError:
        return "UN"


class Heads:
    """Reads heads of elements out of ``window`` in one encoding."""

    __slots__ = ("_implicit", "_long", "_window", "encoding", "short")

    def __init__(self, window: Window, encoding: Encoding) -> None:
        order = "<" if encoding.little else ">"
        self.encoding = encoding
        self._window = window
        self.short = struct.Struct(order + "HH2sH").unpack_from
        self._implicit = struct.Struct(order + "HHL").unpack_from
        self._long = struct.Struct(order + "L").unpack_from

    def explicit(self, position: int, end: int) -> Head:
        """Read the head of an element or item that carries its VR."""
        window = self._window
        at = position - window.base
        if at < 0 or at + _LONG_HEAD_BYTES > len(window.data):
            at = window.load(position)
        group, number, letters, length = self.short(window.data, at)
        tag = group << 16 | number
        vr = SHORT_VRS.get(letters)
        if vr is not None and group != _ITEM_GROUP:
            return tag, vr, position + SHORTEST_HEAD_BYTES, length
        return self._long_or_odd(position, end, letters)

    def implicit(self, position: int, end: int) -> Head:
        """Read the head of an element or item whose VR is in the dictionary only."""
        window = self._window
        at = position - window.base
        if at < 0 or at + SHORTEST_HEAD_BYTES > len(window.data):
            at = window.load(position)
        group, number, length = self._implicit(window.data, at)
        tag = group << 16 | number
        vr = "" if group == _ITEM_GROUP else vr_of(tag)
        return tag, vr, position + SHORTEST_HEAD_BYTES, length

    def plausible_first(self, position: int, end: int) -> bool:
        """Tell whether an element in this encoding can stand at ``position``."""
        data = self._window.value(position, _LONG_HEAD_BYTES)
        if len(data) < SHORTEST_HEAD_BYTES:
            return False
        known = data[4:6] in SHORT_VRS or data[4:6] in _LONG_VRS
        if self.encoding.explicit and not known:
            return False
        return self._fits(
            (self.explicit if known and self.encoding.explicit else self.implicit)(position, end),
            end,
        )

    def _long_or_odd(self, position: int, end: int, letters: bytes) -> Head:
        window = self._window
        at = position - window.base
        if self._implicit(window.data, at)[0] == _ITEM_GROUP:
            return self.implicit(position, end)
        vr = _LONG_VRS.get(letters)
        reserved_is_zero = window.data[at + 6 : at + 8] == b"\0\0"
        if vr is None or not reserved_is_zero:
            return self._most_plausible(position, end, letters)
        if len(window.data) - at < _LONG_HEAD_BYTES:
            raise InstanceTruncated("the Data Set ends within an element's head")
        length = self._long(window.data, at + 8)[0]
        return self._implicit_tag(at), vr, position + _LONG_HEAD_BYTES, length

    def _most_plausible(self, position: int, end: int, letters: bytes) -> Head:
        readings = list(self._readings(position, end, letters))
        for head in readings:
            if self._fits(head, end):
                return head
        return readings[0]

    def _readings(self, position: int, end: int, letters: bytes) -> Iterator[Head]:
        """Yield the ways to read an odd head, likeliest first (PS3.5 Section 7.1.2)."""
        data = self._window.value(position, _LONG_HEAD_BYTES)
        tag = self._implicit_tag(position - self._window.base)
        vr = _LONG_VRS.get(letters) or vr_of(tag)
        looks_like_vr = letters.isalpha() and letters.isupper()
        if not looks_like_vr:
            yield self.implicit(position, end)
        if data[6:8] == b"\0\0" and len(data) == _LONG_HEAD_BYTES:
            length = self._long(data, 8)[0]
            yield tag, vr, position + _LONG_HEAD_BYTES, length
        short = self.short(data, 0)[3]
        yield tag, vr, position + SHORTEST_HEAD_BYTES, short
        if looks_like_vr:
            yield self.implicit(position, end)

    def _implicit_tag(self, at: int) -> int:
        group, number, _ = self._implicit(self._window.data, at)
        return int(group << 16 | number)

    def _fits(self, head: Head, end: int) -> bool:
        """Tell whether the end, or a tag that may come next, follows the value."""
        tag, _, start, length = head
        follows = start + (0 if length == UNDEFINED else length)
        if follows >= end:
            return follows == end
        data = self._window.value(follows, SHORTEST_HEAD_BYTES)
        if len(data) < SHORTEST_HEAD_BYTES:
            return False
        group, number, _ = self._implicit(data, 0)
        return bool(group == _ITEM_GROUP or (group << 16 | number) >= tag)
