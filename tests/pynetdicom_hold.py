"""Keeping pynetdicom's requestor from stealing its own responses.

pynetdicom pauses the thread that reads messages before each request, but looks
at a flag that may still be true from the round before: an answer that comes
within that moment is taken by the reading thread, dropped as "unexpected", and
the request waits until its timeout. A quick server on a loaded machine meets
this. Holding the thread for the association's whole life closes the gap.
"""

import threading
import time

from pynetdicom.association import Association

ARRIVES_S = 60.0


class _Held(threading.Event):
    """A checkpoint that stays closed until the association ends."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self._let_go = False

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        return super().wait(timeout)

    def set(self) -> None:
        if self._let_go:
            super().set()

    def let_go(self) -> None:
        self._let_go = True
        self.set()


def hold(association: Association) -> None:
    """Stop the reading thread of an established requestor until it is killed."""
    held = _Held()
    kill = association.kill

    def killed() -> None:
        held.let_go()
        kill()

    before = association._reactor_checkpoint
    association._reactor_checkpoint = held
    before.set()  # served at once after it was accepted, the thread may wait there already
    association.kill = killed  # type: ignore[method-assign]  # this one association only
    deadline_s = time.monotonic() + ARRIVES_S
    while not held.reached.wait(0.05):
        assert time.monotonic() < deadline_s, "pynetdicom's thread never came to its checkpoint"
        association._is_paused = True  # serving a request, the thread waits for its own pause
