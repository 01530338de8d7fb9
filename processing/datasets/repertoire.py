"""Text to bytes and back in the character sets a Data Set declares, without a loss.

Owns what Specific Character Set (0008,0005) lets a value hold: PS3.3
C.12.1.1.2, PS3.5 Sections 6.1.2.3 to 6.1.2.5. Strict both ways: what cannot be
written exactly is refused, also where a cleverer mixture of code extensions
could hold it (one set beside ASCII is used between two delimiters).
"""

import re
from dataclasses import dataclass
from typing import Final

_ESC: Final = b"\x1b"
_ASCII_IN_G0: Final = b"\x1b(B"
_ROMAJI_IN_G0: Final = b"\x1b(J"

_ALONE: Final = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 100": "iso8859-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 127": "iso8859-6",
    "ISO_IR 126": "iso8859-7",
    "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9",
    "ISO_IR 203": "iso8859-15",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 166": "tis-620",
    "ISO_IR 192": "utf-8",
    "GB18030": "gb18030",
    "GBK": "gbk",
}
"""Defined term → codec, without code extensions. PS3.3 Table C.12-2 and C.12-5."""

_DESIGNATIONS: Final = {
    "100": b"\x1b-A",
    "101": b"\x1b-B",
    "109": b"\x1b-C",
    "110": b"\x1b-D",
    "144": b"\x1b-L",
    "127": b"\x1b-G",
    "126": b"\x1b-F",
    "138": b"\x1b-H",
    "148": b"\x1b-M",
    "203": b"\x1b-b",
    "13": b"\x1b)I",
    "166": b"\x1b-T",
    "149": b"\x1b$)C",
    "58": b"\x1b$)A",
}
"""Number of the registration → what brings it into G1. PS3.3 Tables C.12-3 and C.12-4."""

_MULTI_BYTE: Final = {"149": "euc_kr", "58": "gb2312"}
_IN_G0: Final = {"87": (b"\x1b$B", "iso2022_jp"), "159": (b"\x1b$(D", "iso2022_jp_1")}
_DELIMITERS: Final = re.compile(r"([\\\r\n\f\t])")
_NAME_DELIMITERS: Final = re.compile(r"([\\^=])")
_RESETTING: Final = re.compile(rb"[\\^=\r\n\f\t].*[\x80-\xff]", re.DOTALL)
_NEVER_HELD: Final = {"shift_jis": re.compile(r"[\\~]")}
"""What a codec takes but the set has another character for."""


class NotHeld(ValueError):
    """These character sets cannot hold the text, or do not read the bytes."""


def _codec(term: str) -> str:
    number = term.removeprefix("ISO 2022 IR ")
    if number in _MULTI_BYTE:
        return _MULTI_BYTE[number]
    return _ALONE.get(term.replace("ISO 2022 IR", "ISO_IR"), "ascii")


@dataclass(frozen=True, slots=True)
class Repertoire:
    """The defined terms of one Data Set. Of an unknown one only ASCII is used."""

    terms: tuple[str, ...] = ("",)

    @classmethod
    def declared(cls, value: bytes) -> "Repertoire":
        """Take the value of Specific Character Set; empty is the default repertoire."""
        return cls(tuple(term.strip(" \0") for term in value.decode("latin-1").split("\\")))

    def encoded(self, text: str, *, name: bool = False) -> bytes:
        """Write text; ``name`` for PN, whose delimiters reset code extensions. Raises ``NotHeld``."""
        parts = (_NAME_DELIMITERS if name else _DELIMITERS).split(text)
        # Every second one is a delimiter, which all sets hold where ASCII does.
        data = b"".join(
            part.encode("ascii") if index % 2 else self._part(part)
            for index, part in enumerate(parts)
        )
        if self.decoded(data) != text:
            raise NotHeld("the text does not come back as it was")
        return data

    def decoded(self, data: bytes) -> str:
        """Read bytes strictly. Raises ``NotHeld``."""
        try:
            if len(self.terms) == 1:
                return data.decode(_codec(self.terms[0]))
            return "".join(self._fragments(data))
        except UnicodeError as error:
            raise NotHeld("bytes outside the declared character sets") from error

    def _part(self, text: str) -> bytes:
        first = _exactly(text, _codec(self.terms[0]))
        if first is not None:
            return first
        for term in self.terms[1:]:
            number = term.removeprefix("ISO 2022 IR ")
            if number in _IN_G0:
                escape, codec = _IN_G0[number]
                data = _exactly(text, codec)
                if data is not None and _escapes(data) <= {escape, _ASCII_IN_G0}:
                    return self._back_to_first(data, text)
            elif number in _DESIGNATIONS:
                data = _exactly(text, _codec(term))
                if data is not None:
                    return _DESIGNATIONS[number] + data
        raise NotHeld("a character outside the declared character sets")

    def _back_to_first(self, data: bytes, text: str) -> bytes:
        """End in the G0 of the first term: JIS X 0201 has another one than ASCII."""
        if _codec(self.terms[0]) != "shift_jis":
            return data
        if _NEVER_HELD["shift_jis"].search(text):
            raise NotHeld("a character outside the declared character sets")
        return data.replace(_ASCII_IN_G0, _ROMAJI_IN_G0)

    def _fragments(self, data: bytes) -> list[str]:
        high = _codec(self.terms[0])
        head, *switched = data.split(_ESC)
        texts = [head.decode(high)]
        for piece in switched:
            fragment = _ESC + piece
            escape, codec = self._designated(fragment)
            if escape.startswith((b"\x1b$B", b"\x1b$(D")):
                texts.append(fragment.decode(codec))
                continue
            high = codec or high
            rest = fragment[len(escape) :]
            if _RESETTING.search(rest):
                raise NotHeld("code extensions are used beyond a delimiter")
            texts.append(rest.decode(high))
        return texts

    def _designated(self, fragment: bytes) -> tuple[bytes, str]:
        """The escape sequence at the start, and the codec it calls for; none for ASCII."""
        for escape in (_ASCII_IN_G0, _ROMAJI_IN_G0):
            if fragment.startswith(escape):
                return escape, ""
        for term in self.terms:
            number = term.removeprefix("ISO 2022 IR ")
            escape, codec = _IN_G0.get(number, (_DESIGNATIONS.get(number, b"\0"), _codec(term)))
            if fragment.startswith(escape):
                return escape, codec
        raise NotHeld("an escape sequence of a character set that is not declared")


def _exactly(text: str, codec: str) -> bytes | None:
    """The text in that codec, or ``None`` where the character set is narrower."""
    try:
        data = text.encode(codec)
    except UnicodeError:
        return None
    never = _NEVER_HELD.get(codec)
    if never is not None and (never.search(text) or len(data) != len(text)):
        return None
    return data


def _escapes(data: bytes) -> set[bytes]:
    return set(re.findall(rb"\x1b[$(]+[(]?[A-Z]", data))
