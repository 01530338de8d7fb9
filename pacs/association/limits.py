"""How many connections and associations are open, against how many may be.

Owns the limits; they hold for all listeners of a server together, because the
counts stand on a ``Board`` they share. A connection that has not associated
yet occupies a connection and nothing else, and one host has only some of
those, so silent peers cannot keep others from associating.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from config.settings import Association
from pacs.association.board import Board


class Occupancy:
    """One listener's view of what is open; thread-safe."""

    def __init__(
        self, bounds: Association, board: Board | None = None, *, listener: int = 0
    ) -> None:
        self._bounds = bounds
        self._board = board or Board(bounds.max_connections)
        self._listener = listener

    @property
    def connections(self) -> int:
        """Connections open now, of all listeners."""
        with self._board.alone():
            return self._board.connections()

    @property
    def associations(self) -> int:
        """Associations open now, of all listeners."""
        with self._board.alone():
            return self._board.associations()

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Be one of those who take connections until the block ends."""
        with self._board.alone():
            self._board.accepting(self._listener, True)
        try:
            yield
        finally:
            with self._board.alone():
                self._board.accepting(self._listener, False)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Tell whether no accepting listener holds fewer connections; that stays true in the block."""
        with self._board.alone():
            mine = self._board.of_listener(self._listener)
            yield mine <= self._board.least_of_accepting()

    def connect(self, host: str) -> bool:
        """Occupy a connection; ``False`` when all, or all of this host without association, are taken."""
        with self._board.alone():
            waiting = sum(1 for *_, associated in self._board.of_host(host) if not associated)
            if waiting >= self._bounds.max_unassociated_per_host:
                return False
            return self._board.take(host, self._listener)

    def disconnect(self, host: str) -> None:
        """Give a connection of ``host`` back; its association is given back before."""
        with self._board.alone():
            slot = self._slot(host, associated=False)
            if slot is not None:
                self._board.give(slot)

    def associate(self, host: str) -> bool:
        """Occupy an association for ``host``; ``False`` when all, or all of its own, are taken, or it asks too often."""
        with self._board.alone():
            if self._board.associations() >= self._bounds.max_associations:
                return False
            held = sum(1 for *_, associated in self._board.of_host(host) if associated)
            if held >= self._bounds.max_associations_per_host:
                return False
            slot = self._slot(host, associated=False)
            if slot is None or not self._board.may_associate(
                host, per_minute=self._bounds.max_per_minute_per_host, now_s=time.monotonic()
            ):
                return False
            self._board.associate(slot, True)
            return True

    def leave(self, host: str) -> None:
        """Give an association of ``host`` back; its connection stays."""
        with self._board.alone():
            slot = self._slot(host, associated=True)
            if slot is not None:
                self._board.associate(slot, False)

    def _slot(self, host: str, *, associated: bool) -> int | None:
        """One of our connections of a host: those in the same state are alike."""
        for slot, owner, is_associated in self._board.of_host(host):
            if owner == self._listener and is_associated == associated:
                return slot
        return None
