"""What a C-MOVE or C-GET identifier asks for. PS3.4 Sections C.4.2.2.1, C.4.3.2.1.

Only unique keys select in a retrieve. Everything that is not a plain value
where one is needed is refused with the tag at fault.
"""

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs.core.attributes import UNIQUE_KEYS, Level
from pacs.core.errors import IdentifierInvalid
from pacs.core.identifiers import is_uid
from pacs.core.records import Selection

_LEVEL_TAG = 0x00080052
_ISSUER = "IssuerOfPatientID"


def selection_of(
    identifier: Dataset | None, *, patient_root: bool, relational: bool, max_uids: int
) -> Selection:
    """Read a retrieve identifier. Raises ``IdentifierInvalid`` with Offending Element."""
    if identifier is None:
        raise IdentifierInvalid("the request came without an identifier")
    level = _level(identifier, patient_root=patient_root)
    keys: dict[Level, tuple[str, ...]] = {}
    for one in Level:
        if one.depth > level.depth or (one is Level.PATIENT and not patient_root):
            continue
        values = _values(identifier, UNIQUE_KEYS[one])
        needed = one is level or not relational
        if values or needed:
            keys[one] = _checked(values, one, asked=one is level, max_uids=max_uids)
    if Level.PATIENT not in keys and not patient_root:
        # The Study Root model has no PATIENT level; its attributes may narrow a study.
        patient = _values(identifier, UNIQUE_KEYS[Level.PATIENT])
        if patient and not _is_wild(patient[0]):
            keys[Level.PATIENT] = patient[:1]
    issuer = _values(identifier, _ISSUER)
    return Selection(
        level=level,
        patient_id=keys[Level.PATIENT][0] if Level.PATIENT in keys else None,
        issuer_of_patient_id=issuer[0] if issuer else None,
        study_instance_uids=keys.get(Level.STUDY, ()),
        series_instance_uids=keys.get(Level.SERIES, ()),
        sop_instance_uids=keys.get(Level.IMAGE, ()),
    )


def _level(identifier: Dataset, *, patient_root: bool) -> Level:
    values = _values(identifier, "QueryRetrieveLevel")
    try:
        level = Level(values[0]) if len(values) == 1 else None
    except ValueError:
        level = None
    if level is None or (level is Level.PATIENT and not patient_root):
        raise IdentifierInvalid(
            "no such Query/Retrieve Level in this model", offending_elements=(_LEVEL_TAG,)
        )
    return level


def _values(identifier: Dataset, keyword: str) -> tuple[str, ...]:
    """The non-empty values of an element as text, whatever was sent there."""
    if keyword not in identifier:
        return ()
    value = identifier[keyword].value
    if value is None:
        return ()
    many = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return tuple(text for text in (str(one).strip(" \0") for one in many) if text)


def _checked(
    values: tuple[str, ...], level: Level, *, asked: bool, max_uids: int
) -> tuple[str, ...]:
    """Hold a unique key to its rule: one value, or a UID list at the level asked for."""
    keyword = UNIQUE_KEYS[level]
    tag = (int(Tag(keyword)),)
    most = max_uids if asked and level is not Level.PATIENT else 1
    if not 1 <= len(values) <= most:
        raise IdentifierInvalid(f"{keyword} needs 1 to {most} values", offending_elements=tag)
    for value in values:
        wrong = _is_wild(value) if level is Level.PATIENT else not is_uid(value)
        if wrong:
            raise IdentifierInvalid(f"{keyword} has no plain value", offending_elements=tag)
    return values


def _is_wild(value: str) -> bool:
    return "*" in value or "?" in value
