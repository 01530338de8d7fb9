"""How often each host has associated lately, in memory that all listeners of one server share.

Owns the entries: a token bucket a host, the least recently used one giving way
to a new host. Refuses to know how often is too often. Asked under the lock of
the ``Board`` it lies on; the monotonic clock is the machine's, so the same in
all its processes.
"""

import mmap
import struct
from typing import Final

from pacs.association.entries import find_entry

HOSTS: Final = 512
_ENTRY: Final = struct.Struct("=16sdd")
"""Key of the host, what is left to it, and when that was reckoned, in seconds."""
SIZE_BYTES: Final = HOSTS * _ENTRY.size
_MINUTE_S: Final = 60.0


class Throttle:
    """Buckets of hosts at ``start`` of a memory."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    def take(self, key: bytes, *, per_minute: int, now_s: float) -> bool:
        """Take one from the bucket of a host, which holds ``per_minute`` and fills up in a minute."""
        at = self._place(key)
        found, left, reckoned_s = _ENTRY.unpack_from(self._memory, at)
        if found == key:
            left = min(per_minute, left + max(0.0, now_s - reckoned_s) * per_minute / _MINUTE_S)
        else:
            left = float(per_minute)
        taken: bool = left >= 1.0
        _ENTRY.pack_into(self._memory, at, key, left - taken, now_s)
        return taken

    def _place(self, key: bytes) -> int:
        """Where the bucket of a host lies, or may begin."""
        end = self._start + SIZE_BYTES
        at = find_entry(self._memory, key, start=self._start, end=end, size=_ENTRY.size)
        if at >= 0:
            return at
        entries = _ENTRY.iter_unpack(self._memory[self._start : end])
        used_s = [reckoned_s for _, _, reckoned_s in entries]
        return self._start + used_s.index(min(used_s)) * _ENTRY.size
