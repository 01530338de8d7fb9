"""What is made ready while something else is sent: conversions and changed copies, ahead of their turn.

Owns the threads that wait for them and the bounds, by number and by bytes, of
all deliveries of one process together. Refuses to know what is made.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from config.settings import Retrieve as RetrieveSettings
from pacs.core.errors import TranscodingInterrupted
from pacs.core.records import Payload

_PER_CORE = 2
"""While one is being made on a core, the next waits to be sent."""
_IN_TURN = 64
"""Threads for those whose turn has come before they were ready; more associations wait for one."""

Make = Callable[[], AbstractContextManager[Payload]]


class Ahead:
    """Room for what is made ahead. For any number of threads; to be used after forking."""

    def __init__(self, settings: RetrieveSettings) -> None:
        self.most = settings.convert_ahead or _PER_CORE * (os.cpu_count() or 1)
        self._most_bytes = settings.convert_ahead_bytes
        self._threads = ThreadPoolExecutor(self.most + _IN_TURN, thread_name_prefix="ahead")
        self._lock = threading.Lock()
        self._count = self._bytes = 0

    def begin(self, make: Make, expected_bytes: int) -> "Making | None":
        """Begin to make one; ``None`` where there is no room: then it is made when its turn comes.

        ``expected_bytes`` count until it is there, then what its file has if that is more.
        """
        with self._lock:
            if self._count >= self.most or self._bytes + expected_bytes > self._most_bytes:
                return None
            self._count += 1
            self._bytes += expected_bytes
        return self._begun(Making(self, expected_bytes), make)

    def begin_now(self, make: Make) -> "Making | None":
        """Begin to make one whose turn has come: it counts against no bound. ``None`` once closed."""
        making = Making(self, 0)
        making.counts = False
        return self._begun(making, make)

    def _begun(self, making: "Making", make: Make) -> "Making | None":
        try:
            making.future = self._threads.submit(making.make, make)
        except RuntimeError:  # closed: whoever sends still ends by itself
            self.release(making)
            return None
        return making

    def found(self, making: "Making", size_bytes: int) -> None:
        """It is there, and has so many bytes."""
        with self._lock:
            if making.counts and size_bytes > making.size_bytes:
                self._bytes += size_bytes - making.size_bytes
                making.size_bytes = size_bytes

    def release(self, making: "Making") -> None:
        """Count it no longer: its turn has come, or it is gone."""
        with self._lock:
            self._count -= making.counts
            self._bytes -= making.counts * making.size_bytes
            making.counts = False

    @property
    def used(self) -> tuple[int, int]:
        """How many are being made or wait for their turn, and their bytes."""
        with self._lock:
            return self._count, self._bytes

    def close(self) -> None:
        """Begin nothing more; what is being made ends with the codecs' workers."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Making:
    """One that is made ahead. ``close`` it, whatever became of it."""

    future: Future[Payload]

    def __init__(self, ahead: Ahead, expected_bytes: int) -> None:
        self.size_bytes = expected_bytes
        self.counts = True
        """Both are for ``Ahead``, under its lock."""
        self._ahead = ahead
        self._made = ExitStack()

    def make(self, make: Make) -> Payload:
        """In a thread of its own."""
        payload = self._made.enter_context(make())
        self._ahead.found(self, Path(payload.path).stat().st_size)
        return payload

    @property
    def ready(self) -> Payload | None:
        """What was made, where it is there and nothing failed."""
        done = self.future.done() and not self.future.cancelled()
        return self.future.result() if done and self.future.exception() is None else None

    def is_over(self, within_s: float) -> bool:
        """Wait so long at most until it is there, or cannot be made."""
        return bool(wait((self.future,), within_s).done)

    def turn(self) -> None:
        """Its turn has come: leave the room to another."""
        self._ahead.release(self)

    def result(self) -> Payload:
        """Wait for it.

        Raises what making it raised, ``TranscodingInterrupted`` where we end before.
        """
        try:
            return self.future.result()
        except CancelledError as closed:
            raise TranscodingInterrupted("nothing is made ahead any more") from closed

    def close(self) -> None:
        """Let go of it: at once, or as soon as the codec under way has ended."""
        self.future.cancel()
        self.future.add_done_callback(self._leave)

    def _leave(self, _: Future[Payload]) -> None:
        try:
            self._made.close()
        finally:
            self._ahead.release(self)
