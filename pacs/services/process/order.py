"""Reading a workitem: what is to be done, to what, and where the results go. PS3.4 Annex CC, PS3.3 Section C.30.2.

Owns what of a foreign Data Set is understood and in which words the rest is
refused. Every bound is kept before anything is looked up: a hostile Data Set
costs its own length, once. Whether it may be done is decided in ``standing``,
whether it is held in ``sources``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from pacs.core.errors import ProcessingUnknown
from pacs.core.identifiers import AETitle, is_ae_title, is_uid
from pacs.core.processing import Keep, OperationFact, ProcessingOrder
from pacs.services.process.words import (
    GROUP,
    KEEP,
    SCHEME,
    SERIES_DESCRIPTION,
    VERSION,
    Input,
    Reference,
    is_group,
    read_time,
    require_description,
)

MOST_PARAMETERS: Final = 64
MOST_INPUTS: Final = 500
MOST_DESTINATIONS: Final = 32
_LONGEST_TEXT: Final = 256
_UNITS: Final = {"_mm": "mm", "_px": "{pixels}", "_deg": "deg"}
_UNIT: Final = "unit"
_OF_LENGTHS: Final = {"mm": "mm", "{pixels}": "px"}
_RETRIEVALS: Final = (
    "DICOMMediaRetrievalSequence",
    "WADORetrievalSequence",
    "XDSRetrievalSequence",
    "WADORSRetrievalSequence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A workitem as we understand it."""

    fact: OperationFact
    order: ProcessingOrder
    inputs: tuple[Input, ...]
    expires_utc: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Whom a workitem is for: whether for us at all, which group of our nodes, and when."""

    ours: bool
    group: str = ""
    begins_utc: datetime | None = None
    priority: str = ""


def read(
    data_set: Dataset, operations: Sequence[OperationFact], *, ae_title: AETitle, most: int
) -> Wanted:
    """Understand a workitem with ``most`` instances named at most. Raises ``ProcessingUnknown`` with the reason."""
    try:
        return _read(data_set, operations, ae_title, most)
    except ProcessingUnknown:
        raise
    except Exception as error:
        raise ProcessingUnknown("an attribute of the workitem cannot be read") from error


def addressed(
    data_set: Dataset, operations: Sequence[OperationFact], *, ae_title: AETitle
) -> Address:
    """Tell whether a workitem is for us, without judging it; what cannot be read is not."""
    try:
        named = _is_under_our_scheme(data_set) or any(_operation_names(data_set, operations))
        if not named or not _is_our_station(data_set, ae_title):
            return Address(ours=False)
        return Address(
            ours=True,
            group=_group_hint(data_set),
            begins_utc=read_time(_text(data_set, "ScheduledProcedureStepStartDateTime")),
            priority=_text(data_set, "ScheduledProcedureStepPriority"),
        )
    except Exception:  # noqa: BLE001 - as above; the workitem is made all the same, for others
        return Address(ours=False)


def begins_of(data_set: Dataset) -> datetime | None:
    """Before when a workitem is not begun; ``None`` where it says nothing that can be read."""
    try:
        return read_time(_text(data_set, "ScheduledProcedureStepStartDateTime"))
    except Exception:  # noqa: BLE001 - pydicom raises whatever the values provoke
        return None


def is_ready(data_set: Dataset) -> bool:
    """Tell whether all that a workitem is done to is there, says who made it. PS3.3 Section C.30.2."""
    return str(data_set.get("InputReadinessState") or "").strip() == "READY"


def expiration_of(data_set: Dataset) -> datetime | None:
    """When a workitem is not gone on with any more; ``None`` where it says nothing that can be read."""
    try:
        return read_time(_text(data_set, "ScheduledProcedureStepExpirationDateTime"))
    except Exception:  # noqa: BLE001 - pydicom raises whatever the values provoke; ``read`` refuses it
        return None


def _read(
    data_set: Dataset, operations: Sequence[OperationFact], ae_title: AETitle, most: int
) -> Wanted:
    fact = _operation(data_set, operations)
    settings = _settings(data_set, fact)
    own = {VERSION, SERIES_DESCRIPTION, KEEP, GROUP}
    description = settings.get(SERIES_DESCRIPTION, "")
    require_description(description)
    return Wanted(
        fact=fact,
        order=ProcessingOrder(
            operation=fact.name,
            version=settings.get(VERSION, ""),
            parameters={name: value for name, value in settings.items() if name not in own},
            series_description=description,
            destinations=tuple(_destinations(data_set, ae_title)),
            keep_results=_keep(settings.get(KEEP, Keep.YES.value)),
            group=_group(data_set, settings),
        ),
        inputs=tuple(_inputs(data_set, most)),
        expires_utc=read_time(_text(data_set, "ScheduledProcedureStepExpirationDateTime")),
    )


# --- the operation -----------------------------------------------------------------------


def _operation(data_set: Dataset, operations: Sequence[OperationFact]) -> OperationFact:
    names = list(_operation_names(data_set, operations))
    if not names:
        raise ProcessingUnknown("the workitem code names no operation")
    if len(set(names)) > 1:
        raise ProcessingUnknown(
            f"the workitem code stands for {', '.join(names)}: name one under {SCHEME}"
        )
    return next(one for one in operations if one.name == names[0])


def _is_under_our_scheme(data_set: Dataset) -> bool:
    """Tell whether nobody else can know what the code means: then we say so where it means nothing."""
    items = _items(data_set, "ScheduledWorkitemCodeSequence", 1)
    return bool(items) and _coded(items[0])[0] == SCHEME


def _operation_names(data_set: Dataset, operations: Sequence[OperationFact]) -> Iterator[str]:
    """Name the operations that the workitem's one code stands for."""
    items = _items(data_set, "ScheduledWorkitemCodeSequence", 1)
    if items:
        scheme, value = _coded(items[0])
        for one in operations:
            if (scheme, value) == (SCHEME, one.name) or (scheme == "DCM" and value == one.code):
                yield one.name


# --- its parameters ----------------------------------------------------------------------


def _settings(data_set: Dataset, fact: OperationFact | None = None) -> Mapping[str, str]:
    """The parameters as text; held to their units where the operation is given."""
    settings: dict[str, str] = {}
    units: dict[str, str] = {}
    for item in _items(data_set, "ScheduledProcessingParametersSequence", MOST_PARAMETERS):
        name = _ours(item, "ConceptNameCodeSequence", "a parameter")
        if name in settings:
            raise ProcessingUnknown(f"parameter {name} is given twice")
        settings[name] = _value(item, name)
        for unit in _items(item, "MeasurementUnitsCodeSequence", 1):
            units[name] = _coded(unit)[1]
    if fact is not None:
        _settle_units(settings, units, fact)
    return settings


def _value(item: Dataset, name: str) -> str:
    """The value of a content item. PS3.3 Table 10-2."""
    kind = _text(item, "ValueType")
    if kind == "TEXT":
        return _text(item, "TextValue")
    if kind == "NUMERIC":
        return _text(item, "NumericValue")
    if kind == "CODE":
        return _ours(item, "ConceptCodeSequence", f"the value of {name}")
    raise ProcessingUnknown(f"parameter {name} is neither TEXT nor NUMERIC nor CODE")


def _settle_units(settings: dict[str, str], units: Mapping[str, str], fact: OperationFact) -> None:
    """A number may say its unit; it must be the one that the parameter has. PS3.16 CID 82.

    A length has one of two, which the parameter ``unit`` says, or else the first number that does.
    """
    lengths = {one.name for one in fact.parameters if one.is_length}
    for name, unit in units.items():
        if name in lengths and unit in _OF_LENGTHS:
            if settings.setdefault(_UNIT, _OF_LENGTHS[unit]) != _OF_LENGTHS[unit]:
                raise ProcessingUnknown(f"parameter {name} is not in the unit that is set")
            continue
        own = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "1")
        if unit not in (own, "1"):
            raise ProcessingUnknown(f"parameter {name} is not in that unit")


def _keep(text: str) -> Keep:
    try:
        return Keep(text)
    except ValueError as error:
        raise ProcessingUnknown("keep is yes or until-done") from error


def _group(data_set: Dataset, settings: Mapping[str, str]) -> str:
    classes = [*_station_classes(data_set)]
    named = {*classes, *([settings[GROUP]] if GROUP in settings else ())}
    if len(named) > 1:
        raise ProcessingUnknown("more than one group of nodes is named")
    if not all(is_group(one) for one in named):
        raise ProcessingUnknown("a group of nodes has at most 16 letters, digits, - and _")
    return next(iter(named), "")


def _group_hint(data_set: Dataset) -> str:
    """The group as it is named; empty where ``read`` will refuse the workitem."""
    try:
        return _group(data_set, _settings(data_set))
    except ProcessingUnknown:
        return ""


# --- whom it is for ----------------------------------------------------------------------


def _is_our_station(data_set: Dataset, ae_title: AETitle) -> bool:
    """Tell whether no station is named, or we; and no class of stations but groups of our nodes."""
    stations = [
        _coded(one)
        for one in _items(data_set, "ScheduledStationNameCodeSequence", MOST_DESTINATIONS)
    ]
    classes = _items(data_set, "ScheduledStationClassCodeSequence", MOST_DESTINATIONS)
    return (not stations or (SCHEME, str(ae_title)) in stations) and all(
        _coded(one)[0] == SCHEME for one in classes
    )


def _station_classes(data_set: Dataset) -> Iterator[str]:
    for item in _items(data_set, "ScheduledStationClassCodeSequence", MOST_DESTINATIONS):
        scheme, value = _coded(item)
        if scheme == SCHEME:
            yield value


def _destinations(data_set: Dataset, ae_title: AETitle) -> Iterator[AETitle]:
    """Where results are sent; ourselves is nowhere, as they are kept here."""
    seen = {str(ae_title)}
    for item in _items(data_set, "OutputDestinationSequence", MOST_DESTINATIONS):
        stores = _items(item, "DICOMStorageSequence", MOST_DESTINATIONS)
        if not stores:
            raise ProcessingUnknown("a destination is no DICOM Application Entity")
        for store in stores:
            named = _text(store, "DestinationAE").strip()
            if not is_ae_title(named):
                raise ProcessingUnknown("a destination is no AE title")
            if named not in seen:
                seen.add(named)
                yield AETitle(named)


# --- what it is done to --------------------------------------------------------------------


def _inputs(data_set: Dataset, most: int) -> Iterator[Input]:
    items = _items(data_set, "InputInformationSequence", MOST_INPUTS)
    if not items:
        raise ProcessingUnknown("the workitem names no images")
    for item in items:
        references = tuple(_references(item, most))
        most -= len(references)
        yield Input(
            study_instance_uid=_uid(item, "StudyInstanceUID"),
            series_instance_uid=_uid(item, "SeriesInstanceUID", required=bool(references)),
            references=references,
            retrieve_ae_titles=tuple(_retrieve_ae_titles(item)),
        )


def _references(item: Dataset, most: int) -> Iterator[Reference]:
    for one in _items(item, "ReferencedSOPSequence", most):
        if one.get("ReferencedFrameNumber") is not None:
            raise ProcessingUnknown("frames of an image cannot be processed apart")
        yield Reference(
            sop_class_uid=_uid(one, "ReferencedSOPClassUID", required=False),
            sop_instance_uid=_uid(one, "ReferencedSOPInstanceUID"),
        )


def _retrieve_ae_titles(item: Dataset) -> Iterator[AETitle]:
    retrievals = _items(item, "DICOMRetrievalSequence", MOST_DESTINATIONS)
    if not retrievals and any(_items(item, one, MOST_INPUTS) for one in _RETRIEVALS):
        raise ProcessingUnknown("images are retrieved from DICOM Application Entities only")
    for one in retrievals:
        for named in _texts(one, "RetrieveAETitle"):
            if is_ae_title(named):
                yield AETitle(named.strip())


# --- attributes ----------------------------------------------------------------------------


def _items(data_set: Dataset, keyword: str, most: int) -> Sequence[Dataset]:
    """The items of a sequence, none where it is absent or empty."""
    value: Any = data_set.get(keyword)
    if not value:
        return ()
    if not isinstance(value, Items):
        raise ProcessingUnknown(f"{keyword} is no sequence")
    if len(value) > most:
        raise ProcessingUnknown(f"{keyword} has {len(value)} items, at most {most} are taken")
    return list(value)


def _texts(data_set: Dataset, keyword: str) -> Sequence[str]:
    value: Any = data_set.get(keyword)
    values = value if isinstance(value, (MultiValue, list)) else [value]
    if isinstance(value, (bytes, Items)) or len(values) > MOST_DESTINATIONS:
        raise ProcessingUnknown(f"{keyword} is no text")
    texts = ["" if one is None else str(one).strip() for one in values]
    if any(len(one) > _LONGEST_TEXT for one in texts):
        raise ProcessingUnknown(f"{keyword} has more than {_LONGEST_TEXT} characters")
    return texts


def _text(data_set: Dataset, keyword: str) -> str:
    texts = _texts(data_set, keyword)
    if len(texts) != 1:
        raise ProcessingUnknown(f"{keyword} has {len(texts)} values")
    return texts[0]


def _uid(data_set: Dataset, keyword: str, *, required: bool = True) -> str:
    text = _text(data_set, keyword)
    if (text or required) and not is_uid(text):
        raise ProcessingUnknown(f"{keyword} is no UID")
    return text


def _coded(item: Dataset) -> tuple[str, str]:
    """Scheme and value of a code."""
    value = _text(item, "CodeValue") or _text(item, "LongCodeValue")
    return _text(item, "CodingSchemeDesignator"), value


def _ours(item: Dataset, keyword: str, what: str) -> str:
    """The value of a private code. A foreign code cannot be understood."""
    items = _items(item, keyword, 1)
    scheme, value = _coded(items[0]) if items else ("", "")
    if scheme != SCHEME or not value:
        raise ProcessingUnknown(f"{what} has no code of {SCHEME}")
    return value
