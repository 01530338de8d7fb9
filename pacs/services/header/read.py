"""The header of one Data Set: what the index takes from it, or all of it without bulk.

It decides which Data Sets have no meaning for an archive, and why. PS3.3
Section C.12.1 (SOP Common) and PS3.4 Section B.4.1.
"""

import hashlib
from collections.abc import Sequence
from typing import BinaryIO, Final

from pydicom.dataset import Dataset

from config.settings import Parsing
from pacs.core.attributes import BY_KEYWORD, BY_TAG
from pacs.core.errors import InstanceIncomplete, InstanceUnreadable
from pacs.core.identifiers import (
    SeriesInstanceUID,
    SOPClassUID,
    SOPInstanceUID,
    StudyInstanceUID,
    is_uid,
)
from pacs.core.records import Header
from pacs.services.header.dataset import (
    SPECIFIC_CHARACTER_SET,
    build,
    characters_of,
    sequence_json,
)
from pacs.services.header.encoding import Encoding, encodings_of, is_deflated
from pacs.services.header.heads import Heads
from pacs.services.header.inflate import inflated
from pacs.services.header.non_patient import NON_PATIENT_SOP_CLASSES, synthetic_uid
from pacs.services.header.text import CharacterSet
from pacs.services.header.values import is_legible, text_of
from pacs.services.header.walker import Item, Raw, Walker, Wish
from pacs.services.header.window import Window

_INDEXED: Final = Wish(tags=frozenset(BY_TAG) | {SPECIFIC_CHARACTER_SET}, lenient=False)
_EVERYTHING: Final = Wish(tags=None, lenient=True)
_PREAMBLE_BYTES: Final = 128
_PART10: Final = b"DICM\x02\x00"  # the prefix and group 0002: "DICM" alone may be a value
_IDENTIFIERS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_UPPER: Final = ("StudyInstanceUID", "SeriesInstanceUID")
_LOOKED_UP: Final = ("PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyDate", "Modality")
_LONGEST_LOOKED_UP: Final = 256  # characters: a row of an index of PostgreSQL holds 2704 bytes


def read_header(
    data_set: BinaryIO,
    size_bytes: int,
    transfer_syntax_uid: str,
    parsing: Parsing,
    *,
    issuer_of_patient_id: str = "",
) -> Header:
    """Read what the index takes, from the file's position on, over ``size_bytes``.

    The structure is walked to the last byte, values are skipped unread. Of a
    deflated Data Set, ``parsing.max_header_bytes`` are inflated; what lies
    behind them is not looked at.

    Raises
    ------
    InstanceUnreadable
        Empty, no Data Set, or something else than one (a Part 10 file).
    InstanceTruncated
        The last element, item or delimiter is not there, or not whole.
    InstanceTooDeep
        A bound of ``parsing`` is exceeded.
    InstanceIncomplete
        A UID without which it cannot be indexed is missing or malformed.
    """
    held = _walked(
        _window(data_set, size_bytes, transfer_syntax_uid, parsing),
        transfer_syntax_uid,
        parsing,
        _INDEXED,
    )
    values = _values(held)
    for keyword in _LOOKED_UP:
        if len(values.get(keyword, "")) > _LONGEST_LOOKED_UP:
            values[keyword] = _shortened(values[keyword])
    _identify(values)
    return Header(
        sop_class_uid=SOPClassUID(values["SOPClassUID"]),
        sop_instance_uid=SOPInstanceUID(values["SOPInstanceUID"]),
        study_instance_uid=StudyInstanceUID(values["StudyInstanceUID"]),
        series_instance_uid=SeriesInstanceUID(values["SeriesInstanceUID"]),
        patient_id=values.get("PatientID", "").strip(),
        issuer_of_patient_id=values.get("IssuerOfPatientID", issuer_of_patient_id),
        values=values,
    )


def read_dataset(
    data_set: BinaryIO, size_bytes: int, transfer_syntax_uid: str, parsing: Parsing
) -> Dataset:
    """Read all elements but pixel data and values above ``parsing.max_value_bytes``.

    Values that do not fit their VR are left out, and so is what exceeds
    ``parsing.max_header_bytes``. Raises as ``read_header``, but for the UIDs.
    """
    window = _window(data_set, size_bytes, transfer_syntax_uid, parsing)
    return build(_walked(window, transfer_syntax_uid, parsing, _EVERYTHING))


def _window(
    data_set: BinaryIO, size_bytes: int, transfer_syntax_uid: str, parsing: Parsing
) -> Window:
    if size_bytes <= 0:
        raise InstanceUnreadable("the Data Set is empty")
    if is_deflated(transfer_syntax_uid):
        return inflated(data_set, size_bytes, max_bytes=parsing.max_header_bytes)
    return Window(data_set, size_bytes)


def _walked(window: Window, transfer_syntax_uid: str, parsing: Parsing, wish: Wish) -> Item:
    start = window.value(0, _PREAMBLE_BYTES + len(_PART10))
    if start[_PREAMBLE_BYTES:] == _PART10:
        raise InstanceUnreadable("a whole Part 10 file stands where its Data Set should")
    encoding = _detected(window, encodings_of(transfer_syntax_uid))
    return Walker(window, encoding, parsing, wish).walk()


def _detected(window: Window, candidates: Sequence[Encoding]) -> Encoding:
    """Choose the first encoding in which the first element makes sense."""
    for one in candidates:
        if Heads(window, one).plausible_first(0, window.size_bytes):
            return one
    return candidates[0]


def _values(held: Item) -> dict[str, str]:
    characters = characters_of(held)
    values: dict[str, str] = {}
    for tag, raw in held.items():
        if tag in BY_TAG:
            text = _text(tag, raw, characters)
            if text:
                values[BY_TAG[tag].keyword] = text
    return values


def _text(tag: int, raw: Raw, characters: CharacterSet) -> str:
    vr, little, value = raw
    expected = BY_TAG[tag].vr
    if isinstance(value, list):
        return sequence_json(value, characters) if expected == "SQ" else ""
    if expected == "SQ":
        return ""
    return text_of(vr if is_legible(vr) else expected, value, characters, little=little)


def _shortened(text: str) -> str:
    """Cut a value no VR allows (PS3.5 Table 6.2-1), so that two that differ still do."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{text[: _LONGEST_LOOKED_UP - len(digest) - 1]}~{digest}"


def _identify(values: dict[str, str]) -> None:
    """Refuse what has no usable UIDs; give non-patient objects synthetic upper ones."""
    sop_class_uid = values.get("SOPClassUID", "")
    orphan = not any(keyword in values for keyword in _UPPER)
    if orphan and sop_class_uid in NON_PATIENT_SOP_CLASSES and "SOPInstanceUID" in values:
        values["StudyInstanceUID"] = synthetic_uid("study", sop_class_uid, values["SOPInstanceUID"])
        values["SeriesInstanceUID"] = synthetic_uid(
            "series", sop_class_uid, values["SOPInstanceUID"]
        )
    offending = tuple(
        BY_KEYWORD[one].tag for one in _IDENTIFIERS if not is_uid(values.get(one, ""))
    )
    if offending:
        raise InstanceIncomplete("a UID is missing or malformed", offending_elements=offending)
