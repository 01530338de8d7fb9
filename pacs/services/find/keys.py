"""One key of a C-FIND identifier: the text a peer sent, and the matcher it asks for. PS3.4 Section C.2.2.2.

Decides by VR which kind of matching a value calls for and refuses values no
kind allows. Which keys a level takes is decided in ``identifiers``.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.tag import BaseTag

from pacs.core import text as texts
from pacs.core.errors import IdentifierInvalid
from pacs.core.identifiers import is_uid
from pacs.services.find.matching import (
    ONE_TEXT,
    Dates,
    Exactly,
    Instant,
    Instants,
    ItemKey,
    Items,
    Matcher,
    Numeric,
    Times,
    Wildcard,
    name_matcher,
)

NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UN", "UR", "UT"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "OB or OW"})
_PADDING = " \0"
_SIMPLE_VRS = frozenset({None, "AE", "AS", "CS", "DA", "DT", "LO", "PN", "SH", "TM", "UI"})
_SIMPLE_VALUE = re.compile(rb"[ !-<>-\[\]-~]*\0?\Z")
"""One value of printable ASCII: without a backslash, and without the groups of a name."""
_LONGEST_PATTERN = 1_024  # characters: matching takes as many steps as pattern times value
_UNDECODABLE = (  # what pydicom raises for values that are not of their VR, sequences cut short among them
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What was negotiated or set that changes how a value is read."""

    fuzzy: bool
    offset_minutes: int | None
    max_uids: int


def refused(tag: int) -> IdentifierInvalid:
    """Make the refusal of a key."""
    return IdentifierInvalid(f"key ({tag >> 16:04X},{tag & 0xFFFF:04X})", offending_elements=(tag,))


def element_of(data_set: Dataset, tag: int) -> DataElement:
    """Decode one element. Raises ``IdentifierInvalid`` where its value breaks its VR."""
    try:
        return data_set[tag]
    except _UNDECODABLE as error:
        raise refused(tag) from error


def simple_text(data_set: Dataset, tag: int) -> str | None:
    """Give the text of a standard text element as it came, where nothing has to be decoded.

    ``None`` where pydicom must be asked. Most keys have no value at all, and
    making pydicom's element took half the time a question needed to be read.
    """
    raw: object = data_set.get_item(BaseTag(tag), keep_deferred=True)
    if not isinstance(raw, RawDataElement) or raw.VR not in _SIMPLE_VRS:
        return None
    value = raw.value or b""
    if raw.length != len(value) or not _SIMPLE_VALUE.match(value):
        return None
    return value.decode("ascii").strip(_PADDING)


def element_text(element: DataElement) -> str:
    """Give an element's values as text, joined by a backslash; not for sequences."""
    value = element.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip(_PADDING)
    if element.VM > 1:
        return "\\".join(str(one).strip(_PADDING) for one in value)
    text = str(value)
    return text.rstrip(_PADDING) if element.VR in ONE_TEXT else text.strip(_PADDING)


def matcher_of(vr: str, text: str, tag: int, rules: Rules) -> Matcher | None:
    """Make the matcher a key's text asks for; ``None`` is universal matching.

    Raises ``IdentifierInvalid`` where the VR allows no such value.
    """
    if not text or vr in _BINARY:
        return None
    if "\0" in text or _is_excessive(vr, text, rules):  # NUL: no VR takes it, and no database
        raise refused(tag)
    if vr == "PN":
        return name_matcher(text, fuzzy=rules.fuzzy)
    if vr in _TEXTS:
        return _text_matcher(vr, text)
    if texts.has_wildcard(text):  # Section C.2.2.2.4 lists the VRs without wildcards
        raise refused(tag)
    if vr in NUMBERS:
        return _number_matcher(text, tag)
    strict: dict[str, Callable[[str, int, Rules], Matcher]] = {
        "UI": _uid_matcher,
        "DA": _date_matcher,
        "TM": _time_matcher,
        "DT": _date_time_matcher,
    }
    make = strict.get(vr)
    return Exactly(values=frozenset({text})) if make is None else make(text, tag, rules)


def _is_excessive(vr: str, text: str, rules: Rules) -> bool:
    """Tell whether looking for a text would cost more than any real key does."""
    is_pattern = vr == "PN" or texts.has_wildcard(text)
    return (is_pattern and len(text) > _LONGEST_PATTERN) or text.count("\\") >= rules.max_uids


def _text_matcher(vr: str, text: str) -> Matcher | None:
    values = [text] if vr in ONE_TEXT else [one.strip() for one in text.split("\\")]
    asked = tuple(one for one in values if one)
    if not asked or any(not one.strip("*") for one in asked):
        return None
    if any(texts.has_wildcard(one) for one in asked):
        return Wildcard(patterns=asked)
    return Exactly(values=frozenset(asked))


def _number_matcher(text: str, tag: int) -> Matcher:
    try:
        return Numeric(value=Decimal(text.strip()))
    except InvalidOperation as error:
        raise refused(tag) from error


def _uid_matcher(text: str, tag: int, rules: Rules) -> Matcher:
    uids = [one.strip(_PADDING) for one in text.split("\\")]
    if len(uids) > rules.max_uids or not all(is_uid(one) for one in uids):
        raise refused(tag)
    return Exactly(values=frozenset(uids))


def _date_matcher(text: str, tag: int, rules: Rules) -> Matcher:
    del rules
    low, high = _range_ends(text, tag)
    first = texts.normal_date(low) if low else ""
    last = texts.normal_date(high) if high else ""
    if first is None or last is None:
        raise refused(tag)
    return Dates(low=first, high=last)


def _time_matcher(text: str, tag: int, rules: Rules) -> Matcher:
    del rules
    low, high = _range_ends(text, tag)
    first = texts.normal_time(low) if low else ""
    last = texts.normal_time(high, last="-" in text) if high else ""
    if first is None or last is None:
        raise refused(tag)
    return Times(low=first, high=last)


def _range_ends(text: str, tag: int) -> tuple[str, str]:
    """Split ``low-high``; a single value is both ends, an open end is empty."""
    low, dash, high = (part.strip() for part in text.partition("-"))
    if not dash:
        return low, low
    if not low and not high:
        raise refused(tag)
    return low, high


def _date_time_matcher(text: str, tag: int, rules: Rules) -> Matcher:
    single = texts.date_time_bounds(text)
    if single is not None:
        instant = _instant(single[0], single[2], rules)
        return Instants(low=instant, high=instant)
    for at in (at for at, char in enumerate(text) if char == "-"):
        low, high = text[:at].strip(), text[at + 1 :].strip()
        first, last = texts.date_time_bounds(low), texts.date_time_bounds(high)
        whole = (first is not None or not low) and (last is not None or not high)
        if whole and (first is not None or last is not None):
            return Instants(
                low=None if first is None else _instant(first[0], first[2], rules),
                high=None if last is None else _instant(last[1], last[2], rules),
            )
    raise refused(tag)


def _instant(clock: datetime, offset: int | None, rules: Rules) -> Instant:
    minutes = rules.offset_minutes if offset is None else offset
    return Instant(clock=clock, offset_minutes=minutes)


def items_matcher(element: DataElement, rules: Rules) -> Items | None:
    """Make the matcher of a sequence key: one item, or none for universal matching.

    Raises ``IdentifierInvalid`` for more than one item (Section C.2.2.2.6).
    """
    items = list(element.value or [])
    if len(items) > 1:
        raise refused(int(element.tag))
    keys = _item_keys(items[0], rules) if items else ()
    return Items(keys=keys) if keys else None


def _item_keys(item: Dataset, rules: Rules) -> tuple[ItemKey, ...]:
    keys: list[ItemKey] = []
    for tag in sorted(map(int, item.keys())):
        if tag & 0xFFFF == 0 or tag == 0x00080005:
            continue
        element = element_of(item, tag)
        matcher: Matcher | Items | None
        if element.VR == "SQ":
            matcher = items_matcher(element, rules)
        else:
            matcher = matcher_of(element.VR, element_text(element), tag, rules)
        if matcher is not None:
            keys.append(ItemKey(tag=tag, vr=element.VR, matcher=matcher))
    return tuple(keys)
