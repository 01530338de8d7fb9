"""C-FIND identifiers: what a question asks, checked against its information model. PS3.4 Sections C.4.1 and C.6.

Owns which keys a level takes and where their values come from. How a value
matches is decided in ``keys`` and ``matching``.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from pacs.core.attributes import BY_KEYWORD, BY_TAG, UNIQUE_KEYS, Level
from pacs.core.conditions import COMPUTED
from pacs.core.text import has_wildcard, offset_minutes
from pacs.services.find.keys import (
    Rules,
    element_of,
    element_text,
    items_matcher,
    matcher_of,
    refused,
    simple_text,
)
from pacs.services.find.matching import Dates, Items, Matcher, Times

QUERY_RETRIEVE_LEVEL = 0x00080052
SPECIFIC_CHARACTER_SET = 0x00080005
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
TIMEZONE_OFFSET = 0x00080201
PRIVATE_GROUP = 0x3109
PRIVATE_CREATOR = "PACS ARCHIVE 1"
"""Our private block: element xx01 is Registrant (LO), xx02 Received DateTime (DT), xx03 Purpose (LO)."""
_PURPOSE = 0x03
_LONGEST_PURPOSE = 64  # characters, PS3.5 Table 6.2-1 for LO

_COMPUTED_TAGS = {
    0x00080061: ("ModalitiesInStudy", "CS"),
    0x00080062: ("SOPClassesInStudy", "UI"),
    0x00201200: ("NumberOfPatientRelatedStudies", "IS"),
    0x00201202: ("NumberOfPatientRelatedSeries", "IS"),
    0x00201204: ("NumberOfPatientRelatedInstances", "IS"),
    0x00201206: ("NumberOfStudyRelatedSeries", "IS"),
    0x00201208: ("NumberOfStudyRelatedInstances", "IS"),
    0x00201209: ("NumberOfSeriesRelatedInstances", "IS"),
}
_OURS = {
    0x01: ("Registrant", "LO"),
    0x02: ("ReceivedDateTime", "DT"),
    _PURPOSE: ("Purpose", "LO"),
}
_SIMPLE_TEXTS = frozenset({"AS", "CS", "DA", "LO", "PN", "SH", "TM", "UI"})
_NEVER_KEYS = frozenset({QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET, RETRIEVE_AE_TITLE})


class Model(enum.Enum):
    """Query/Retrieve Information Models, PS3.4 Sections C.6.1 and C.6.2."""

    PATIENT_ROOT = "Patient Root"
    STUDY_ROOT = "Study Root"

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels a question may ask for, top to bottom."""
        return tuple(Level) if self is Model.PATIENT_ROOT else tuple(Level)[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What extended negotiation accepted, PS3.4 Table C.5-1. Nothing by default."""

    relational: bool = False
    combined_date_time: bool = False
    fuzzy_names: bool = False
    timezone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One C-FIND request."""

    model: Model
    identifier: Dataset = field(repr=False)
    negotiated: Negotiated = field(default_factory=Negotiated)


class Source(enum.Enum):
    """Where a key's value comes from."""

    INDEX = "a column of the index"
    COMPUTED = "made from the rows"
    ARCHIVE = "said by the archive itself"
    HEADER = "the stored header, at IMAGE level"
    NOWHERE = "not known at this level: returned empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: asked to be returned, and matched where there is a ``matcher``.

    ``level`` is the level the attribute belongs to. ``creator`` names the
    block of a private element, whose ``tag`` is the request's.
    """

    tag: int
    vr: str
    keyword: str
    source: Source
    level: Level
    matcher: Matcher | Items | None = field(default=None, repr=False)
    creator: str = ""
    item: Dataset | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A date and a time key that ask for one range from moment to moment, Section C.2.2.2.5.4."""

    date: Key
    time: Key
    low: str
    high: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question understood. ``offset_minutes`` is set where timezone adjustment acts.

    ``purpose`` is the one in force, which answers say where they are asked for it.
    """

    level: Level
    keys: tuple[Key, ...]
    combined: tuple[Combined, ...]
    character_sets: tuple[str, ...]
    relational: bool
    offset_minutes: int | None = None
    timezone_offset: str = ""
    purpose: str = ""

    @property
    def all_keys_supported(self) -> bool:
        """Tell whether every key exists here; otherwise responses carry the warning 0xFF01."""
        return all(one.source is not Source.NOWHERE for one in self.keys)

    @property
    def below(self) -> tuple[Key, ...]:
        """Keys that match entities below the asked level."""
        return tuple(one for one in self.keys if one.matcher and one.level.depth > self.level.depth)

    @property
    def here(self) -> tuple[Key, ...]:
        """Keys that match the asked level and those above."""
        return tuple(
            one for one in self.keys if one.matcher and one.level.depth <= self.level.depth
        )


def parse(question: Question, max_uids: int, purpose: str = "") -> Query:
    """Understand a question asked for ``purpose``. Raises ``IdentifierInvalid`` naming the offending element."""
    identifier, negotiated = question.identifier, question.negotiated
    level = _level(question)
    offset_text = _text(identifier, TIMEZONE_OFFSET) if negotiated.timezone else ""
    offset = offset_minutes(offset_text) if offset_text else None
    if offset_text and offset is None:
        raise refused(TIMEZONE_OFFSET)
    rules = Rules(fuzzy=negotiated.fuzzy_names, offset_minutes=offset, max_uids=max_uids)
    keys = tuple(_keys(identifier, level, rules, adjusting=offset is not None))
    if not negotiated.relational:
        _check_hierarchy(question.model, level, keys, identifier)
    combined = tuple(_combined(keys)) if negotiated.combined_date_time else ()
    return Query(
        level=level,
        keys=keys,
        combined=combined,
        character_sets=_character_sets(identifier),
        relational=negotiated.relational,
        offset_minutes=offset,
        timezone_offset=offset_text,
        purpose=purpose,
    )


def stated_purpose(identifier: Dataset) -> str:
    """Give the text of our private element Purpose; empty without one. Raises ``IdentifierInvalid``."""
    ours = [tag for tag in map(int, identifier.keys()) if tag >> 16 == PRIVATE_GROUP]
    tags = [tag for tag in ours if tag & 0xFF == _PURPOSE and tag & 0xFFFF > 0x1000]
    stated = [tag for tag in tags if _creator(identifier, tag) == PRIVATE_CREATOR]
    if not stated:
        return ""
    element = element_of(identifier, stated[0])
    if len(stated) > 1 or element.VR not in ("LO", "UN"):
        raise refused(stated[0])
    text = element_text(element)
    if len(text) > _LONGEST_PURPOSE or "\\" in text or not _is_legible(text):
        raise refused(stated[0])
    return text


def _is_legible(text: str) -> bool:
    return text.isprintable() and "\ufffd" not in text


def _level(question: Question) -> Level:
    text = _text(question.identifier, QUERY_RETRIEVE_LEVEL)
    found = next((one for one in question.model.levels if one.value == text), None)
    if found is None:
        raise refused(QUERY_RETRIEVE_LEVEL)
    return found


def _text(identifier: Dataset, tag: int) -> str:
    if tag not in identifier:
        return ""
    text = simple_text(identifier, tag)
    return element_text(element_of(identifier, tag)) if text is None else text


def _character_sets(identifier: Dataset) -> tuple[str, ...]:
    text = _text(identifier, SPECIFIC_CHARACTER_SET)
    return tuple(one.strip() for one in text.split("\\")) if text else ()


# --- the keys ------------------------------------------------------------------------


def _keys(identifier: Dataset, level: Level, rules: Rules, *, adjusting: bool) -> Iterator[Key]:
    for tag in sorted(map(int, identifier.keys())):
        group, element = tag >> 16, tag & 0xFFFF
        is_creator = group % 2 == 1 and element <= 0xFF
        if group <= 2 or element == 0 or is_creator or tag in _NEVER_KEYS:
            continue
        if tag == TIMEZONE_OFFSET and adjusting:
            continue  # how to read the other keys, not a key itself
        yield _key(identifier, tag, level, rules)


def _key(identifier: Dataset, tag: int, level: Level, rules: Rules) -> Key:
    vr = BY_TAG[tag].vr if tag in BY_TAG else _COMPUTED_TAGS.get(tag, ("", ""))[1]
    text = simple_text(identifier, tag) if vr else None
    if text is not None and (not text or vr in _SIMPLE_TEXTS):
        return _simple_key(tag, text, level, rules)
    element = element_of(identifier, tag)
    creator = _creator(identifier, tag)
    vr, keyword, source, key_level = _origin(tag, element.VR, element.keyword, creator, level)
    if vr == "SQ":
        is_sequence = element.VR == "SQ"
        items = list(element.value or []) if is_sequence else []
        matcher: Matcher | Items | None = items_matcher(element, rules) if is_sequence else None
        item = items[0] if items and len(items[0]) else None
    else:
        item = None
        # An offset says how to read other keys, where that was accepted; it never matches itself.
        # So does a purpose say under what is asked.
        matchable = source is not Source.NOWHERE and element.VR != "SQ" and tag != TIMEZONE_OFFSET
        matchable = matchable and keyword != "Purpose"
        matcher = matcher_of(vr, element_text(element), tag, rules) if matchable else None
    return Key(
        tag=tag,
        vr=vr,
        keyword=keyword,
        source=source,
        level=key_level,
        matcher=None if source is Source.NOWHERE else matcher,
        creator=creator,
        item=item,
    )


def _simple_key(tag: int, text: str, level: Level, rules: Rules) -> Key:
    """Make the key of an attribute we know from a text that needs no decoding."""
    vr, keyword, source, key_level = _origin(tag, "", "", "", level)
    matchable = source is not Source.NOWHERE and tag != TIMEZONE_OFFSET
    matcher = matcher_of(vr, text, tag, rules) if text and matchable else None
    return Key(tag=tag, vr=vr, keyword=keyword, source=source, level=key_level, matcher=matcher)


def _origin(
    tag: int, vr: str, keyword: str, creator: str, level: Level
) -> tuple[str, str, Source, Level]:
    """Tell VR, keyword, source and level of an attribute."""
    if tag in BY_TAG:
        one = BY_TAG[tag]
        return one.vr, one.keyword, Source.INDEX, one.level
    if tag in _COMPUTED_TAGS:
        name, vr = _COMPUTED_TAGS[tag]
        return vr, name, _computed_source(name, level), COMPUTED[name]
    if tag == INSTANCE_AVAILABILITY:
        return "CS", "InstanceAvailability", Source.ARCHIVE, level
    ours = _OURS.get(tag & 0xFF) if tag >> 16 == PRIVATE_GROUP else None
    if ours is not None and creator == PRIVATE_CREATOR:
        return ours[1], ours[0], Source.ARCHIVE, level
    has_header = level is Level.IMAGE and (bool(creator) or (tag >> 16) % 2 == 0)
    return vr, keyword, Source.HEADER if has_header else Source.NOWHERE, level


def _computed_source(name: str, level: Level) -> Source:
    """Counts of entities below the asked level are not known; what a study holds can be asked of all."""
    is_below = COMPUTED[name].depth > level.depth
    return Source.NOWHERE if is_below and name.startswith("NumberOf") else Source.COMPUTED


def _creator(identifier: Dataset, tag: int) -> str:
    """Name the private block a tag lies in (PS3.5 Section 7.8.1); empty for standard elements."""
    group, element = tag >> 16, tag & 0xFFFF
    if group % 2 == 0 or element < 0x1000:
        return ""
    return _text(identifier, group << 16 | element >> 8)


# --- what the models allow --------------------------------------------------------------


def _check_hierarchy(
    model: Model, level: Level, keys: tuple[Key, ...], identifier: Dataset
) -> None:
    """Refuse what a hierarchical query may not ask, PS3.4 Section C.4.1.2.1."""
    for above in model.levels[: model.levels.index(level)]:
        attribute = BY_KEYWORD[UNIQUE_KEYS[above]]
        text = _text(identifier, attribute.tag)
        if not text or "\\" in text or has_wildcard(text):
            raise refused(attribute.tag)
    for key in keys:
        if key.matcher and key.source is Source.INDEX and key.level.depth > level.depth:
            raise refused(key.tag)


def _combined(keys: tuple[Key, ...]) -> Iterator[Combined]:
    by_keyword = {one.keyword: one for one in keys}
    for date in keys:
        time = by_keyword.get(date.keyword.removesuffix("Date") + "Time")
        if time is None or date.vr != "DA" or time.vr != "TM":
            continue
        days, times = date.matcher, time.matcher
        if isinstance(days, Dates) and isinstance(times, Times):
            # PS3.4 Section C.2.2.2.5.4: an end without its time reaches as far as the day does.
            low = days.low + (times.low or "000000.000000") if days.low else ""
            high = days.high + (times.high or "235959.999999") if days.high else ""
            yield Combined(date=date, time=time, low=low, high=high)
