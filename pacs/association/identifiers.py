"""Data Sets of messages other than C-STORE: decoded from and encoded to a transfer syntax. PS3.5.

Owns the encoding and the bound on what a deflated one may become. Refuses to
look at what is in them.
"""

import zlib
from functools import lru_cache
from io import BytesIO
from struct import Struct
from typing import Final

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from pacs.association.elements import MOST_ELEMENTS, check_elements
from pacs.core.errors import InstanceUnreadable

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"


def decode_identifier(
    encoded: bytes, transfer_syntax: str, *, most_bytes: int, most_elements: int = MOST_ELEMENTS
) -> Dataset:
    """Read a Data Set. Raises ``InstanceUnreadable``, also where it inflates past ``most_bytes``.

    pydicom takes 20 µs to make an item of 8 bytes, so items and elements are counted before:
    raises ``TooManyElements``.
    """
    implicit, little = transfer_syntax == IMPLICIT_LITTLE, transfer_syntax != EXPLICIT_BIG
    try:
        if transfer_syntax == DEFLATED:
            encoded = _inflated(encoded, most_bytes)
        check_elements(encoded, implicit=implicit, little=little, most=most_elements)
        data_set = read_dataset(BytesIO(encoded), implicit, little)
    except InstanceUnreadable:
        raise
    except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the bytes provoke
        raise InstanceUnreadable(type(failure).__name__) from None
    return data_set


def _inflated(encoded: bytes, most_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(encoded, most_bytes)
    if inflater.unconsumed_tail:
        raise InstanceUnreadable("deflated identifier is too large")
    return inflated


def encode_identifier(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Write a Data Set, of even length. Raises whatever pydicom makes of values that do not fit.

    A Data Set of undecoded elements is written as they lie, as far as that can be done.
    """
    implicit = transfer_syntax == IMPLICIT_LITTLE
    encoded = None if transfer_syntax == EXPLICIT_BIG else _as_it_lies(data_set, implicit=implicit)
    if encoded is None:
        stream = DicomBytesIO()
        stream.is_implicit_VR = implicit
        stream.is_little_endian = transfer_syntax != EXPLICIT_BIG
        write_dataset(stream, data_set)
        encoded = bytes(stream.getvalue())
    if transfer_syntax != DEFLATED:
        return encoded
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encoded) + deflater.flush()
    return deflated + b"\0" * (len(deflated) % 2)


_SHORT_VRS: Final = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
_LONG_VRS: Final = frozenset(
    ["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]
)
"""By the form of their headers, PS3.5 Tables 7.1-1 and 7.1-2."""
_FLAT_VRS: Final = _SHORT_VRS | {"UC", "UR", "UT"}
"""Values that are the same bytes in every little endian syntax. A sequence's hold headers."""
_LARGEST_SHORT: Final = 0xFFFE
_TAG = Struct("<HH")
_UINT16, _UINT32 = Struct("<H"), Struct("<L")


def _as_it_lies(data_set: Dataset, *, implicit: bool) -> bytes | None:
    """Write undecoded elements; ``None`` if there are others, or some that depend on the syntax."""
    pieces: list[bytes] = []
    last = -1
    for element in data_set.values():
        if not isinstance(element, RawDataElement):
            return None
        tag, vr, value = int(element.tag), element.VR, element.value
        if tag <= last or not tag & 0xFFFF or value is None or not element.is_little_endian:
            return None
        head, length = _head(tag, vr or "", implicit=implicit)
        size = len(value)
        if not head or size % 2 or (size and vr not in _FLAT_VRS) or element.length != size:
            return None
        if length is _UINT16 and size > _LARGEST_SHORT:
            return None
        pieces += (head, length.pack(size), value)
        last = tag
    return b"".join(pieces)


@lru_cache(maxsize=4_096)
def _head(tag: int, vr: str, *, implicit: bool) -> tuple[bytes, Struct]:
    """What stands before an element's length, and the form of the length; nothing for an unknown VR."""
    own = _TAG.pack(tag >> 16, tag & 0xFFFF)
    if vr not in _SHORT_VRS and vr not in _LONG_VRS:
        return b"", _UINT32
    if implicit:
        return own, _UINT32
    own += vr.encode()
    return (own, _UINT16) if vr in _SHORT_VRS else (own + b"\0\0", _UINT32)
