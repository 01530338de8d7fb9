"""The keys of a route made into matchers: those of C-FIND, PS3.4 Section C.2.2.2.

Owns which attributes a route may ask for and where their values come from. A
key with ``*`` or no value asks that there is a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.core.attributes import BY_TAG, Level
from pacs.core.errors import EntryConflicts, IdentifierInvalid
from pacs.core.routing import RouteKey
from pacs.services.find.identifiers import Key, Source
from pacs.services.find.keys import Rules, matcher_of
from pacs.services.find.matching import ItemKey, Items, Matcher, matches_text

_IN_STUDY = frozenset({"ModalitiesInStudy", "SOPClassesInStudy"})
_NEVER = frozenset({"QueryRetrieveLevel", "RetrieveAETitle", "InstanceAvailability"})
_NOT_MATCHED = frozenset({"AT", "OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_MAX_VALUES = 10_000


class Present:
    """Matches any value there is."""

    def matches(self, value: str) -> bool:
        """Tell that there is one."""
        return bool(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition on an attribute. ``said`` is how the admin wrote it, and names its meaning."""

    said: str
    key: Key
    matcher: Matcher | Items = field(repr=False)
    unless: bool

    def matches(self, text: str) -> bool:
        """Tell whether an attribute's text matches; an unknown one never does."""
        return matches_text(self.matcher, self.key.vr, text)

    @property
    def decided_by_rows(self) -> bool:
        """Tell whether the index holds the very value of each instance."""
        own = self.key.source is Source.INDEX and self.key.level is Level.IMAGE
        return own or self.key.source is Source.COMPUTED


def conditions_of(keys: Sequence[RouteKey]) -> tuple[Condition, ...]:
    """Make the conditions of a route's keys. Raises ``EntryConflicts`` naming the key.

    Keys within one sequence ask for one item that matches them all, as in
    Section C.2.2.2.6; each ``unless`` stands alone.
    """
    groups: dict[object, list[RouteKey]] = {}
    for at, one in enumerate(keys):
        sequence, dot, _ = one.path.partition(".")
        groups.setdefault(sequence if dot and not one.unless else at, []).append(one)
    return tuple(_condition(group) for group in groups.values())


def _condition(group: list[RouteKey]) -> Condition:
    first = group[0]
    keyword = first.path.partition(".")[0]
    tag, vr = element_of_keyword(keyword)
    asked = [(one.path.split(".")[1:], one.value) for one in group]
    return Condition(
        said=" and ".join(f"{one.path}={one.value}" for one in group),
        key=_key(keyword, tag, vr),
        matcher=_matcher(keyword, tag, vr, asked),
        unless=first.unless,
    )


def element_of_keyword(keyword: str) -> tuple[int, str]:
    """Tell tag and VR of a keyword. Raises ``EntryConflicts``."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise EntryConflicts(f"{keyword!r} is not a DICOM keyword")
    vr = BY_TAG[tag].vr if tag in BY_TAG else dictionary_VR(tag)
    return tag, vr.partition(" or ")[0]


def _key(keyword: str, tag: int, vr: str) -> Key:
    if tag >> 16 <= 2 or keyword in _NEVER:
        raise EntryConflicts(f"{keyword} is no attribute of an instance that could be matched")
    if keyword.endswith(("RelatedInstances", "RelatedSeries", "RelatedStudies")):
        raise EntryConflicts(f"{keyword} cannot be matched: it changes while instances arrive")
    if tag in BY_TAG:
        return Key(tag=tag, vr=vr, keyword=keyword, source=Source.INDEX, level=BY_TAG[tag].level)
    source = Source.COMPUTED if keyword in _IN_STUDY else Source.HEADER
    return Key(tag=tag, vr=vr, keyword=keyword, source=source, level=Level.IMAGE)


def _matcher(path: str, tag: int, vr: str, asked: list[tuple[list[str], str]]) -> Matcher | Items:
    within = [one for one in asked if one[0]]
    if vr in _NOT_MATCHED:
        raise EntryConflicts(f"{path} cannot be matched: its values are {vr}")
    if not within:
        return _value_matcher(path, tag, vr, asked[-1][1])
    if vr != "SQ":
        raise EntryConflicts(f"{path} is no sequence, nothing lies within it")
    return _items(path, within)


def _items(path: str, asked: list[tuple[list[str], str]]) -> Items:
    below: dict[str, list[tuple[list[str], str]]] = {}
    for (keyword, *rest), value in asked:
        below.setdefault(keyword, []).append((rest, value))
    keys = []
    for keyword, values in below.items():
        tag, vr = element_of_keyword(keyword)
        deeper = [one for one in values if one[0]]
        leaves = [[one] for one in values if not one[0]]
        for some in ([deeper] if deeper else []) + leaves:
            matcher = _matcher(f"{path}.{keyword}", tag, vr, some)
            keys.append(ItemKey(tag=tag, vr=vr, matcher=matcher))
    return Items(keys=tuple(keys))


def _value_matcher(path: str, tag: int, vr: str, value: str) -> Matcher | Items:
    text = value.strip(" ")
    if text in ("", "*"):
        return Present()
    if vr == "SQ":
        raise EntryConflicts(f"{path} is a sequence: name an attribute within it, {path}.KEYWORD")
    try:
        rules = Rules(fuzzy=False, offset_minutes=None, max_uids=_MAX_VALUES)
        return matcher_of(vr, text, tag, rules) or Present()
    except IdentifierInvalid as error:
        raise EntryConflicts(
            f"{path} cannot be matched with {value!r}: its values are {vr}"
        ) from error
