"""Which workitems match a C-FIND's keys, or those of a filtered subscription. PS3.4 Sections CC.2.8.3 and CC.2.3.3.1.

Owns what keys mean for a workitem's Data Set; how values match is ``find``'s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.core.text import offset_minutes
from pacs.core.workitem_ports import Narrow
from pacs.services.find.answers import character_sets_for
from pacs.services.find.identifiers import PRIVATE_GROUP, SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET
from pacs.services.find.keys import (
    Rules,
    element_of,
    element_text,
    items_matcher,
    matcher_of,
    refused,
)
from pacs.services.find.matching import Exactly, Instants, ItemKey, Items, Matcher, matches_text
from pacs.services.workitems.encoding import (
    CODE_COLUMNS,
    CODE_VALUE,
    character_sets,
    clock_text,
    tag_of,
    texts_of,
)

_NEVER_KEYS: Final = frozenset({SPECIFIC_CHARACTER_SET, TIMEZONE_OFFSET})
_UNKNOWN_KEYS: Final = frozenset({tag_of("TransactionUID")})
_COLUMNS: Final = {
    tag_of("PatientID"): "patient_id",
    tag_of("ScheduledProcedureStepPriority"): "priority",
    tag_of("InputReadinessState"): "readiness",
    tag_of("WorklistLabel"): "worklist",
    tag_of("ProcedureStepLabel"): "label",
    tag_of("ProcedureStepState"): "state",
    tag_of("SOPInstanceUID"): "uid",
}
_CODES: Final = {tag_of(keyword): name for name, keyword in CODE_COLUMNS.items()}
_START: Final = tag_of("ScheduledProcedureStepStartDateTime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """One attribute that is asked to be returned; ``item`` names those of a sequence's items."""

    tag: int
    vr: str
    item: Dataset | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """A question understood. ``all_known`` is false where some key exists in no workitem."""

    matched: tuple[ItemKey, ...]
    returned: tuple[Returned, ...]
    character_sets: tuple[str, ...] = ()
    all_known: bool = True

    def narrow(self) -> Sequence[Narrow]:
        """What rows must have to be worth a look."""
        return tuple(
            found for key in self.matched if (found := _narrow(key.tag, key.matcher)) is not None
        )

    def match(self, data_set: Dataset) -> bool:
        """Tell whether a workitem matches every key."""
        return all(_matches(data_set, key) for key in self.matched)

    def answer(self, data_set: Dataset) -> Dataset:
        """Make the identifier that says what is asked of a workitem."""
        made = Dataset()
        for one in self.returned:
            made[one.tag] = _returned(data_set, one)
        texts = list(texts_of(made))
        own = self.character_sets or character_sets(data_set)
        charset = character_sets_for(texts, own)
        if self.character_sets or not all(map(str.isascii, texts)):
            made.SpecificCharacterSet = list(charset)
        return made


def parse(identifier: Dataset, *, max_uids: int) -> Keys:
    """Understand a question. Raises ``IdentifierInvalid`` naming the offending element."""
    offset = None
    if TIMEZONE_OFFSET in identifier:
        offset = offset_minutes(element_text(element_of(identifier, TIMEZONE_OFFSET)))
        if offset is None:
            raise refused(TIMEZONE_OFFSET)
    rules = Rules(fuzzy=False, offset_minutes=offset, max_uids=max_uids)
    matched, returned, all_known = [], [], True
    for tag in sorted(map(int, identifier.keys())):
        if not tag & 0xFFFF or tag in _NEVER_KEYS or tag >> 16 == PRIVATE_GROUP:
            continue
        if tag in _UNKNOWN_KEYS or tag >> 16 & 1:
            all_known = False
            continue
        element = element_of(identifier, tag)
        matcher, item = _key(element, rules)
        returned.append(Returned(tag=tag, vr=element.VR, item=item))
        if matcher is not None:
            matched.append(ItemKey(tag=tag, vr=element.VR, matcher=matcher))
    return Keys(
        matched=tuple(matched),
        returned=tuple(returned),
        character_sets=character_sets(identifier),
        all_known=all_known,
    )


def _key(element: DataElement, rules: Rules) -> tuple[Matcher | Items | None, Dataset | None]:
    if element.VR != "SQ":
        return matcher_of(element.VR, element_text(element), int(element.tag), rules), None
    items = list(element.value or ())
    return items_matcher(element, rules), items[0] if items and len(items[0]) else None


def _narrow(tag: int, matcher: Matcher | Items) -> Narrow | None:
    if isinstance(matcher, Items) and tag in _CODES:
        values = [key.matcher for key in matcher.keys if key.tag == CODE_VALUE]
        if values and isinstance(values[0], Exactly):
            return Narrow(column=_CODES[tag], values=values[0].values)
    if isinstance(matcher, Exactly) and tag in _COLUMNS:
        return Narrow(column=_COLUMNS[tag], values=matcher.values)
    if isinstance(matcher, Instants) and tag == _START:
        ends = (matcher.low, matcher.high)
        if not any(end is not None and end.offset_minutes is not None for end in ends):
            low, high = ("" if end is None else clock_text(end.clock) for end in ends)
            return Narrow(column="start", low=low, high=high)
    return None


def _matches(data_set: Dataset, key: ItemKey) -> bool:
    if key.tag not in data_set:
        return False
    element = element_of(data_set, key.tag)
    if isinstance(key.matcher, Items):
        items = element.value if element.VR == "SQ" else None
        keys = key.matcher.keys
        return any(all(_matches(item, one) for one in keys) for item in items or ())
    if element.VR == "SQ":
        return False
    return matches_text(key.matcher, element.VR, element_text(element))


def _returned(data_set: Dataset, one: Returned) -> DataElement:
    if one.tag not in data_set:
        return DataElement(one.tag, one.vr, [] if one.vr == "SQ" else None)
    element = element_of(data_set, one.tag)
    if element.VR != "SQ" or one.item is None:
        return element
    names = sorted(int(tag) for tag in one.item.keys())  # noqa: SIM118 - a Dataset iterates elements
    return DataElement(one.tag, "SQ", [_part(item, names) for item in element.value or ()])


def _part(item: Dataset, names: Sequence[int]) -> Dataset:
    made = Dataset()
    for tag in _held(item, names):
        made[tag] = element_of(item, tag)
    return made


def _held(item: Dataset, names: Sequence[int]) -> Iterator[int]:
    return (tag for tag in names if tag in item and tag & 0xFFFF)
