"""How many identities of an address, or of a user name, have failed lately, in memory listeners share.

Owns the entries. Of those the one that counts least gives way to a new key; what is locked
stays longest. Refuses to know how many may fail. Asked under the lock of the ``Board`` it
lies on; the monotonic clock is the machine's, so the same in all its processes.
"""

import mmap
import struct
from typing import Final

from pacs.association.entries import find_entry

ENTRIES: Final = 1_024
_ENTRY: Final = struct.Struct("=16sddI4x")
"""Key, when its window began, until when it is locked, both in seconds, and failures in the window."""
SIZE_BYTES: Final = ENTRIES * _ENTRY.size


class FailureTable:
    """Failures of one kind of key at ``start`` of a memory."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    def is_locked(self, key: bytes, now_s: float) -> bool:
        """Tell whether a key is locked now."""
        at = self._find(key)
        if at < 0:
            return False
        _, _, locked_until_s, _ = _ENTRY.unpack_from(self._memory, at)
        return bool(now_s < locked_until_s)

    def note(self, key: bytes, *, most: int, window_s: float, lock_s: float, now_s: float) -> None:
        """Count a failure; the one that makes ``most`` within a window locks the key, and begins anew."""
        at = self._find(key)
        if at >= 0:
            _, began_s, locked_until_s, count = _ENTRY.unpack_from(self._memory, at)
        else:
            at, began_s, locked_until_s, count = self._least(), float("-inf"), 0.0, 0
        if now_s - began_s > window_s:
            began_s, count = now_s, 0
        count += 1
        if count >= most:
            locked_until_s, count = now_s + lock_s, 0
        _ENTRY.pack_into(self._memory, at, key, began_s, locked_until_s, count)

    def _find(self, key: bytes) -> int:
        end = self._start + SIZE_BYTES
        return find_entry(self._memory, key, start=self._start, end=end, size=_ENTRY.size)

    def _least(self) -> int:
        """Where the entry lies that is over soonest, or was never used."""
        entries = _ENTRY.iter_unpack(self._memory[self._start : self._start + SIZE_BYTES])
        worth_s = [max(began_s, locked_until_s) for _, began_s, locked_until_s, _ in entries]
        return self._start + worth_s.index(min(worth_s)) * _ENTRY.size
