"""The rules of attribute matching, one class per kind of match. PS3.4 Section C.2.2.2.

A matcher is asked about the text of an attribute: values joined by a
backslash, a sequence as the DICOM JSON of its items; an empty text is an
unknown value and matches nothing but universal matching, which has no
matcher. Which key gets which matcher is decided in ``identifiers``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Protocol

from pacs.core import text as texts

JsonItem = Mapping[str, Mapping[str, object]]
ONE_TEXT = frozenset({"LT", "ST", "UT", "UR"})
"""VRs in which a backslash is a character like any other, PS3.5 Section 6.2."""


class Matcher(Protocol):
    """Decides about one value."""

    def matches(self, value: str) -> bool:
        """Tell whether one non-empty value matches."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactly:
    """Single value matching and list of UID matching, case-sensitive. Sections C.2.2.2.1 and .2."""

    values: frozenset[str]

    def matches(self, value: str) -> bool:
        """Tell whether the value is one of those asked for."""
        return value in self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcard:
    """Wild card matching, case-sensitive: one of the patterns. Section C.2.2.2.4."""

    patterns: tuple[str, ...]

    def matches(self, value: str) -> bool:
        """Tell whether a pattern covers the whole value."""
        return any(texts.wildcard_matches(one, value) for one in self.patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numeric:
    """Single value matching of numbers: by meaning, so that ``01`` is ``1``."""

    value: Decimal

    def matches(self, value: str) -> bool:
        """Tell whether the value is the same number."""
        try:
            return Decimal(value.strip()) == self.value
        except InvalidOperation:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dates:
    """Single value and range matching of DA. Section C.2.2.2.5.1. An empty end is open."""

    low: str = ""
    high: str = ""

    def matches(self, value: str) -> bool:
        """Tell whether the day lies in the range, its ends included."""
        day = texts.normal_date(value)
        return day is not None and self.low <= day and (not self.high or day <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Single value and range matching of TM. Section C.2.2.2.5.2.

    A value cut short means its first instant. A range whose ends are in the
    wrong order matches nothing: it does not pass midnight.
    """

    low: str = ""
    high: str = ""

    def matches(self, value: str) -> bool:
        """Tell whether the time of day lies in the range, its ends included."""
        time = texts.normal_time(value)
        return time is not None and self.low <= time and (not self.high or time <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """An end of a DT range: a clock's reading, and its offset from UTC where known."""

    clock: datetime
    offset_minutes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instants:
    """Single value and range matching of DT, offsets taken into account. Section C.2.2.2.5.3.

    Where one side names no offset, the clocks' readings are compared.
    """

    low: Instant | None = None
    high: Instant | None = None

    def matches(self, value: str) -> bool:
        """Tell whether the first instant the value can mean lies in the range."""
        bounds = texts.date_time_bounds(value)
        if bounds is None:
            return False
        instant = Instant(clock=bounds[0], offset_minutes=bounds[2])
        after_low = self.low is None or _apart(self.low, instant) >= timedelta(0)
        return after_low and (self.high is None or _apart(instant, self.high) >= timedelta(0))


def _apart(first: Instant, second: Instant) -> timedelta:
    """Time from ``first`` to ``second``."""
    apart = second.clock - first.clock
    if first.offset_minutes is None or second.offset_minutes is None:
        return apart
    return apart - timedelta(minutes=second.offset_minutes - first.offset_minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """Matching of PN: no case, no accents, trailing ``^`` ignored. Sections C.2.2.2.1 and .4.

    ``groups`` are the folded patterns of the key's component groups. A key of
    one group matches any group of the entity, a key of several matches group
    by group. ``fuzzy_words``, where fuzzy semantic matching was accepted, also
    match when each of them sounds like, or covers, some word of the name.
    """

    groups: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    any_group: bool
    fuzzy_words: tuple[str, ...] = ()

    def matches(self, value: str) -> bool:
        """Tell whether the name matches literally, or fuzzily where that was accepted."""
        groups = texts.name_groups(value)
        if self.any_group:
            literal = any(_covers(self.groups[0], group) for group in groups)
        else:
            literal = all(
                not patterns or _covers(patterns, group)
                for patterns, group in zip(self.groups, groups, strict=True)
            )
        return literal or (bool(self.fuzzy_words) and self._sounds_like(value))

    def _sounds_like(self, value: str) -> bool:
        words = texts.name_words(value)
        sounds = {texts.word_sound(word) for word in words}
        return all(
            any(texts.wildcard_matches(asked, word) for word in words)
            if texts.has_wildcard(asked)
            else texts.word_sound(asked) in sounds
            for asked in self.fuzzy_words
        )


def _covers(patterns: tuple[str, ...], group: str) -> bool:
    return bool(group) and any(texts.wildcard_matches(one, group) for one in patterns)


def name_matcher(key: str, *, fuzzy: bool) -> Name | None:
    """Make the matcher of a PN key; ``None`` when it asks for nothing (universal matching)."""
    folded = texts.name_groups(key)
    asked = tuple(_name_patterns(group) for group in folded)
    filled = [patterns for patterns in asked if patterns]
    if not filled:
        return None
    words = tuple(word for word in texts.name_words(key) if word.strip("*"))
    any_group = "=" not in key.rstrip("= ")
    return Name(
        groups=(asked[0], asked[1], asked[2]),
        any_group=any_group,
        fuzzy_words=words if fuzzy else (),
    )


def _name_patterns(folded: str) -> tuple[str, ...]:
    """A pattern, and where it ends in ``^*`` the same without: trailing ``^`` are not significant."""
    if not folded.strip("*"):
        return ()
    shorter = folded
    while shorter.endswith("^*"):
        shorter = shorter[:-2].rstrip("^")
    return (folded,) if shorter in (folded, "") else (folded, shorter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemKey:
    """One key inside a sequence key's item."""

    tag: int
    vr: str
    matcher: "Matcher | Items"


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Sequence matching: one item has to match all keys. Section C.2.2.2.6."""

    keys: tuple[ItemKey, ...]

    def matches(self, value: str) -> bool:
        """Tell whether some item, of a sequence given as DICOM JSON, matches all keys."""
        return any(self.matches_item(item) for item in json_items(value))

    def matches_item(self, item: JsonItem) -> bool:
        """Tell whether one item matches all keys."""
        return all(
            matches_text(one.matcher, one.vr, json_text(item.get(f"{one.tag:08X}", {})))
            for one in self.keys
        )


def matches_text(matcher: "Matcher | Items", vr: str, text: str) -> bool:
    """Tell whether any value of an attribute's text matches; an unknown value never does."""
    if not text:
        return False
    values = (text,) if vr == "SQ" or vr in ONE_TEXT else text.split("\\")
    return any(value and matcher.matches(value) for value in values)


def json_items(text: str) -> tuple[JsonItem, ...]:
    """Read the items of a sequence kept as DICOM JSON; none where it cannot be read."""
    try:
        items = json.loads(text)
    except ValueError:
        return ()
    return tuple(one for one in items if isinstance(one, dict)) if isinstance(items, list) else ()


def json_text(element: Mapping[str, object]) -> str:
    """Turn one DICOM JSON element (PS3.18 Section F.2) into an attribute's text."""
    values = element.get("Value")
    if not isinstance(values, list):
        return ""
    if element.get("vr") == "SQ":
        return json.dumps(values, ensure_ascii=False)
    return "\\".join(_json_value(one) for one in values)


def _json_value(value: object) -> str:
    if isinstance(value, dict):  # a person name and its groups
        groups = (value.get(one) or "" for one in ("Alphabetic", "Ideographic", "Phonetic"))
        return "=".join(str(one) for one in groups).rstrip("=")
    return "" if value is None else str(value)
