"""Is the trail as it was written? Every line against the one before, the last one against the head.

Finds a line that was changed, removed, added or moved, a file that is gone and a
tail that was cut off, and says where. Lines torn by a crash, and records lost
with power before they were on disk, are named by a record of their own: those are told, too,
and are no damage.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from pacs.observe.audit.begin import set_aside
from pacs.observe.audit.chain import Line, before_gap, continues, hashed, parsed
from pacs.observe.audit.heal import LONGEST_LINE_BYTES, has_lines
from pacs.observe.audit.keep import Head, Keep, day_of, file_of

PATIENCE_S = 10.0
_GONE = "key or head of the chain is gone"
_UNCHAINED = "set aside when the chain was lost: whether it is as it was written nobody can tell"
_HARMLESS = ("audit-torn", "audit-lost")
_NAMED = (*_HARMLESS, "audit-foreign", "audit-broken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is not as it was written, or is known not to be complete, and where."""

    file: str
    line: int
    kind: str
    detail: str
    damage: bool = True


@dataclass(slots=True, kw_only=True)
class _Walk:
    """Where the walk along the chain is."""

    key: bytes
    count: int
    last: tuple[bytes, ...]
    """The hash of the line before: as it states it and, where that differs, as it is."""
    file: str = ""
    line: int = 0
    unread: bytearray = field(default_factory=bytearray)
    """What lies before the next record and is none."""

    def found(self, kind: str, detail: str, *, damage: bool = True) -> Finding:
        return Finding(file=self.file, line=self.line, kind=kind, detail=detail, damage=damage)


def verify(folder: Path, keep: Keep) -> tuple[int, Iterator[Finding]]:
    """Give how many records there should be, and what is found. Raises ``OSError``.

    Records written meanwhile are not looked at.
    """
    with keep.alone(PATIENCE_S):
        head, key = keep.head(), keep.key()
        behind = b"" if head is None else _behind(file_of(folder, head.day), head.offset)
    beside = [_unchained(one) for one in set_aside(folder)]
    if head is None or key is None:
        if any(one.stat().st_size for one in folder.glob("*.jsonl")):
            beside.append(Finding(file="", line=0, kind="unknown", detail=_GONE))
        return 0, iter(beside)
    floor = keep.floor()
    walk = _Walk(key=key, count=floor.count, last=(bytes.fromhex(floor.last),))
    walked = _walked(folder, walk, head, floor.day, behind)
    return head.number - floor.count, chain(beside, walked)


def _unchained(path: Path) -> Finding:
    return Finding(file=path.name, line=0, kind="unchained", detail=_UNCHAINED)


def _behind(path: Path, offset: int) -> bytes:
    """What lies behind the last record; whoever writes next will name it."""
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(LONGEST_LINE_BYTES)


def _walked(
    folder: Path, walk: _Walk, head: Head, first_day: int, behind: bytes
) -> Iterator[Finding]:
    for path in sorted(folder.glob("*.jsonl")):
        day = day_of(path)
        walk.file, walk.line = path.name, 0
        if day is None or file_of(folder, day) != path or day > head.day:
            yield walk.found("added", "no file of the trail has this name")
        elif day >= first_day:
            yield from _file(path, walk, head.offset if day == head.day else None)
    yield from _end(walk, head)
    if behind:
        yield from _tail(walk, behind)


def _file(path: Path, walk: _Walk, limit: int | None) -> Iterator[Finding]:
    left = path.stat().st_size if limit is None else limit
    with path.open("rb") as file:
        while left > 0 and (line := file.readline(min(left, LONGEST_LINE_BYTES))):
            left -= len(line)
            walk.line += 1
            one = parsed(line)
            if one is None:
                walk.unread += line
                continue
            yield from _line(one, walk)
    if walk.unread:
        yield from _unread(walk)


def _line(one: Line, walk: _Walk) -> Iterator[Finding]:
    """Judge one record: does it follow the one before, and is it what it was."""
    gap = before_gap(one.body)
    computed = [hashed(walk.key, one_before, one.body) for one_before in (gap,) if one_before] or [
        hashed(walk.key, before, one.body) for before in walk.last
    ]
    genuine = one.stated in computed
    named = _said(one.body) if genuine and b'"event":"audit-' in one.body else None
    if walk.unread and not (named and _accounts_for(named, bytes(walk.unread))):
        yield from _unread(walk)
    walk.unread.clear()
    if not genuine or not continues(one, walk.count):
        yield walk.found("changed", _why(one, walk))
    elif named:
        harmless = named["event"] in _HARMLESS
        yield walk.found(str(named["event"]), _told(named), damage=not harmless)
    walk.count = one.number
    walk.last = tuple(dict.fromkeys((one.stated, *computed)))


def _said(body: bytes) -> dict[str, object] | None:
    """What a record says that names something found in the trail, else nothing."""
    try:
        said = json.loads(body + b"}")
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("event") in _NAMED else None


def _accounts_for(named: dict[str, object], unread: bytes) -> bool:
    digest = hashlib.sha256(unread).hexdigest()
    return named.get("bytes") == len(unread) and named.get("digest") == digest


def _unread(walk: _Walk) -> Iterator[Finding]:
    yield walk.found("changed", f"{len(walk.unread)} bytes before here are no record")
    walk.unread.clear()


def _why(one: Line, walk: _Walk) -> str:
    expected = walk.count + 1
    if one.number > expected:
        return f"records {expected} to {one.number - 1} are missing before it"
    if one.number < expected:
        return f"record {one.number} is here, {expected} should be"
    return f"record {one.number} is not what was written, or the one before it is not"


def _told(named: dict[str, object]) -> str:
    if "reason" in named:
        return str(named["reason"])
    if "first" in named:
        return f"records {named['first']} to {named['last']}"
    return f"{named.get('bytes')} bytes before it"


def _end(walk: _Walk, head: Head) -> Iterator[Finding]:
    if walk.count < head.number:
        yield walk.found("cut", f"records {walk.count + 1} to {head.number} are missing at the end")
    elif walk.count > head.number or head.last not in walk.last:
        yield walk.found("changed", "the last record is not the one written last")


def _tail(walk: _Walk, behind: bytes) -> Iterator[Finding]:
    """A process was ended while it wrote, or somebody else wrote: whole lines tell which."""
    for line in behind.splitlines(keepends=True):
        one = parsed(line)
        if one is not None:
            yield from _line(one, walk)
        elif has_lines(line):
            yield walk.found("added", f"{len(line)} bytes behind the last record")
        else:
            yield walk.found("audit-torn", f"{len(line)} bytes at the end", damage=False)
