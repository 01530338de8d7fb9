"""Held raw values to a pydicom Data Set, and its sequences to DICOM JSON (PS3.18 Annex F).

Every value is converted here and now, so that using the Data Set can neither
fail nor warn about what a peer wrote. Without recursion, as the walk.
"""

import json
import logging
from typing import Final

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.services.header.heads import vr_of
from pacs.services.header.text import UNDECLARED, CharacterSet, character_set
from pacs.services.header.values import value_of
from pacs.services.header.walker import Item

_LOG = logging.getLogger("pacs.store")

SPECIFIC_CHARACTER_SET: Final = 0x0008_0005
_PIXEL_REPRESENTATION: Final = 0x0028_0103

_Pending = list[tuple[Item, Dataset, CharacterSet]]


def characters_of(item: Item, inherited: CharacterSet = UNDECLARED) -> CharacterSet:
    """Tell the character set of a Data Set or item; items inherit theirs (PS3.5 6.1.2.5.4)."""
    value = item.get(SPECIFIC_CHARACTER_SET, ("", True, b""))[2]
    return character_set(value) if isinstance(value, bytes) and value else inherited


def build(item: Item, inherited: CharacterSet = UNDECLARED) -> Dataset:
    """Build the Data Set of ``item`` and everything below it."""
    top = Dataset()
    signed = item.get(_PIXEL_REPRESENTATION, ("", True, b""))[2] in (b"\1\0", b"\0\1")
    pending: _Pending = [(item, top, characters_of(item, inherited))]
    while pending:
        source, target, characters = pending.pop()
        for tag, (vr, little, value) in sorted(source.items()):
            if isinstance(value, bytes):
                known = _meant(tag, vr, signed=signed)
                converted = value_of(known, value, characters, little=little)
                _add(target, tag, known, converted)
            else:
                _add(target, tag, "SQ", _opened(value, characters, pending))
    return top


def sequence_json(items: list[Item], inherited: CharacterSet) -> str:
    """Write a sequence as a JSON array of its items; empty when none says anything.

    What JSON has no form for (a name of several empty values, say) is left out.
    """
    built = [build(one, inherited) for one in items]
    try:
        written = [_written(one) for one in built]
        return json.dumps(written, ensure_ascii=False) if any(written) else ""
    except RecursionError:  # deeper than any sequence that can be matched
        return ""


def _written(item: Dataset) -> dict[str, object]:
    written: dict[str, object] = {}
    for element in item:
        try:
            form = element.to_json_dict(None, bulk_data_threshold=1 << 40)
        except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the values provoke
            # The file has it as it came; only the index does not.
            _LOG.info("element-not-indexed tag=%08X why=%s", element.tag, type(failure).__name__)
            continue
        written[f"{element.tag:08X}"] = form
    return written


def _meant(tag: int, vr: str, *, signed: bool) -> str:
    if vr == "UN":
        vr = vr_of(tag)
    if signed and vr == "US" and dictionary_has_tag(tag) and "SS" in dictionary_VR(tag):
        return "SS"  # PS3.5 Annex A.1: "US or SS" follows Pixel Representation
    return vr


def _opened(items: list[Item], characters: CharacterSet, pending: _Pending) -> Sequence:
    targets = [Dataset() for _ in items]
    for one, target in zip(items, targets, strict=True):
        pending.append((one, target, characters_of(one, characters)))
    return Sequence(targets)


def _add(target: Dataset, tag: int, vr: str, value: object) -> None:
    if tag & 0xFFFF == 0:
        return  # group lengths are retired and would be wrong in any other encoding
    if vr == "SQ" and not isinstance(value, Sequence):
        return
    element = DataElement(tag, vr, value, already_converted=True, validation_mode=IGNORE)
    target[element.tag] = element
