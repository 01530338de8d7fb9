"""Identities that fail, counted for all listeners of a server, against how many may.

Owns what is too many: few of one name at one place, more of one name anywhere or of one
place whatever the name. What lies where is the ``Board``'s.
"""

import time

from config.settings import Legitimacy
from pacs.association.board import Board
from pacs.core.ports import ATTEMPT, USER


class Lockout:
    """``pacs.core.ports.Failures`` on a board; thread-safe."""

    def __init__(self, bounds: Legitimacy, board: Board | None = None) -> None:
        self._bounds = bounds
        self._board = board or Board(1)

    def blocked(self, key: str) -> bool:
        """Tell whether so many failed under ``key`` lately that the next is refused unseen."""
        with self._board.alone():
            return self._board.is_locked(key, time.monotonic())

    def note(self, key: str) -> None:
        """Count one more under ``key``."""
        with self._board.alone():
            self._board.note_failure(
                key,
                most=self._most(key),
                window_s=self._bounds.failure_window_s,
                lock_s=self._bounds.lock_s,
                now_s=time.monotonic(),
            )

    def _most(self, key: str) -> int:
        kind = key.partition(" ")[0]
        if kind == ATTEMPT:
            return self._bounds.max_failures
        if kind == USER:
            return self._bounds.max_failures_per_name
        return self._bounds.max_failures_per_address
