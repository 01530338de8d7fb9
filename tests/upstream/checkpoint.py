"""A pynetdicom requestor that does not steal its own responses, though its threads go on running.

pynetdicom pauses the thread that reads messages before each request, but looks
at a flag that may be true from the round before: then the thread takes the
response and drops it. ``tests.pynetdicom_hold`` stops that thread for good;
here it must run, because these tests watch it notice releases and aborts. So
the flag is taken back when the pause begins, under a lock the thread honours.
"""

import threading
from typing import Any

from pynetdicom.association import Association


class Checkpoint(threading.Event):
    """Where the reading thread pauses; who pauses it never sees an old flag."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._looking = threading.Lock()
        self.set()

    def clear(self) -> None:
        with self._looking:
            held = not self.is_set()
            super().clear()
            reader = self._association
            if not held and reader.is_alive() and threading.current_thread() is not reader:
                reader._is_paused = False

    def wait(self, timeout: float | None = None) -> bool:
        with self._looking:
            if self.is_set():
                return True
            self._association._is_paused = True
        return super().wait(timeout)


def install(patch: Any) -> None:
    """Give every pynetdicom association a checkpoint of this kind."""
    begin = Association.__init__

    def begun(self: Association, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        self._reactor_checkpoint = Checkpoint(self)

    patch.setattr(Association, "__init__", begun)
