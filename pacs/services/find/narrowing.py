"""What of a query the index can decide: keys become conditions. PS3.4 Section C.2.2.2.

The index narrows, matching decides: a condition may let more through than its
key. ``Narrowed.exact`` says that it lets nothing more through.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from pacs.core.attributes import BY_KEYWORD, Level
from pacs.core.conditions import (
    AnyOf,
    Between,
    Condition,
    Like,
    ModalityInStudy,
    Named,
    Received,
    RegisteredBy,
    SOPClassInStudy,
    StudyMoment,
)
from pacs.core.text import has_wildcard, word_sound
from pacs.services.find.identifiers import Combined, Key, Query, Source
from pacs.services.find.matching import (
    Dates,
    Exactly,
    Instant,
    Instants,
    Items,
    Matcher,
    Name,
    Times,
    Wildcard,
)

ADJUSTED_PAIRS = tuple(
    (f"{name}Date", f"{name}Time")
    for name in ("Study", "Series", "Content", "Acquisition", "PerformedProcedureStepStart")
)
"""Dates and times that timezone adjustment moves together. A birth date is no instant."""
_ADJUSTED = frozenset(keyword for pair in ADJUSTED_PAIRS for keyword in pair)
_UTC = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """The conditions of a query; ``exact`` and ``exact_below`` where they decide its keys alone."""

    conditions: tuple[Condition, ...]
    exact: bool
    exact_below: bool


def narrow(query: Query) -> Narrowed:
    """Turn the keys of a query into conditions for the index."""
    conditions: list[Condition] = []
    exact = exact_below = True
    for pair in query.combined:
        conditions.extend(_combined_condition(pair, query))
    in_pair = {one.tag for pair in query.combined for one in (pair.date, pair.time)}
    for key in query.keys:
        if key.matcher is None:
            continue
        found = () if key.tag in in_pair else tuple(_conditions(key, query))
        conditions.extend(found)
        decided = bool(found) and _decides(key, query)
        exact = exact and decided
        exact_below = exact_below and (decided or key.level.depth <= query.level.depth)
    return Narrowed(conditions=tuple(conditions), exact=exact, exact_below=exact_below)


def _decides(key: Key, query: Query) -> bool:
    """Tell whether the conditions of a key let nothing else through."""
    match key.matcher:
        case Exactly() | Wildcard():
            multiple = key.keyword in BY_KEYWORD and BY_KEYWORD[key.keyword].multiple
            return not multiple and key.source is not Source.HEADER
        case Name(fuzzy_words=words):
            return key.keyword == "PatientName" and not words
        case Dates():
            return query.offset_minutes is None
        case Instants():
            return True
        case _:
            return False


def _conditions(key: Key, query: Query) -> Iterator[Condition]:
    matcher = key.matcher
    if matcher is None or isinstance(matcher, Items):
        return
    if key.source is Source.INDEX:
        yield from _index_conditions(key, matcher, query)
    elif key.source is Source.COMPUTED:
        yield from _computed_conditions(key, matcher)
    elif key.source is Source.ARCHIVE:
        yield from _archive_conditions(key, matcher, query.level)


def _index_conditions(key: Key, matcher: Matcher, query: Query) -> Iterator[Condition]:
    attribute = BY_KEYWORD[key.keyword]
    match matcher:
        case Exactly(values=values):
            yield AnyOf(attribute=attribute, values=tuple(sorted(values)))
        case Wildcard(patterns=(pattern,)):
            yield Like(attribute=attribute, pattern=pattern)
        case Name(groups=groups, any_group=any_group, fuzzy_words=words):
            yield (
                Named(
                    attribute=attribute,
                    groups=groups,
                    any_group=any_group,
                    sounds=tuple(word_sound(one) for one in words if not has_wildcard(one)),
                )
                if _can_narrow(matcher)
                else Like(attribute=attribute, pattern="*")
            )
        case Dates(low=low, high=high):
            days = 1 if query.offset_minutes is not None and key.keyword in _ADJUSTED else 0
            yield Between(attribute=attribute, low=_moved(low, -days), high=_moved(high, days))
        case Times(low=low, high=high):
            if query.offset_minutes is None:
                yield Between(attribute=attribute, low=low, high=high)


def _can_narrow(matcher: Name) -> bool:
    """Fuzzy words that are all patterns have no sound the index could look up."""
    return not matcher.fuzzy_words or any(not has_wildcard(one) for one in matcher.fuzzy_words)


def _moved(day: str, days: int) -> str:
    """Move ``YYYYMMDD`` by some days; the ends of the calendar stay."""
    if not day or not days:
        return day
    try:
        moved = date(int(day[:4]), int(day[4:6]), int(day[6:8])) + timedelta(days=days)
    except OverflowError:
        return day
    return moved.strftime("%Y%m%d").zfill(8)


def _combined_condition(pair: Combined, query: Query) -> Iterator[Condition]:
    days = 0 if query.offset_minutes is None else 1
    low, high = _moved(pair.low[:8], -days), _moved(pair.high[:8], days)
    if pair.date.keyword == "StudyDate":
        if days:
            yield StudyMoment(low=low, high=high and high + "235959.999999")
        else:
            yield StudyMoment(low=pair.low, high=pair.high)
    elif pair.date.source is Source.INDEX:
        yield Between(attribute=BY_KEYWORD[pair.date.keyword], low=low, high=high)


def _computed_conditions(key: Key, matcher: Matcher) -> Iterator[Condition]:
    if key.keyword == "ModalitiesInStudy":
        if isinstance(matcher, Exactly):
            yield ModalityInStudy(values=tuple(sorted(matcher.values)))
        elif isinstance(matcher, Wildcard):
            yield ModalityInStudy(patterns=matcher.patterns)
    elif key.keyword == "SOPClassesInStudy" and isinstance(matcher, Exactly):
        yield SOPClassInStudy(values=tuple(sorted(matcher.values)))


def _archive_conditions(key: Key, matcher: Matcher, level: Level) -> Iterator[Condition]:
    if key.keyword == "Registrant":
        if isinstance(matcher, Exactly) and len(matcher.values) == 1:
            yield RegisteredBy(level=level, pattern=next(iter(matcher.values)))
        elif isinstance(matcher, Wildcard) and len(matcher.patterns) == 1:
            yield RegisteredBy(level=level, pattern=matcher.patterns[0])
    elif key.keyword == "ReceivedDateTime" and isinstance(matcher, Instants):
        low, high = _utc(matcher.low), _utc(matcher.high)
        yield Received(level=level, low_utc=low, high_utc=high)


def _utc(end: Instant | None) -> str:
    """Say an end of a range in UTC; one without an offset is UTC, as the archive's times are."""
    if end is None:
        return ""
    try:
        clock = end.clock - timedelta(minutes=end.offset_minutes or 0)
    except OverflowError:
        clock = end.clock
    return clock.strftime(_UTC).rjust(27, "0")
