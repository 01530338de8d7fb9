"""How slowly a message may come. PS3.8 knows a time for silence only.

Owns the least progress of a message under way. A peer may be slow; one that
sends a fragment now and then, for ever, keeps a thread and is not served.
"""

import time
from collections.abc import Callable
from typing import Final

NEVER_S: Final = float("inf")


class Pace:
    """Gives the time by which a message under way must have brought its next share."""

    def __init__(self, *, window_s: float, least_bytes: int) -> None:
        self.progress_bytes: Callable[[], int | None] = lambda: None
        """What messages have brought so far; ``None`` where none is under way."""
        self._window_s = window_s
        self._least_bytes = least_bytes
        self._from_bytes = 0
        self._end_s = NEVER_S

    def restart(self) -> None:
        """What has begun was left lying because we were busy; its time begins now."""
        self._end_s = NEVER_S

    def end_s(self) -> float:
        """When the present window ends; a new one begins as soon as its share has come."""
        progress = self.progress_bytes()
        if progress is None:
            self._end_s = NEVER_S
        elif self._end_s == NEVER_S or progress - self._from_bytes >= self._least_bytes:
            self._from_bytes = progress
            self._end_s = time.monotonic() + self._window_s
        return self._end_s
