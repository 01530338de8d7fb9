"""Values of C-FIND answers written without pydicom's objects. PS3.5 Sections 6.2 and 7.1.

Owns which texts are plain enough for that: those that pydicom would write as
they are, but for padding and character set. It says ``None`` to everything
else, which is then left to pydicom. Values are little endian.
"""

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from pydicom.charset import python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

LONGEST_BYTES: Final = 0xFFFE
"""What a 16-bit length can say; a longer value changes its VR in some syntaxes."""

_TEXT: Final = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
"""Written in the Data Set's character set, and otherwise as they are."""
_ASCII: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UR"})
_OTHERS: Final = frozenset(
    {"AT", "FD", "FL", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SQ", "SS", "SV", "UL", "UN", "UV"}
)
"""Written by pydicom, unless they are empty."""
_INTEGER_STRING = re.compile(r"[+-]?[0-9]{1,11}\Z")
_DECIMAL_STRING = re.compile(r"[+-]?[0-9]{1,8}(\.[0-9]{1,7})?\Z")
_UID = re.compile(r"[0-9.]{1,64}\Z")
_SMALL_NUMBER = re.compile(r"[0-9]{1,5}\Z")
_LARGEST_US: Final = 0xFFFF
_STATELESS: Final = re.compile(
    r"(UTF8|iso8859(_[2-4])?|latin_1|iso_ir_1(26|27|38|44|48|66)|GB18030)\Z"
)
"""Encodings in which each character has its bytes, whatever stands before it, and ASCII is itself."""

Writer = Callable[[str, str], bytes | None]


def encoding_of(character_sets: tuple[str, ...], *, only_ascii: bool = False) -> str | None:
    """Name the Python codec that writes all texts of a Data Set; ``None`` if that takes more than one.

    With code extensions (PS3.5 Section 6.1.2.5) ASCII is written in the first.
    """
    encodings = [python_encoding.get(one, "") for one in character_sets]
    if not all(encodings) or (len(encodings) != 1 and not (only_ascii and encodings)):
        return None
    return encodings[0] if _STATELESS.match(encodings[0]) else None


def raw_element(tag: int, vr: str, value: bytes) -> RawDataElement:
    """Make an element that is written as it lies."""
    return RawDataElement(base_tag(tag), vr, len(value), value, 0, False, True)


@lru_cache(maxsize=4_096)
def base_tag(tag: int) -> BaseTag:
    """Make pydicom's form of a tag."""
    return Tag(tag)


def plain_value(vr: str, text: str, encoding: str) -> bytes | None:
    """Encode a text that needs no more than its character set and padding; ``None`` for others."""
    if not text:
        return b"" if vr in _WRITERS or vr in _OTHERS else None
    write = _WRITERS.get(vr)
    value = None if write is None else write(text, encoding)
    return value if value is None or len(value) <= LONGEST_BYTES else None


def _in_character_set(text: str, encoding: str) -> bytes | None:
    try:
        return _even(text.encode(encoding))
    except UnicodeEncodeError:
        return None


def _name(text: str, encoding: str) -> bytes | None:
    """Trailing delimiters of component groups are not written: leave such names alone."""
    if text[-1] == "=" or "=\\" in text or text[0] == "\\" or text[-1] == "\\" or "\\\\" in text:
        return None
    return _in_character_set(text, encoding)


def _ascii(text: str, _: str) -> bytes | None:
    return _even(text.encode()) if text.isascii() else None


def _each(form: re.Pattern[str], padding: bytes) -> Writer:
    """Write values that all have a form, joined by backslashes."""

    def write(text: str, _: str) -> bytes | None:
        if not all(map(form.match, text.split("\\"))):
            return None
        return _even(text.encode(), padding)

    return write


def _unsigned_short(text: str, _: str) -> bytes | None:
    if not _SMALL_NUMBER.match(text) or int(text) > _LARGEST_US:
        return None
    return struct.pack("<H", int(text))


def _even(value: bytes, padding: bytes = b" ") -> bytes:
    return value + padding if len(value) % 2 else value


_WRITERS: Final[dict[str, Writer]] = {
    **dict.fromkeys(_TEXT, _in_character_set),
    **dict.fromkeys(_ASCII, _ascii),
    "PN": _name,
    "UI": _each(_UID, b"\0"),
    "IS": _each(_INTEGER_STRING, b" "),
    "DS": _each(_DECIMAL_STRING, b" "),
    "US": _unsigned_short,
}
