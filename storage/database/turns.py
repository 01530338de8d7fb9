"""Turns of processes that write to one SQLite database often.

SQLite's own waiting is polling with growing sleeps: who has just written takes
the lock again, and the others starve. A lock of the kernel wakes whoever waits.
It orders writers only; what makes a write right is the database's own lock.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """One file on which processes of one machine queue."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it for the block. A nested one is part of the outer."""
        depth: int = getattr(self._own, "depth", 0)
        if depth == 0:
            # A descriptor of its own for each turn: flock tells threads apart by it.
            self._own.descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._own.descriptor, fcntl.LOCK_EX)
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if depth == 0:
                os.close(self._own.descriptor)
