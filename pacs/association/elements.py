"""How many elements and items a Data Set holds, counted before anything is made of them. PS3.5 Section 7.

Owns a count that is never much less than what a reader would make, at a cost
that ends with the bound. Refuses to judge the encoding: what is malformed is
the reader's to refuse.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

from pydicom.datadict import dictionary_VR

from pacs.core.errors import InstanceUnreadable

MOST_ELEMENTS: Final = 65_536
"""In a Data Set that a peer sends us unasked or in answer, unless a setting says less."""

_ITEM_GROUP: Final = 0xFFFE
_ITEM: Final = 0xE000
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)


class TooManyElements(InstanceUnreadable):
    """A Data Set holds more elements and items than its reader shall be asked to make."""

    peer_comment = "Data Set has too many elements"


def check_elements(encoded: bytes, *, implicit: bool, little: bool, most: int) -> None:
    """Raise ``TooManyElements`` where a Data Set holds more than ``most`` elements and items.

    Sequences are stepped into wherever they are, so depth needs no stack. Items
    that hide in values of other VRs are counted by their tags.
    """
    order = "<" if little else ">"
    if encoded.count(Struct(order + "HH").pack(_ITEM_GROUP, _ITEM)) > most:
        raise TooManyElements
    head, long = Struct(order + "HHL").unpack_from, Struct(order + "L").unpack_from
    short = Struct(order + "H").unpack_from
    at, count, end = 0, 0, len(encoded) - 8
    while at <= end:
        group, element, length = head(encoded, at)
        vr = encoded[at + 4 : at + 6]
        at += 8
        if group == _ITEM_GROUP:
            count += element == _ITEM
        else:
            count += 1
            # Who says Explicit VR and writes none is read as Implicit VR, and the other way round.
            if b"AA" <= vr <= b"ZZ" and vr.isalpha() and vr.isupper():
                if vr in _LONG_VRS:
                    length = long(encoded, at)[0] if at <= len(encoded) - 4 else 0
                    at += 4
                else:
                    length = short(encoded, at - 2)[0]
                steps_in = vr == b"SQ"
            else:
                steps_in = implicit and _is_sequence(group << 16 | element)
            at += 0 if steps_in or length == _UNDEFINED else length
        if count > most:
            raise TooManyElements


@lru_cache(maxsize=4_096)
def _is_sequence(tag: int) -> bool:
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False
