"""Words of a workitem of ours: coding scheme, names of parameters, what is referred to, times. PS3.3 Section C.30.

Private codes have the designator ``99PACS``: an operation under its name, a
parameter under its name, a node group, a station under its AE title.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from pydicom.dataset import Dataset

from pacs.core.errors import ProcessingUnknown
from pacs.core.identifiers import AETitle
from pacs.core.processing import OperationFact
from pacs.core.records import Held
from pacs.core.text import date_time_bounds

SCHEME: Final = "99PACS"
VERSION: Final = "version"
SERIES_DESCRIPTION: Final = "series-description"
KEEP: Final = "keep"
GROUP: Final = "group"

_LONGEST_CODE = 16
_MAX_DESCRIPTION: Final = 64
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,15}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One instance that is named as a source."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What is processed: instances of a series; all of a series or a study that names none.

    ``retrieve_ae_titles`` are where it can be had from, in their order.
    """

    study_instance_uid: str
    series_instance_uid: str = ""
    references: Sequence[Reference] = ()
    retrieve_ae_titles: tuple[AETitle, ...] = ()


def inputs_of(held: Sequence[Held]) -> Sequence[Input]:
    """Name instances that are held, series by series, as a workitem does."""
    series: dict[tuple[str, str], list[Reference]] = {}
    for one in held:
        reference = Reference(
            sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid
        )
        series.setdefault((one.study_instance_uid, one.series_instance_uid), []).append(reference)
    return [
        Input(
            study_instance_uid=study,
            series_instance_uid=uid,
            references=tuple(references),
        )
        for (study, uid), references in series.items()
    ]


def code(value: str, meaning: str, scheme: str = SCHEME) -> Dataset:
    """Make the item of a code sequence. PS3.3 Table 8.8-1a."""
    item = Dataset()
    if len(value) > _LONGEST_CODE:
        item.LongCodeValue = value
    else:
        item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning[:64]
    return item


def uid_of(*names: str) -> str:
    """Make the UID that is always the same for the same names. PS3.5 Section B.2.

    >>> uid_of("a", "b") == uid_of("a", "b"), uid_of("a", "b") == uid_of("ab")
    (True, False)
    """
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(names)).int}"


def code_of(fact: OperationFact) -> Dataset:
    """Name an operation so that nothing else is meant."""
    return code(fact.name, fact.summary or fact.name)


def queue_of(group: str) -> str:
    """The queue of jobs that nodes of this group may do; of all nodes where it is empty."""
    return f"process:{group}" if group else "process"


def is_group(text: str) -> bool:
    """Tell whether this can name a group of nodes."""
    return _GROUP.match(text) is not None


def require_description(text: str) -> None:
    """Series Description is LO, and stands in the source's character set, of which ASCII is a part."""
    if len(text) > _MAX_DESCRIPTION or not text.isascii() or not (text.isprintable() or not text):
        raise ProcessingUnknown("a series description has at most 64 printable ASCII characters")
    if "\\" in text:
        raise ProcessingUnknown("a series description holds no backslash")


def told_time(moment: datetime) -> str:
    """Write a moment as DT, in UTC. PS3.5 Section 6.2."""
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def read_time(text: str) -> datetime | None:
    """Read a DT, as local time where it says no offset; ``None`` where there is none that can be read."""
    bounds = date_time_bounds(text)
    if bounds is None:
        return None
    low, _, offset = bounds
    zone = None if offset is None else timezone(timedelta(minutes=offset))
    try:
        return low.replace(tzinfo=zone).astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        return None
