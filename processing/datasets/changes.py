"""What coercions make of one Data Set: the edits to its bytes, and their record.

Owns which attributes may be changed and what SET, DELETE, MAP and PREFIX mean:

- SET writes the values, where the attribute was absent too; empty text empties it.
- DELETE takes the attribute away, sequences included.
- MAP replaces each value that, without its padding, is a key. Others stay.
- PREFIX goes before each value. An absent or empty attribute stays as it is.

The coercions are done in their order; what comes out is compared with what was
there, and only a real difference is an edit. The previous values are copied into
Original Attributes (PS3.3 Section C.12.1.1.9); an attribute that was absent is
named there with no value. Refuses to touch UIDs, the character set, security
and everything from group 5000 on, and of group 0028 what describes pixels. A
digital signature over what is changed does not hold any more: whoever asks for
a change accepts that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from pacs.core.routing import Coercion, CoercionKind
from processing.datasets.elements import Encoding
from processing.datasets.original_attributes import (
    LENGTH_TO_END,
    ORIGINAL_ATTRIBUTES,
    ChangeRefused,
    Edit,
    ElementWriter,
    recorded,
    with_lengths,
)
from processing.datasets.repertoire import NotHeld, Repertoire
from processing.datasets.spans import Slot, Span
from processing.datasets.text_values import (
    IN_REPERTOIRE,
    MAX_VALUE_BYTES,
    TEXT_VRS,
    ValueUnfit,
    bare,
    check,
    check_multiplicity,
    padded,
    values_of,
)

_CHARACTER_SET: Final = 0x0008_0005

_FIRST_GROUP: Final = 0x0008
_SECURITY_GROUP: Final = 0x0400
_PIXEL_GROUP: Final = 0x0028
_FROM_HERE_BULK: Final = 0x5000
"""Curves, functional groups, waveforms, overlays, spectra, Pixel Data, signatures, padding."""

_OF_PIXEL_GROUP: Final = frozenset(
    (0x0028_0300, 0x0028_0301, 0x0028_0302, 0x0028_0303, 0x0028_1050, 0x0028_1051, 0x0028_1055)
)
"""What group 0028 says of an image without describing its pixels: quality, annotation, window."""


@dataclass(slots=True, kw_only=True)
class _Attribute:
    """One attribute while it is changed. ``text`` is ``None`` where nobody has read it or it cannot be read."""

    tag: int
    vr: str
    raw: bytes | None
    present: bool
    text: str | None = None
    touched: bool = False


class Changes:
    """The coercions of one route, checked. Raises ``ChangeRefused``."""

    def __init__(
        self, coercions: Sequence[Coercion], *, modifying_system: str, max_held_bytes: int
    ) -> None:
        self._coercions = [(_changeable(one), one) for one in coercions]
        self._modifying_system = modifying_system
        self._bytes_left = max_held_bytes
        self._repertoire = Repertoire()

    @property
    def tags(self) -> list[int]:
        """What has to be found in the Data Set."""
        changed = {tag for tag, _ in self._coercions}
        if not changed:
            return []
        lengths = {tag & 0xFFFF_0000 for tag in (*changed, ORIGINAL_ATTRIBUTES)}
        return sorted(changed | lengths | {_CHARACTER_SET, LENGTH_TO_END, ORIGINAL_ATTRIBUTES})

    def edits(
        self, file: BinaryIO, slots: Mapping[int, Slot], encoding: Encoding, now: datetime
    ) -> list[Edit]:
        """Give the edits in the order of the file; none where nothing changes. Raises ``ChangeRefused``."""
        if not self._coercions:
            return []
        if (span := slots[_CHARACTER_SET].span) is not None:
            self._repertoire = Repertoire.declared(self._value(file, span))
        attributes: dict[int, _Attribute] = {}
        for tag, coercion in self._coercions:
            if tag not in attributes:
                attributes[tag] = self._attribute(file, tag, slots[tag].span)
            self._do(coercion, attributes[tag])
        writing = ElementWriter(encoding)
        made = [
            edit
            for tag in sorted(attributes)
            if (edit := self._edit(attributes[tag], slots[tag], writing)) is not None
        ]
        if not made:
            return []
        changed = [tag for tag in sorted(attributes) if self._differs(attributes[tag])]
        previous = b"".join(
            self._previous(file, tag, attributes, slots, writing) for tag in changed
        )
        made += recorded(slots[ORIGINAL_ATTRIBUTES], previous, writing, self._modifying_system, now)
        return with_lengths(file, made, slots, writing)

    # --- what is there ---

    def _attribute(self, file: BinaryIO, tag: int, span: Span | None) -> _Attribute:
        vr = dictionary_VR(tag)
        if span is None:
            return _Attribute(tag=tag, vr=vr, raw=None, present=False)
        said = (span.vr or b"UN").decode("ascii")
        if span.delimited or "SQ" in (vr, said):
            vr = "SQ"  # only to be deleted, never read
            return _Attribute(tag=tag, vr=vr, raw=b"", present=True)
        if said in TEXT_VRS and vr in TEXT_VRS:
            vr = said
        return _Attribute(tag=tag, vr=vr, raw=self._value(file, span), present=True)

    def _value(self, file: BinaryIO, span: Span) -> bytes:
        return self._read(file, span.value, span.end)

    def _read(self, file: BinaryIO, start: int, end: int) -> bytes:
        self._bytes_left -= end - start
        if self._bytes_left < 0:
            raise ChangeRefused("what is changed is longer than parsing.max_header_bytes")
        file.seek(start)
        return file.read(end - start)

    def _text(self, attribute: _Attribute) -> str | None:
        """The text as it stands, ``None`` where the character sets do not read it."""
        if attribute.touched or attribute.raw is None:
            return attribute.text
        try:
            return self._charset(attribute.vr).decoded(attribute.raw).rstrip(" \0")
        except NotHeld:
            return None

    def _charset(self, vr: str) -> Repertoire:
        return self._repertoire if vr in IN_REPERTOIRE else Repertoire()

    # --- what is done ---

    def _do(self, coercion: Coercion, attribute: _Attribute) -> None:
        if coercion.kind is CoercionKind.DELETE:
            attribute.present = False
            attribute.touched, attribute.text = True, None
        elif attribute.vr not in TEXT_VRS:
            raise ChangeRefused(f"{coercion.keyword} is not text")
        elif coercion.kind is CoercionKind.SET:
            self._set(coercion, attribute)
        elif attribute.present:
            self._revise(coercion, attribute)

    def _set(self, coercion: Coercion, attribute: _Attribute) -> None:
        _settable(coercion, attribute.tag, attribute.vr)
        attribute.present = attribute.touched = True
        attribute.text = coercion.value

    def _revise(self, coercion: Coercion, attribute: _Attribute) -> None:
        """MAP and PREFIX: each value by itself."""
        before = self._text(attribute)
        if before is None:
            if coercion.kind is CoercionKind.PREFIX and attribute.raw:
                raise ChangeRefused(f"{coercion.keyword} is not in its character set")
            return
        values = values_of(before, attribute.vr)
        after = [_revised(coercion, value, attribute.vr) for value in values]
        if after == values:
            return
        for old, new in zip(values, after, strict=True):
            if new != old:
                _checked(new, attribute.vr, coercion.keyword)
        attribute.touched, attribute.text = True, "\\".join(after)

    def _differs(self, attribute: _Attribute) -> bool:
        """Tell whether anything really changed: padding is no difference."""
        if not attribute.touched:
            return False
        if attribute.raw is None or not attribute.present:
            return attribute.present != (attribute.raw is not None)
        try:
            before = self._charset(attribute.vr).decoded(attribute.raw)
        except NotHeld:
            return True
        return _bare(before, attribute.vr) != _bare(attribute.text or "", attribute.vr)

    def _edit(self, attribute: _Attribute, slot: Slot, writing: ElementWriter) -> Edit | None:
        if not self._differs(attribute):
            return None
        end = slot.at if slot.span is None else slot.span.end
        if not attribute.present:
            return Edit(tag=attribute.tag, start=slot.at, end=end, data=b"")
        try:
            charset = self._charset(attribute.vr)
            value = charset.encoded(attribute.text or "", name=attribute.vr == "PN")
        except NotHeld as error:
            raise ChangeRefused(
                f"({attribute.tag >> 16:04X},{attribute.tag & 0xFFFF:04X}): {error}"
            ) from error
        if len(value) > MAX_VALUE_BYTES:
            raise ChangeRefused("a value longer than its length field can say")
        data = writing.element(attribute.tag, attribute.vr, padded(value))
        return Edit(tag=attribute.tag, start=slot.at, end=end, data=data)

    # --- what is recorded ---

    def _previous(
        self,
        file: BinaryIO,
        tag: int,
        attributes: Mapping[int, _Attribute],
        slots: Mapping[int, Slot],
        writing: ElementWriter,
    ) -> bytes:
        span = slots[tag].span
        if span is None:
            return writing.element(tag, attributes[tag].vr, b"")
        return self._read(file, span.start, span.end)


def _changeable(coercion: Coercion) -> int:
    """The tag of an attribute that may be changed so. Raises ``ChangeRefused``."""
    tag = tag_for_keyword(coercion.keyword)
    if tag is None:
        raise ChangeRefused(f"{coercion.keyword!r} is no attribute")
    group = tag >> 16
    refused = (
        not _FIRST_GROUP <= group < _FROM_HERE_BULK
        or group == _SECURITY_GROUP
        or (group == _PIXEL_GROUP and tag not in _OF_PIXEL_GROUP)
        or tag in (_CHARACTER_SET, LENGTH_TO_END)
        or tag & 0xFFFF == 0
        or dictionary_VR(tag) == "UI"
    )
    if refused:
        raise ChangeRefused(f"{coercion.keyword} is never changed")
    vr = dictionary_VR(tag)
    if coercion.kind is not CoercionKind.DELETE and vr not in TEXT_VRS:
        raise ChangeRefused(f"{coercion.keyword} is not text")
    if coercion.kind is CoercionKind.SET:
        _settable(coercion, tag, vr)
    return tag


def _settable(coercion: Coercion, tag: int, vr: str) -> None:
    """Raise ``ChangeRefused`` where what is to be set is no value of the attribute."""
    values = values_of(coercion.value, vr)
    for value in values:
        _checked(value, vr, coercion.keyword)
    try:
        if coercion.value:
            check_multiplicity(len(values), dictionary_VM(tag))
    except ValueUnfit as error:
        raise ChangeRefused(f"{coercion.keyword}: {error}") from error


def _checked(value: str, vr: str, keyword: str) -> None:
    try:
        check(value, vr)
    except ValueUnfit as error:
        raise ChangeRefused(f"{keyword}: {error}") from error


def _revised(coercion: Coercion, value: str, vr: str) -> str:
    stripped = bare(value, vr)
    if coercion.kind is CoercionKind.MAP:
        return coercion.mapping.get(stripped, value)
    return coercion.value + stripped if stripped and coercion.value else value


def _bare(text: str, vr: str) -> list[str]:
    return [bare(value, vr) for value in values_of(text, vr)]
