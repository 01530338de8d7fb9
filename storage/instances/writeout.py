"""Asking the kernel to begin writing a file out while more of it arrives. sync_file_range(2), Linux.

A hint for speed and never a promise: nothing is durable before the ``fsync``
that follows, which then has little left to wait for. Where the system does not
know the call nothing is begun early, and everything else is the same.
"""

import ctypes
from collections.abc import Callable
from typing import Final

PAGE_BYTES: Final = 4_096
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE: begin, and wait for nothing

Begin = Callable[[int, int, int], object]
"""Descriptor, first byte, number of bytes. Its answer says nothing: ``fsync`` is asked anyway."""


def _nothing(_descriptor: int, _start: int, _count: int) -> None:
    """Leave all of the writing to ``fsync``."""


def _begin() -> Begin:
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (AttributeError, OSError):
        return _nothing
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda descriptor, start, count: call(descriptor, start, count, _WRITE)


begin_writing: Final[Begin] = _begin()
"""Begin to write a range of a file out; returns at once and leaves errors to ``fsync``."""
