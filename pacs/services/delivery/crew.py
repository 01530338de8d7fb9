"""The associations of one shipment: each a thread that sends what waits until nothing does. PS3.4 Section C.4.2.

Owns the threads, their bound and their end. A destination that takes fewer
associations than it was said to leaves the work to those it took. Refuses to
know what is sent and how it is counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing

from pacs.core.errors import PeerUnreachable
from pacs.services.delivery.fate import Shipped
from pacs.services.delivery.waiting import Waiting
from pacs.services.delivery.way import LOOK_S, Way

GRACE_S = 2.0
"""What a sub-operation under way gets to end by itself when the crew is stopped."""

Opening = Callable[[], AbstractContextManager[Way]]


class Crew:
    """Some threads, each with an association of its own, sharing what waits."""

    def __init__(self, opening: Opening, waiting: Waiting, count: int, *, untold: int = 0) -> None:
        self.opened = False
        """Whether any association was made."""
        self.trouble: PeerUnreachable | None = None
        """Why the last one was not made, or broke."""
        self._opening = opening
        self._waiting = waiting
        self._count = count
        self._most_untold = max(2 * count, untold)
        self._reported: deque[Shipped] = deque()
        self._ways: list[Way] = []
        self._to_open = self._more = 0
        self._left_in_order = False
        self._failure: Exception | None = None
        self._stopped_s: float | None = None
        self._pausing = False
        self._changed = threading.Condition()

    def pause(self) -> None:
        """Begin no further sub-operation, and let what is under way take the time it needs."""
        with self._changed:
            self._pausing = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Begin no further sub-operation. What is under way gets ``GRACE_S``, then is aborted."""
        with self._changed:
            if self._stopped_s is None:
                self._stopped_s = time.monotonic()
            self._changed.notify_all()

    def sent(self) -> Generator[Shipped | None, None, None]:
        """Yield each outcome as it comes, and ``None`` now and then while none does.

        Ends when nothing waits, when no association could be made or kept, or
        some time after ``stop``. Raises ``RecordsFailed``.
        """
        try:
            self._start(self._count)
            while True:
                one, over = self._next()
                if over:
                    if not self._worth_another():
                        return
                    self._start(1)
                else:
                    yield one
        finally:
            self.stop()
            self._abort()

    def _start(self, count: int) -> None:
        self._left_in_order = False
        self._more = count
        with self._changed:
            self._open_another()

    def _open_another(self) -> None:
        """Make one association at a time, the next when one was taken.

        Many devices count those being made against their limit and would
        reject them all; one that rejects has said how many it takes.
        """
        if not self._more or not self._going() or self._waiting.empty:
            return
        self._more -= 1
        self._to_open += 1
        # It ends by itself: every wait of an association has a bound.
        threading.Thread(target=self._work, name="move", daemon=True).start()

    def _worth_another(self) -> bool:
        """An association that broke gave back what it had looked at, and the others had ended well."""
        if self._failure is not None:
            raise self._failure
        return self._left_in_order and self._going() and not self._waiting.empty

    def _going(self) -> bool:
        return self._stopped_s is None and not self._pausing

    def _next(self) -> tuple[Shipped | None, bool]:
        """Wait for the next outcome; tell whether there will be none."""
        with self._changed:
            if not self._reported and not self._over():
                self._changed.wait(LOOK_S)
            if self._reported:
                one = self._reported.popleft()
                self._changed.notify_all()
                return one, False
            if self._over():
                return None, True
        if self._overdue(GRACE_S):
            self._abort()
        return None, False

    def _over(self) -> bool:
        """An association that is still being made is not waited for when nothing is left for it."""
        if self._ways:
            return self._overdue(2 * GRACE_S)
        return not self._to_open or not self._going() or self._waiting.empty

    def _overdue(self, grace_s: float) -> bool:
        return self._stopped_s is not None and time.monotonic() > self._stopped_s + grace_s

    def _abort(self) -> None:
        with self._changed:
            for way in self._ways:
                way.abort()

    # --- in the threads ----------------------------------------------------------------

    def _work(self) -> None:
        joined = False
        try:
            with self._opening() as way:
                with self._changed:
                    self._to_open -= 1
                    self.opened = joined = True
                    self._ways.append(way)
                    self._open_another()
                try:
                    with closing(way):
                        self._send(way)
                finally:
                    with self._changed:
                        self._ways.remove(way)
                        self._changed.notify_all()
        except PeerUnreachable as trouble:
            self.trouble = trouble  # its share waits for the others; what was under way is reported
        except Exception as failure:  # noqa: BLE001 - raised again by who follows the crew
            self._failure = failure
        finally:
            with self._changed:
                self._to_open -= not joined
                self._changed.notify_all()

    def _send(self, way: Way) -> None:
        while self._may_go_on() and (one := way.send_next()) is not None:
            with self._changed:
                self._reported.append(one)
                self._changed.notify_all()
            if way.broken:
                return
        self._left_in_order = True

    def _may_go_on(self) -> bool:
        """Wait until what was reported has been told: who asked sets the pace, too."""
        with self._changed:
            while len(self._reported) > self._most_untold and self._going():
                self._changed.wait(LOOK_S)
            return self._going()
