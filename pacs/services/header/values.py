"""Raw values to text or to the values a Data Set holds in memory. Never raises for odd ones.

Source: PS3.5 Section 6.2 (VRs, padding), and for dates and times the forms of
ACR-NEMA that PS3.5 asks readers to understand.
"""

import math
import re
import struct
from collections.abc import Callable
from typing import Final

from pydicom.config import IGNORE
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import IS, DSfloat, PersonName

from pacs.services.header.text import UNDECLARED, CharacterSet, decode

Value = object
"""One value as pydicom holds it; many are a ``MultiValue``, none is ``None``."""

_PADDING: Final = " \0"
_ESCAPE: Final = b"\x1b"
_SEVERAL: Final = b"\\"
_LOCALIZED: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SINGLE: Final = frozenset({"LT", "ST", "UR", "UT"})
_TEXTUAL: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"}) | (
    _LOCALIZED | _SINGLE
)
_NUMBERS: Final = {
    "FD": "d",
    "FL": "f",
    "SL": "i",
    "SS": "h",
    "SV": "q",
    "UL": "I",
    "US": "H",
    "UV": "Q",
}
_LEGACY_DATE: Final = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)\Z")
_LEGACY_TIME: Final = re.compile(r"(\d\d):(\d\d)(?::(\d\d(?:\.\d*)?))?\Z")


def text_of(vr: str, raw: bytes, characters: CharacterSet, *, little: bool) -> str:
    """Turn a value into the text the index holds; empty when it says nothing."""
    if vr in _TEXTUAL and raw.isascii() and _ESCAPE not in raw and _SEVERAL not in raw:
        return _plain_text(vr, raw)
    if vr == "AT" or vr in _NUMBERS:
        return "\\".join(
            f"{one:08X}" if vr == "AT" else str(one) for one in _numbers(vr, raw, little=little)
        )
    parts = _texts(vr, raw, characters)
    if vr in ("DA", "TM"):
        parts = [_modern(vr, one) for one in parts]
    return "\\".join(parts) if any(parts) else ""


def _plain_text(vr: str, raw: bytes) -> str:
    """Turn a single value in ASCII into text, as the longer way below would."""
    text = raw.decode("ascii").replace("\0", "")
    if vr in _SINGLE:
        return text.rstrip(_PADDING)
    text = text.rstrip(_PADDING + "=" if vr == "PN" else _PADDING).lstrip(_PADDING)
    return _modern(vr, text) if vr in ("DA", "TM") else text


def is_legible(vr: str) -> bool:
    """Tell whether values of ``vr`` say something as text."""
    return vr in _TEXTUAL or vr in _NUMBERS or vr == "AT"


def value_of(vr: str, raw: bytes, characters: CharacterSet, *, little: bool) -> Value:
    """Turn a value into what pydicom holds for it, odd ones left out."""
    if vr == "AT" or vr in _NUMBERS:
        return _collected(
            [Tag(int(n)) if vr == "AT" else n for n in _numbers(vr, raw, little=little)]
        )
    if vr not in _TEXTUAL:
        return raw or None
    make = _MAKERS.get(vr, str)
    made = [_made(make, one) for one in _texts(vr, raw, characters)]
    return _collected([one for one in made if one is not None])


def _texts(vr: str, raw: bytes, characters: CharacterSet) -> list[str]:
    text = decode(raw, characters if vr in _LOCALIZED else UNDECLARED)
    if vr in _SINGLE:
        return [text.rstrip(_PADDING)]
    padding = _PADDING + "=" if vr == "PN" else _PADDING  # groups that are empty to the end
    return [one.rstrip(padding).lstrip(_PADDING) for one in text.split("\\")]


def _numbers(vr: str, raw: bytes, *, little: bool) -> list[int | float]:
    code = "HH" if vr == "AT" else _NUMBERS[vr]
    form = struct.Struct(("<" if little else ">") + code)
    whole = raw[: len(raw) - len(raw) % form.size]
    if vr == "AT":
        return [group << 16 | number for group, number in form.iter_unpack(whole)]
    return [one for (one,) in form.iter_unpack(whole) if math.isfinite(one)]


def _modern(vr: str, text: str) -> str:
    legacy = (_LEGACY_DATE if vr == "DA" else _LEGACY_TIME).match(text)
    return "".join(part or "" for part in legacy.groups()) if legacy else text


def _collected(values: list[Value]) -> Value:
    if len(values) <= 1:
        return values[0] if values else None
    return MultiValue(lambda one: one, values)


def _made(make: Callable[[str], Value], text: str) -> Value:
    try:
        return make(text)
    except (ValueError, TypeError, OverflowError):
        return None


def _decimal(text: str) -> Value:
    if not text:
        return None
    number = DSfloat(text, validation_mode=IGNORE)
    return number if math.isfinite(number) else None


def _integer(text: str) -> Value:
    return IS(text, validation_mode=IGNORE) if text else None


_MAKERS: Final[dict[str, Callable[[str], Value]]] = {
    "DS": _decimal,
    "IS": _integer,
    "PN": PersonName,
    "UI": lambda text: UID(text, IGNORE),
}
