"""What is still to be sent, in order, for any number of threads."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pacs.core.ports import RetrieveIndex
from pacs.core.records import Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """How what waits is read: so many rows at a time, and who is told of a page before it is begun.

    ``before`` runs in whichever thread needs the page, one at a time; what it raises ends the sending.
    ``untold`` outcomes may wait for whoever counts them before nothing further is begun.
    """

    rows: int = 100
    untold: int = 0
    before: Callable[[Sequence[Held]], None] = lambda _: None


class Waiting:
    """The instances still to be sent, in order, for any number of threads.

    Their rows are read a page at a time, so that memory does not grow with the
    selection.
    """

    def __init__(
        self, index: RetrieveIndex, rows: Sequence[int], pages: Pages | None = None
    ) -> None:
        self._index = index
        self._pages = pages or Pages()
        self._rows = rows
        self._at = 0
        self._page: deque[Held] = deque()
        self._vanished = 0
        self._lock = threading.Lock()

    @property
    def untold(self) -> int:
        """How many outcomes may wait to be counted."""
        return self._pages.untold

    @property
    def empty(self) -> bool:
        """Tell whether everything has been taken, or has vanished."""
        with self._lock:
            return not self._page and self._at >= len(self._rows)

    def take(self) -> Held | None:
        """Give the next one; ``None`` when nothing waits. Raises ``RecordsFailed``."""
        with self._lock:
            while not self._page and self._at < len(self._rows):
                some = self._rows[self._at : self._at + self._pages.rows]
                found = self._index.fetch(some)
                if found:
                    self._pages.before(found)
                self._page.extend(found)
                self._vanished += len(some) - len(found)
                self._at += len(some)
            return self._page.popleft() if self._page else None

    def give_back(self, held: Held) -> None:
        """Let somebody else send it: it was taken and has not been begun."""
        with self._lock:
            self._page.appendleft(held)

    def vanished(self) -> int:
        """Count those found deleted since this was last asked."""
        with self._lock:
            count, self._vanished = self._vanished, 0
            return count
