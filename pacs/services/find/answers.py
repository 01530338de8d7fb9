"""C-FIND response identifiers: the keys that were asked, with the values of one entity. PS3.4 Section C.4.1.1.3.2.

Owns the encoding of values and the choice of Specific Character Set. Which
entities match is decided elsewhere.
"""

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacs.core.identifiers import AETitle
from pacs.services.find.entities import Entity
from pacs.services.find.identifiers import (
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    SPECIFIC_CHARACTER_SET,
    TIMEZONE_OFFSET,
    Key,
    Query,
    Source,
)
from pacs.services.find.matching import ONE_TEXT, JsonItem, json_items
from pacs.services.find.plain import base_tag, encoding_of, plain_value, raw_element

_UNICODE = ("ISO_IR 192",)
_LATIN = ("ISO_IR 100",)  # for requesters that named none: ASCII is in it, and everyone knows it
_INTEGERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV"})
_AMBIGUOUS = {"US or SS": "US", "OB or OW": "OW", "US or OW": "US", "US or SS or OW": "US"}
_AS_TEXT = ONE_TEXT | {"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC"}
"""VRs whose value is, in pydicom, the text itself: nothing is left to convert."""
_TEXT_VRS = ONE_TEXT | {"LO", "PN", "SH", "UC"}


class Answers:
    """Makes the identifiers of the Pending responses to one question.

    Nearly all values are plain texts. Their elements are made undecoded, so
    that they are written as they lie; pydicom's own objects took ten times as
    long to make and to write. An answer with any other value is made of those.
    """

    def __init__(self, query: Query, keys: Sequence[Key], ae_title: AETitle) -> None:
        self._query = query
        self._keys = keys
        self._ae_title = ae_title
        self._charset = query.character_sets or _LATIN
        self._encoding = encoding_of(self._charset, only_ascii=True)
        self._plain = all(key.source is not Source.HEADER for key in keys)
        self._slots = self._in_order()

    def of(self, entity: Entity) -> Dataset:
        """Make the identifier that says what the keys ask of one entity."""
        elements = self._plain_elements(entity) if self._plain else None
        if elements is None:
            return answer(self._query, entity, self._keys, self._ae_title)
        return Dataset(elements)

    def _in_order(self) -> list[tuple[BaseTag, str, Key | None, RawDataElement | None]]:
        """What an answer holds, by tag: values to be filled in, and elements that never change."""
        fixed = {
            QUERY_RETRIEVE_LEVEL: ("CS", self._query.level.value),
            RETRIEVE_AE_TITLE: ("AE", self._ae_title),
            SPECIFIC_CHARACTER_SET: ("CS", "\\".join(self._charset)),
        }
        if self._query.offset_minutes is not None:
            fixed[TIMEZONE_OFFSET] = ("SH", self._query.timezone_offset)
        slots: dict[int, tuple[BaseTag, str, Key | None, RawDataElement | None]] = {}
        for key in self._keys:
            if key.creator:
                fixed[_reserving(key)] = ("LO", key.creator)
            slots[key.tag] = (base_tag(key.tag), _AMBIGUOUS.get(key.vr, key.vr), key, None)
        for tag, (vr, text) in fixed.items():
            value = plain_value(vr, text, "ascii")
            self._plain = self._plain and value is not None
            slots[tag] = (base_tag(tag), vr, None, raw_element(tag, vr, value or b""))
        return [slots[tag] for tag in sorted(slots)]

    def _plain_elements(self, entity: Entity) -> dict[BaseTag, DataElement | RawDataElement] | None:
        """Make all elements, in order of their tags; ``None`` where one is not plain."""
        texts = ["" if key is None else entity.text(key) for _, _, key, _ in self._slots]
        encoding, charset = self._encoding, None
        if not all(map(str.isascii, texts)):
            sets = character_sets_for(self._values(texts), self._query.character_sets)
            encoding = encoding_of(sets)
            charset = raw_element(SPECIFIC_CHARACTER_SET, "CS", _ascii_value(sets))
        if encoding is None:
            return None
        elements: dict[BaseTag, DataElement | RawDataElement] = {}
        for (tag, vr, _, fixed), text in zip(self._slots, texts, strict=True):
            if fixed is not None:
                elements[tag] = charset if charset and tag == SPECIFIC_CHARACTER_SET else fixed
                continue
            value = plain_value(vr, text, encoding)
            if value is None:
                return None
            elements[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
        return elements

    def _values(self, texts: Sequence[str]) -> list[str]:
        """List the values that are written in the answer's character set."""
        values: list[str] = []
        for (_, vr, _, _), text in zip(self._slots, texts, strict=True):
            if vr in _TEXT_VRS:
                values += [text] if vr in ONE_TEXT else text.split("\\")
        return values


def _ascii_value(values: Sequence[str]) -> bytes:
    return plain_value("CS", "\\".join(values), "ascii") or b""


def _reserving(key: Key) -> int:
    """Tag of the element that reserves a private element's block, PS3.5 Section 7.8.1."""
    return (key.tag >> 16) << 16 | (key.tag & 0xFFFF) >> 8


def answer(query: Query, entity: Entity, keys: Sequence[Key], ae_title: AETitle) -> Dataset:
    """Make the identifier of one Pending response of pydicom's elements, whatever their values."""
    elements = [_element(key, entity) for key in keys]
    elements.append(text_element(QUERY_RETRIEVE_LEVEL, "CS", query.level.value))
    elements.append(text_element(RETRIEVE_AE_TITLE, "AE", ae_title))
    if query.offset_minutes is not None:
        elements.append(text_element(TIMEZONE_OFFSET, "SH", query.timezone_offset))
    elements = list({one.tag: one for one in elements}.values())  # what is ours stands for a key
    charset = character_sets_for(list(_texts(elements)), query.character_sets)
    elements.append(text_element(SPECIFIC_CHARACTER_SET, "CS", "\\".join(charset)))
    # One by one, pydicom looks each over: half the cost of an answer. Most need no look.
    apart = [one for one in elements if one.VR == "SQ" or one.tag >> 16 & 1]
    data_set = Dataset({one.tag: one for one in elements})
    for key in keys:
        _add_creator(data_set, key)
    for element in apart:
        data_set.add(element)
    return data_set


def _add_creator(data_set: Dataset, key: Key) -> None:
    if key.creator:
        data_set.add(text_element(_reserving(key), "LO", key.creator))


def _element(key: Key, entity: Entity) -> DataElement:
    vr = _AMBIGUOUS.get(key.vr, key.vr)
    if key.source is Source.HEADER:
        stored = entity.element(key)
        if stored is not None:
            vr = _AMBIGUOUS.get(stored.VR, stored.VR)
            if isinstance(stored.value, bytes):
                return DataElement(key.tag, vr, stored.value)
    text = entity.text(key)
    if vr == "SQ":
        return DataElement(key.tag, vr, list(_items(text, key.item)))
    return text_element(key.tag, vr, text)


def text_element(tag: int, vr: str, text: str) -> DataElement:
    """Make an element from a text, values joined by a backslash; empty where the VR cannot hold it."""
    own_tag = base_tag(tag)
    if vr in _AS_TEXT and (vr in ONE_TEXT or "\\" not in text):
        return DataElement(own_tag, vr, text or None, already_converted=True)
    if not text:
        return DataElement(own_tag, vr, None)
    values: list[str] = [text] if vr in ONE_TEXT else text.split("\\")
    try:
        value: list[object] = [_number(vr, one) for one in values]
        ignore = config.IGNORE  # values were kept as received, malformed ones too
        one_or_more = value if len(value) > 1 else value[0]
        return DataElement(own_tag, vr, one_or_more, validation_mode=ignore)
    except (ValueError, TypeError, ArithmeticError):
        return DataElement(own_tag, vr, None)


def _number(vr: str, value: str) -> object:
    if vr in _INTEGERS:
        return int(value)
    return float(value) if vr in ("FL", "FD") else value


def _items(text: str, asked: Dataset | None) -> Iterator[Dataset]:
    """Give a sequence's items with the attributes asked for, all of them where none is named."""
    for item in json_items(text):
        kept: JsonItem = item
        if asked is not None:
            names = {f"{int(tag):08X}" for tag in asked.keys()}  # noqa: SIM118 - a Dataset iterates elements
            kept = {name: item[name] for name in sorted(names & set(item))}
        try:
            data_set = Dataset.from_json(_writable(kept))
        except (ValueError, TypeError, KeyError, AttributeError):
            data_set = Dataset()  # malformed as received: the item is there, its values are not
        if SPECIFIC_CHARACTER_SET in data_set:
            del data_set[SPECIFIC_CHARACTER_SET]
        yield data_set


def _writable(item: JsonItem) -> dict[str, Mapping[str, object]]:
    return dict(item)


# --- character sets --------------------------------------------------------------------


def character_sets_for(texts: list[str], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Choose the requester's own character set if it can hold every text, else Unicode.

    Source: PS3.3 Section C.12.1.1.2.
    """
    if all(one.isascii() for one in texts):
        return asked or _LATIN
    encodings = [python_encoding.get(one, "") for one in asked if one]
    known = bool(encodings) and all(encodings)
    if known and all(any(_holds(encoding, one) for encoding in encodings) for one in texts):
        return asked
    return _UNICODE


def _holds(encoding: str, text: str) -> bool:
    if encoding == "shift_jis" and not all(one.isascii() or "｡" <= one <= "ﾟ" for one in text):
        return False  # ISO_IR 13 is only the half-width Katakana of what the codec can write
    try:
        return codecs.decode(codecs.encode(text, encoding), encoding) == text
    except (UnicodeError, LookupError):
        return False


def _texts(elements: Iterable[DataElement]) -> Iterator[str]:
    for element in elements:
        if element.VR == "SQ":
            for item in element.value or []:
                yield from _texts(item)
        elif element.VR in _TEXT_VRS and element.value is not None:
            value = element.value
            yield from [value] if isinstance(value, str) else _texts_of(element)


def _texts_of(element: DataElement) -> Iterator[str]:
    values = element.value if element.VM > 1 else [element.value]
    return (str(one) for one in values)
