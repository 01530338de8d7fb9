"""What is asked for, and in how few requests: the comparison, as pure functions."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pacs.core.identifiers import SeriesInstanceUID, SOPInstanceUID, StudyInstanceUID
from pacs.core.poll_ports import (
    InstanceMemory,
    InstanceThere,
    Listed,
    StudyMemory,
    StudyThere,
    Wanted,
)

LONGEST_WAIT = timedelta(days=1)
SMALLER = 8
"""After each break requests are so many times smaller, down to single instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How often, and how soon, what fails is tried again."""

    max_attempts: int
    retry_s: float

    def again(self, times: int, now: datetime) -> datetime:
        """When what failed ``times`` in a row is due: at once after the first, then later and later."""
        if times < 2:
            return now
        seconds = self.retry_s * 2.0 ** min(times - 2, 32)
        return now + min(timedelta(seconds=seconds), LONGEST_WAIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One C-MOVE or C-GET, and which listed instances it is to bring."""

    wanted: Wanted
    instances: tuple[SOPInstanceUID, ...]


def is_open(study: StudyThere, memory: StudyMemory | None, now: datetime) -> bool:
    """Tell whether a study has to be looked at: new, changed, uncounted, or due to be tried again."""
    if memory is None:
        return True
    if memory.breaks:
        return memory.due_utc is None or memory.due_utc <= now
    if memory.instances is None or memory.instances != study.instances:
        return True
    return memory.due_utc is not None and memory.due_utc <= now


def missing(
    listed: Sequence[InstanceThere],
    held: frozenset[SOPInstanceUID],
    known: Mapping[SOPInstanceUID, InstanceMemory],
    bounds: Bounds,
    now: datetime,
) -> list[InstanceThere]:
    """Choose what to ask for now: not held, never here, not given up, and due."""

    def wanted(uid: SOPInstanceUID) -> bool:
        memory = known.get(uid)
        if uid in held or (memory and (memory.came or memory.attempts >= bounds.max_attempts)):
            return False
        return memory is None or memory.due_utc is None or memory.due_utc <= now

    return [one for one in listed if wanted(one.sop_instance_uid)]


def requests(
    study: StudyInstanceUID,
    listed: Listed[InstanceThere],
    wanted: Sequence[InstanceThere],
    *,
    room: int,
    at_once: int,
    breaks: int = 0,
) -> Iterator[Request]:
    """Ask for the study where all of it is missing, else for whole series, else for lists of instances.

    For at most ``room`` instances in all. A study that broke before is asked
    for in lists, smaller each time, so that what breaks it is found.
    """
    trusted = listed.whole and not breaks
    if trusted and 0 < len(wanted) == len(listed.there) <= room:
        yield Request(
            wanted=Wanted(study_instance_uid=study),
            instances=tuple(one.sop_instance_uid for one in wanted),
        )
        return
    size = max(1, at_once // SMALLER ** min(breaks, 8))
    there = Counter(one.series_instance_uid for one in listed.there)
    by_series: dict[SeriesInstanceUID, list[SOPInstanceUID]] = {}
    for one in wanted:
        by_series.setdefault(one.series_instance_uid, []).append(one.sop_instance_uid)
    for series, uids in by_series.items():
        if room <= 0:
            return
        if trusted and len(uids) == there[series] <= room:
            wanted_series = Wanted(study_instance_uid=study, series_instance_uid=series)
            yield Request(wanted=wanted_series, instances=tuple(uids))
        else:
            yield from _lists(study, series, uids[:room], size)
        room -= len(uids)


def _lists(
    study: StudyInstanceUID,
    series: SeriesInstanceUID,
    uids: Sequence[SOPInstanceUID],
    size: int,
) -> Iterator[Request]:
    for start in range(0, len(uids), size):
        piece = tuple(uids[start : start + size])
        yield Request(
            wanted=Wanted(
                study_instance_uid=study, series_instance_uid=series, sop_instance_uids=piece
            ),
            instances=piece,
        )
