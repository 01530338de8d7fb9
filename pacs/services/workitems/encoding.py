"""A workitem's Data Set between bytes and pydicom: checked whole on its way in, read lazily on its way out.

Owns the character set a workitem is kept in and the columns it is narrowed by.
What is said in columns (state, SOP Class and Instance) is not kept in the bytes.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from pacs.core.errors import IdentifierInvalid
from pacs.core.text import date_time_bounds
from pacs.core.workitem_errors import AttributeNotAllowed, AttributeValueInvalid, WorkitemTooLarge
from pacs.core.workitem_ports import Columns, WorkitemRow
from pacs.core.workitems import UPS_PUSH
from pacs.services.find.answers import character_sets_for
from pacs.services.find.keys import element_of, element_text
from pacs.services.outbox import event_information

SPECIFIC_CHARACTER_SET: Final = 0x00080005
CODE_VALUE: Final = 0x00080100
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_FIRST_GROUP, _LAST_GROUP = 0x0008, 0x7FDF
"""Below are commands, file meta information and directories; above are pixels and padding."""
_TEXT_COLUMNS = {
    "patient_id": "PatientID",
    "priority": "ScheduledProcedureStepPriority",
    "readiness": "InputReadinessState",
    "worklist": "WorklistLabel",
    "label": "ProcedureStepLabel",
}
CODE_COLUMNS: Final = {
    "code": "ScheduledWorkitemCodeSequence",
    "station": "ScheduledStationNameCodeSequence",
}


def tag_of(keyword: str) -> int:
    """Give the tag of a keyword of the dictionary."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no attribute")
    return tag


def now_text(now: datetime) -> str:
    """Write a moment as a DT with its offset."""
    return now.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def copied(data_set: Dataset) -> Dataset:
    """Decode a Data Set somebody sent, every element of it; what it holds is shared.

    Raises ``AttributeNotAllowed`` or ``AttributeValueInvalid``.
    """
    made = Dataset()
    foreign = tuple(
        tag
        for tag in map(int, data_set.keys())
        if not _FIRST_GROUP <= tag >> 16 <= _LAST_GROUP and tag & 0xFFFF
    )
    if foreign:
        raise AttributeNotAllowed(attributes=foreign)
    for tag in sorted(map(int, data_set.keys())):
        if tag & 0xFFFF:  # not a group length
            element = _decoded(data_set, tag, tag)
            made[element.tag] = element
    return made


def _decoded(data_set: Dataset, tag: int, outermost: int) -> DataElement:
    try:
        element = element_of(data_set, tag)
        if element.VR == "SQ":
            for item in element.value or ():
                for inner in sorted(map(int, item.keys())):
                    _decoded(item, inner, outermost)
    except (IdentifierInvalid, RecursionError) as error:
        raise AttributeValueInvalid(attributes=(outermost,)) from error
    return element


def encoded(data_set: Dataset, *, most_bytes: int) -> bytes:
    """Write a Data Set as it is kept. Raises ``AttributeValueInvalid`` or ``WorkitemTooLarge``."""
    try:
        made = event_information(data_set)
    except Exception as failure:  # noqa: BLE001 - pydicom raises whatever the values provoke
        raise AttributeValueInvalid(type(failure).__name__) from None
    if len(made) > most_bytes:
        raise WorkitemTooLarge(f"{len(made)} bytes")
    return made


def decoded(data_set: bytes) -> Dataset:
    """Read what ``encoded`` has written; sequences only where they are looked into."""
    return read_dataset(BytesIO(data_set), is_implicit_VR=False, is_little_endian=True)


def whole(row: WorkitemRow) -> Dataset:
    """Give a workitem's Data Set with what is kept in columns. Without its Transaction UID."""
    data_set = decoded(row.data_set)
    data_set.SOPClassUID = UPS_PUSH
    data_set.SOPInstanceUID = row.uid
    data_set.ProcedureStepState = row.state.value
    return data_set


# --- character sets -------------------------------------------------------------------


def settle_character_set(data_set: Dataset, *further: Dataset) -> None:
    """Say a character set that can write every text; that of the first Data Set where it can.

    ``further`` are Data Sets whose texts came into ``data_set``.
    """
    asked = _character_sets(data_set) or next(filter(None, map(_character_sets, further)), ())
    texts = list(texts_of(data_set))
    if all(map(str.isascii, texts)):
        return
    data_set.SpecificCharacterSet = list(character_sets_for(texts, asked))


def texts_of(data_set: Dataset) -> Iterator[str]:
    """Give every text whose writing depends on the character set."""
    for tag in sorted(map(int, data_set.keys())):
        element = element_of(data_set, tag)
        if element.VR == "SQ":
            for item in element.value or ():
                yield from texts_of(item)
        elif element.VR in _TEXT_VRS and element.value:
            yield element_text(element)


def _character_sets(data_set: Dataset) -> tuple[str, ...]:
    if SPECIFIC_CHARACTER_SET not in data_set:
        return ()
    text = element_text(element_of(data_set, SPECIFIC_CHARACTER_SET))
    return tuple(text.split("\\")) if text else ()


def character_sets(data_set: Dataset) -> tuple[str, ...]:
    """Give the character sets a Data Set names; none where it names none."""
    return _character_sets(data_set)


# --- columns --------------------------------------------------------------------------


def columns_of(data_set: Dataset) -> Columns:
    """Give what a workitem can be narrowed by; ``None`` where only a look inside tells."""
    columns: dict[str, str | None] = {
        name: single(data_set, tag_of(keyword)) for name, keyword in _TEXT_COLUMNS.items()
    }
    for name, keyword in CODE_COLUMNS.items():
        items = items_of(data_set, keyword)
        columns[name] = "" if not items else None
        if len(items) == 1:
            columns[name] = single(items[0], CODE_VALUE)
    columns["start"] = _clock(data_set)
    return columns


def single(data_set: Dataset, tag: int) -> str | None:
    """Give a text of one value, empty where there is none; ``None`` for several."""
    if tag not in data_set:
        return ""
    text = element_text(element_of(data_set, tag))
    return None if "\\" in text else text


def items_of(data_set: Dataset, keyword: str) -> Sequence[Dataset]:
    """Give the items of a sequence, none where it is not there or is no sequence."""
    tag = tag_of(keyword)
    if tag not in data_set:
        return ()
    element = element_of(data_set, tag)
    return tuple(element.value or ()) if element.VR == "SQ" else ()


def stations_of(data_set: Dataset) -> frozenset[str]:
    """Give the codes of the stations that a workitem is for. PS3.4 Table CC.2.5-3."""
    items = items_of(data_set, "ScheduledStationNameCodeSequence")
    return frozenset(filter(None, (single(one, CODE_VALUE) for one in items)))


def _clock(data_set: Dataset) -> str | None:
    bounds = date_time_bounds(single(data_set, tag_of("ScheduledProcedureStepStartDateTime")) or "")
    if bounds is None or bounds[2] is not None:
        return None
    return clock_text(bounds[0])


def clock_text(clock: datetime) -> str:
    """Write a clock's reading as it stands in the column it is narrowed by: it compares as text."""
    return clock.replace(tzinfo=None).isoformat(timespec="microseconds")
