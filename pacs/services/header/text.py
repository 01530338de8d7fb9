"""Bytes of character strings to Unicode, whatever Specific Character Set says. Never raises.

Source: PS3.5 Section 6.1.2 (code extensions, resets at delimiters) and PS3.3
Section C.12.1.1.2. A declaration that is missing, unknown or misspelled falls
back to what the bytes look like; bytes that cannot be decoded become U+FFFD.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pydicom.charset import CODES_TO_ENCODINGS, STAND_ALONE_ENCODINGS, python_encoding

_ESCAPE: Final = b"\x1b"
_GUESSED: Final = ""
_ISO_IR: Final = re.compile(r"ISO[ _-]*(2022)?[ _-]*(?:IR)?[ _-]*(\d+)\Z")
_MISSPELLED: Final = {"UTF8": "ISO_IR 192", "UTF-8": "ISO_IR 192", "GB 18030": "GB18030"}
_STATEFUL: Final = frozenset({"iso2022_jp", "iso2022_jp_2"})
_DELIMITER: Final = re.compile(rb"[\\^=\t\n\f\r]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """What Specific Character Set (0008,0005) amounts to.

    ``first`` is the codec of its first value, empty when it has to be guessed.
    ``extensible`` says that escape sequences switch, declared or not.
    """

    first: str = _GUESSED
    extensible: bool = True


UNDECLARED: Final = CharacterSet()


@lru_cache(maxsize=256)
def character_set(declared: bytes) -> CharacterSet:
    """Understand the value of Specific Character Set, misspellings included."""
    terms = [_term(one) for one in declared.decode("latin-1").split("\\")]
    if terms[0] == "" and len(terms) > 1:
        return CharacterSet("latin_1")  # ISO-IR 6, to be extended
    alone = terms[0] in STAND_ALONE_ENCODINGS
    return CharacterSet(python_encoding.get(terms[0], _GUESSED) if terms[0] else "", not alone)


def decode(raw: bytes, characters: CharacterSet) -> str:
    """Decode a whole value, all its components and values at once; NULs go."""
    if raw.isascii() and _ESCAPE not in raw:
        return raw.decode("ascii").replace("\0", "")
    if characters.extensible and _ESCAPE in raw:
        head, *escaped = raw.split(_ESCAPE)
        text = _plain(head, characters.first)
        text += "".join(_escaped(_ESCAPE + one, characters.first) for one in escaped)
    else:
        text = _plain(raw, characters.first)
    return _SURROGATE.sub("\ufffd", text.replace("\0", ""))


def _term(written: str) -> str:
    term = written.strip(" \0").upper()
    term = _MISSPELLED.get(term, term)
    found = _ISO_IR.match(term)
    if term in python_encoding or found is None:
        return term
    return f"ISO 2022 IR {found[2]}" if found[1] else f"ISO_IR {found[2]}"


def _plain(raw: bytes, codec: str) -> str:
    if codec:
        return raw.decode(codec, "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _escaped(fragment: bytes, first: str) -> str:
    """Decode from one escape sequence to the next one, PS3.5 Section 6.1.2.5.3."""
    for size in (4, 3):
        codec = CODES_TO_ENCODINGS.get(fragment[:size])
        if codec is not None:
            break
    else:
        return _plain(fragment, first)
    if codec in _STATEFUL:  # two bytes of 7 bits: what looks like a delimiter may be none
        return fragment.decode(codec, "replace")
    body = fragment[size:]
    reset = _DELIMITER.search(body)
    if reset is None:
        return body.decode(codec, "replace")
    at = reset.start()
    return body[:at].decode(codec, "replace") + _plain(body[at:], first)
