"""The form of one line of the trail: a JSON object whose last member chains it to the line before.

``{"n": 7, …, "hash": "…"}``: the hash is BLAKE2b (RFC 7693) with a key, over the
hash of the line before and the bytes of this one up to it. Who has no key can
neither write a line nor move one. Knows no file.
"""

import hashlib
import re
from typing import NamedTuple

HASH_BYTES = 32
KEY_BYTES = 32
GENESIS = bytes(HASH_BYTES)
"""Stands for the line before the first one."""

REPAIRS = frozenset({"audit-torn", "audit-foreign", "audit-lost", "audit-broken"})
"""Records that speak of what was found where the next line should have begun."""

_OPEN = b',"hash":"'
_CLOSE = b'"}\n'
_END = len(_OPEN) + 2 * HASH_BYTES + len(_CLOSE)
_GAPS = (b'"event":"audit-lost"', b'"event":"audit-broken"')
_BEFORE = re.compile(rb'"before":"([0-9a-f]{64})"')
_LOST = re.compile(rb'"first":([0-9]{1,19}),"last":([0-9]{1,19}),')
_NUMBER = re.compile(rb'^\{"n":([1-9][0-9]{0,18}),')


class Line(NamedTuple):
    """One line that has the form of a record: its number, what is hashed, and the hash it states."""

    number: int
    body: bytes
    stated: bytes


def hashed(key: bytes, before: bytes, body: bytes) -> bytes:
    """The hash that chains ``body`` to the line whose hash is ``before``."""
    return hashlib.blake2b(before + body, key=key, digest_size=HASH_BYTES).digest()


def sealed(key: bytes, before: bytes, number: int, text: str) -> tuple[bytes, bytes]:
    """Make the line of a JSON object; gives it with its hash.

    >>> line, _ = sealed(bytes(32), GENESIS, 1, '{"event": "started"}')
    >>> line[:27], len(line)
    (b'{"n":1,"event": "started","', 101)
    """
    body = b'{"n":%d,' % number + text[1:-1].encode()
    stamp = hashed(key, before, body)
    return body + _OPEN + stamp.hex().encode() + _CLOSE, stamp


def parsed(line: bytes) -> Line | None:
    """Take a line apart; ``None`` where it has not the form of a record."""
    found = _NUMBER.match(line)
    if found is None or len(line) < _END or not line.endswith(_CLOSE):
        return None
    body, tail = line[:-_END], line[-_END:]
    if not tail.startswith(_OPEN):
        return None
    text = tail[len(_OPEN) : -len(_CLOSE)]
    try:
        stated = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None
    if stated.hex().encode() != text:  # one way to write it, so that no byte can change unseen
        return None
    return Line(int(found[1]), body, stated)


def before_gap(body: bytes) -> bytes | None:
    """The hash that a record of lost ones goes on from: that of the last of them."""
    if not any(one in body for one in _GAPS):
        return None
    found = _BEFORE.search(body)
    return bytes.fromhex(found[1].decode()) if found else None


def continues(line: Line, count: int) -> bool:
    """Tell whether a record's number follows that of ``count``, or it names every one in between as lost."""
    lost = _LOST.search(line.body) if before_gap(line.body) else None
    if lost is None:
        return line.number == count + 1
    first, last = map(int, lost.groups())
    return first == count + 1 and line.number == last + 1
