"""Removing whole old files of the trail: first the chain is told to begin later, then they go.

A file is only removed when it is whole, and when a collector is named only once
all of it was taken there.
"""

import logging
from datetime import date
from pathlib import Path

from pacs.observe.audit.chain import Line, before_gap, continues, hashed, parsed
from pacs.observe.audit.heal import LONGEST_LINE_BYTES
from pacs.observe.audit.keep import Floor, Keep, days, file_of, sync_folder

_LOG = logging.getLogger("pacs.audit")


def prune(folder: Path, keep: Keep, *, before_day: int, taken: int | None) -> int:
    """Remove files of days before ``before_day``; gives how many.

    ``taken`` is the number of the last record the collector has, where there is one.
    """
    key, head, floor = keep.key(), keep.head(), keep.floor()
    if key is None or head is None:
        return 0
    kept_day = min(before_day, head.day)  # what is written to stays
    removed = _leftovers(folder, floor)
    for day in (one for one in days(folder) if floor.day <= one < kept_day):
        ended = _ended(file_of(folder, day), key, floor)
        if ended is None:
            _LOG.error("audit-kept file=%s: it is damaged", date.fromordinal(day))
            break
        if taken is not None and ended.count > taken:
            break
        floor = ended
        keep.put_floor(floor)
        file_of(folder, day).unlink()
        removed += 1
    if removed:
        sync_folder(folder)
    return removed


def _leftovers(folder: Path, floor: Floor) -> int:
    """Remove what the chain does not speak of any more: somebody was ended in between."""
    old = [day for day in days(folder) if day < floor.day]
    for day in old:
        file_of(folder, day).unlink()
    return len(old)


def _ended(path: Path, key: bytes, floor: Floor) -> Floor | None:
    """Where the chain stands behind this file; ``None`` where it is not what was written."""
    count, last = floor.count, bytes.fromhex(floor.last)
    day = date.fromisoformat(path.stem).toordinal() + 1
    unread = False
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE_BYTES):
            one = parsed(line)
            if one is None:
                unread = True  # a torn line: what follows must name it
            elif not _follows(one, key, count, last) or (unread and not _names(one)):
                return None
            else:
                count, last, unread = one.number, one.stated, False
    return None if unread else Floor(day=day, count=count, last=last.hex())


def _follows(one: Line, key: bytes, count: int, last: bytes) -> bool:
    gap = before_gap(one.body)
    genuine = hashed(key, gap or last, one.body) == one.stated
    return genuine and continues(one, count)


def _names(one: Line) -> bool:
    return any(b'"event":"audit-%s"' % kind in one.body for kind in (b"torn", b"lost"))
