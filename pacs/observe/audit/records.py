"""Reading the trail: records in their order, from any place on, across the days' files.

Takes what is readable and leaves out what is not; whether it can be believed is
for ``verify`` to say.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pacs.observe.audit.chain import parsed
from pacs.observe.audit.heal import LONGEST_LINE_BYTES
from pacs.observe.audit.keep import days, file_of

Record = Mapping[str, object]


class Spot(NamedTuple):
    """A place between two lines: the day's file, the byte in it, and the number of the record before."""

    day: int = 0
    offset: int = 0
    number: int = 0


BEGINNING = Spot()


def records(folder: Path, spot: Spot = BEGINNING) -> Iterator[tuple[Record, Spot]]:
    """Yield what is there from ``spot`` on, each record with the place behind it."""
    for day in days(folder):
        if day >= spot.day:
            yield from _of_day(folder, spot if day == spot.day else Spot(day, 0, spot.number))


def _of_day(folder: Path, spot: Spot) -> Iterator[tuple[Record, Spot]]:
    day, offset, _ = spot
    try:
        file = file_of(folder, day).open("rb")
    except FileNotFoundError:  # removed since it was listed
        return
    with file:
        if file.seek(0, os.SEEK_END) < offset:
            offset = 0  # another chain's file of that day: what is read twice does no harm
        file.seek(offset)
        while line := file.readline(LONGEST_LINE_BYTES):
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE_BYTES:
                break  # it may still be written
            offset += len(line)
            record = _record(line)
            if record is not None:
                yield record, Spot(day, offset, number_of(record))


def _record(line: bytes) -> Record | None:
    if parsed(line) is None:
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def number_of(record: Record) -> int:
    """The number of a record."""
    number = record.get("n")
    return number if isinstance(number, int) else 0
