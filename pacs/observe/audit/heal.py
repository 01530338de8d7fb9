"""What a process that was killed, a power loss or a stranger left where the next line should begin.

Looks at the file the head speaks of and says what is true: lines that were
written but not noted are taken over; a torn one is named and stays; where lines
are gone that were certainly there, the trail says that it is broken. Whatever is
found, the chain goes on.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pacs.observe.audit.chain import before_gap, hashed, parsed, sealed
from pacs.observe.audit.keep import Head

LONGEST_LINE_BYTES = 1 << 20
HEAD_LOST = "the head was lost: whether records are missing behind those before cannot be told"


@dataclass(frozen=True, slots=True)
class _Walked:
    """How far the lines of a file hang together."""

    count: int
    last: bytes
    offset: int


def healed(path: Path, head: Head, key: bytes, boot: bytes) -> tuple[Head, bytes]:
    """Give the head as the file has it, and what must be appended to name what was found there."""
    size = path.stat().st_size if path.exists() else 0
    same = head.boot == boot
    if same and size >= head.offset:
        walked = _walk(path, key, _Walked(head.number, head.last, head.offset))
    else:
        walked = _walk(path, key, _Walked(0, b"", 0))
    lost = head.number - walked.count
    rest = _rest(path, walked.offset)
    if lost <= 0:
        now = head._replace(number=walked.count, last=walked.last, offset=walked.offset, boot=boot)
        if not rest:
            return now, b""
        event = "audit-foreign" if has_lines(rest) else "audit-torn"
        return _named(now, key, event, rest, size)
    power = not same and walked.count >= head.synced
    event = "audit-lost" if power else "audit-broken"
    return _named(head._replace(boot=boot), key, event, rest, size, after=head.number - lost)


def recovered(path: Path, day: int, key: bytes, boot: bytes) -> tuple[Head, bytes] | None:
    """Give the head as a day's records have it, with a record to be appended that says it was lost.

    ``None`` where the file begins with no record. Whether records behind its last are gone nobody can tell.
    """
    walked = _walk(path, key, _Walked(0, b"", 0))
    if not walked.count:
        return None
    head = Head(walked.count, day, walked.offset, 0, 0, walked.last, boot)
    rest, size = _rest(path, walked.offset), path.stat().st_size
    head, line = _named(head, key, "audit-broken", rest, size, reason=HEAD_LOST)
    return head._replace(synced=head.number), line


def _walk(path: Path, key: bytes, walked: _Walked) -> _Walked:
    """Go on from there while each line follows the one before."""
    if not path.exists():
        return walked
    with path.open("rb") as file:
        file.seek(walked.offset)
        while line := file.readline(LONGEST_LINE_BYTES):
            one = parsed(line)
            if one is None:
                break
            gap = before_gap(one.body)
            # Of a file's first line the one before lies elsewhere.
            before = gap or walked.last
            if before and hashed(key, before, one.body) != one.stated:
                break
            if walked.last and gap is None and one.number != walked.count + 1:
                break
            walked = _Walked(one.number, one.stated, walked.offset + len(line))
    return walked


def _rest(path: Path, offset: int) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def has_lines(rest: bytes) -> bool:
    """Tell a whole line from a torn one: whoever wrote it came to its end."""
    return any(one.rstrip(b"\r").endswith(b"}") for one in rest.split(b"\n")[:-1])


def _named(
    head: Head,
    key: bytes,
    event: str,
    rest: bytes,
    size: int,
    *,
    after: int | None = None,
    reason: str = "",
) -> tuple[Head, bytes]:
    """The record that speaks of it, behind what is there; a line begins on a line of its own."""
    closing = b"\n" if rest and not rest.endswith(b"\n") else b""
    said: dict[str, object] = {"time": datetime.now(UTC).isoformat(), "event": event}
    if reason:
        said.update(reason=reason)
    if after is not None:
        said.update(first=after + 1, last=head.number, before=head.last.hex())
    if rest:
        said.update(bytes=len(rest + closing), digest=hashlib.sha256(rest + closing).hexdigest())
    line, last = sealed(key, head.last, head.number + 1, compact(said))
    appended = closing + line
    offset = size + len(appended)
    return head._replace(number=head.number + 1, last=last, offset=offset), appended


compact: Callable[[object], str] = json.JSONEncoder(default=str, separators=(",", ":")).encode
