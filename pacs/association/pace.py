"""How slowly a message may come. PS3.8 knows a time for silence only.

Owns the least progress of a message under way. A peer may be slow; one that
sends a fragment now and then, for ever, keeps a thread and is not served.
"""

import time
from collections.abc import Callable
from typing import Final

NEVER_S: Final = float("inf")

Progress = Callable[[], tuple[int, int] | None]
"""Number of the message under way, and the bytes all have brought; ``None`` where none is."""


class Pace:
    """Gives the time by which a message under way must have brought its next share."""

    def __init__(self, *, window_s: float, least_bytes: int) -> None:
        self.progress: Progress = lambda: None
        self._window_s = window_s
        self._least_bytes = least_bytes
        self._message = self._from_bytes = 0
        self._end_s = NEVER_S

    def restart(self) -> None:
        """What has begun was left lying because we were busy; its time begins now."""
        self._end_s = NEVER_S

    def end_s(self) -> float:
        """When the present window ends; a new one begins as soon as its share has come."""
        progress = self.progress()
        if progress is None:
            return NEVER_S
        message, brought_bytes = progress
        within = message == self._message and self._end_s != NEVER_S
        if not within or brought_bytes - self._from_bytes >= self._least_bytes:
            self._message, self._from_bytes = message, brought_bytes
            self._end_s = time.monotonic() + self._window_s
        return self._end_s
