"""What the query service asks of the index: conditions that narrow, in the model's words.

Every condition must be kept by every row that truly matches; the service
looks at the rows again, so an index may let more through, never less. All
conditions of one question hold at once, and those below the asked level hold
on one and the same entity (PS3.4 Section C.4.1.2.2, relational queries).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pacs.core.attributes import Attribute, Level
from pacs.core.identifiers import TransferSyntaxUID
from pacs.core.records import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """A value of ``attribute`` equals one of ``values``."""

    attribute: Attribute
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """A value of ``attribute`` matches ``pattern`` with ``*`` and ``?``, case-sensitively."""

    attribute: Attribute
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A DA or TM value lies between ``low`` and ``high``, normalised; an empty end is open."""

    attribute: Attribute
    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A folded person name matches.

    ``groups`` holds the patterns of the alphabetic, ideographic and phonetic
    group, each a tuple of alternatives, empty where any will do. With
    ``any_group`` the first group's patterns may be met by any group. A name
    that has all ``sounds`` matches as well, where there are any.
    """

    attribute: Attribute
    groups: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    any_group: bool
    sounds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyMoment:
    """Study Date and Study Time, joined, lie between two moments; an empty end is open."""

    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalityInStudy:
    """Some series of the study has one of ``values``, or matches one of ``patterns``."""

    values: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SOPClassInStudy:
    """Some instance of the study has one of these SOP Class UIDs."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredBy:
    """The entity of ``level`` is held for a registrant that matches ``pattern``."""

    level: Level
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The entity of ``level`` was received between two UTC times, ISO 8601; an empty end is open."""

    level: Level
    low_utc: str = ""
    high_utc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """The entity is, or lies under, the one with row number ``row`` at ``level``."""

    level: Level
    row: int


Condition = (
    AnyOf
    | Like
    | Between
    | Named
    | StudyMoment
    | ModalityInStudy
    | SOPClassInStudy
    | RegisteredBy
    | Received
    | Under
)


def level_of(condition: Condition) -> Level:
    """Tell at which level a condition holds."""
    match condition:
        case AnyOf() | Like() | Between() | Named():
            return condition.attribute.level
        case RegisteredBy() | Received() | Under():
            return condition.level
        case StudyMoment() | ModalityInStudy() | SOPClassInStudy():
            return Level.STUDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One entity as the index knows it.

    ``values`` holds what was wanted of its own level and those above, by
    keyword, as in ``Header.values``; computed attributes (related counts,
    modalities and SOP Classes in study) are among them. ``place`` and
    ``transfer_syntax_uid`` are there at IMAGE level only.
    """

    row: int
    values: Mapping[str, str] = field(repr=False)
    registrant: str
    received_utc: str
    place: Place | None = None
    transfer_syntax_uid: TransferSyntaxUID | None = None


COMPUTED: Mapping[str, Level] = {
    "NumberOfPatientRelatedStudies": Level.PATIENT,
    "NumberOfPatientRelatedSeries": Level.PATIENT,
    "NumberOfPatientRelatedInstances": Level.PATIENT,
    "ModalitiesInStudy": Level.STUDY,
    "SOPClassesInStudy": Level.STUDY,
    "NumberOfStudyRelatedSeries": Level.STUDY,
    "NumberOfStudyRelatedInstances": Level.STUDY,
    "NumberOfSeriesRelatedInstances": Level.SERIES,
}
"""Attributes no Data Set carries: made from the rows, PS3.4 Sections C.3.4 and C.6."""
