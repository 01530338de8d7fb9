"""Entries of equal size in memory that several processes share, each found by the key it begins with.

Owns how one is found. Refuses to know what is in it but the key, and which one a new
key may replace.
"""

import mmap


def find_entry(memory: mmap.mmap, key: bytes, *, start: int, end: int, size: int) -> int:
    """Give where the entry of a key begins, between ``start`` and ``end``; -1 where there is none."""
    at = memory.find(key, start, end)
    while at >= 0 and (at - start) % size:
        at = memory.find(key, at + 1, end)
    return at
