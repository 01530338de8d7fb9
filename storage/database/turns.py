"""Taking turns at writing to SQLite: one queue for the threads and processes of one home.

SQLite lets writers poll for its lock, asleep for up to 100 ms at a time, and
whoever asks at the right moment is next, however long others have waited.
Here a process waits in line first and then for its turn: the two are ranges of
one file, locked with ``fcntl``, so the end of a process ends its turn too. It
is fairness only: BEGIN IMMEDIATE stays the lock that guards the data.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LINE: Final = 0
_TURN: Final = 1
_LOOK_EVERY_S: Final = 0.000_2


class TurnNeverCame(Exception):
    """Others wrote for the whole time we were ready to wait, or there is nowhere to wait."""


class WriteTurns:
    """One process's place in the queue. Safe to use from many threads."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._descriptor = -1
        self._timeout_s = timeout_s
        self._threads = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Write alone among all that take turns. Raises ``TurnNeverCame``."""
        deadline_s = time.monotonic() + self._timeout_s
        if not self._threads.acquire(timeout=self._timeout_s):
            raise TurnNeverCame
        try:
            self._open()
            self._wait_for(_LINE, deadline_s)
            try:
                self._wait_for(_TURN, deadline_s)
            finally:
                self._leave(_LINE)
            try:
                yield
            finally:
                self._leave(_TURN)
        finally:
            self._threads.release()

    def _open(self) -> None:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags, 0o640)
            except OSError as error:
                raise TurnNeverCame from error

    def _wait_for(self, place: int, deadline_s: float) -> None:
        """Take one byte of the file. Waiting in the kernel could not be bounded."""
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline_s:
                    raise TurnNeverCame from None
                time.sleep(_LOOK_EVERY_S)
            else:
                return

    def _leave(self, place: int) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def close(self) -> None:
        """Close the file; the next turn opens it again. Nobody may be writing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
