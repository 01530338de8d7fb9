"""A pynetdicom requestor that loses no answer to its own threads, though they go on running.

pynetdicom pauses the thread that reads messages before each request, but looks
at a flag that may be true from the round before: then the thread takes the
response and drops it. ``tests.pynetdicom_hold`` stops that thread for good;
here it must run, because these tests watch it notice releases and aborts. So
the flag is taken back when the pause begins, under a lock the thread honours.

And who asks for an association looks whether the connection was made only when
its other thread may have read a rejection already and closed: then it says
that there was no connection. So closing waits until it has looked.
"""

import threading
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

LOOKS_S = 2.0


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


class Ready(threading.Event):
    """Set when the connection is made or is not; knows who waits to look which."""

    def __init__(self) -> None:
        super().__init__()
        self.looker: int | None = None
        self.looked = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.looker = threading.get_ident()
        return super().wait(timeout)


class Connected:
    """Whether there is a connection; told to who waited before it can change again."""

    def __get__(self, one: AssociationSocket, owner: type) -> bool:
        ready = one._ready
        if isinstance(ready, Ready) and ready.looker == threading.get_ident():
            ready.looked.set()
        return bool(vars(one).get("connected"))

    def __set__(self, one: AssociationSocket, value: bool) -> None:
        ready = one._ready
        if not value and isinstance(ready, Ready) and self.__get__(one, type(one)):
            ready.looked.wait(LOOKS_S)
        vars(one)["connected"] = value


def install(patch: Any) -> None:
    """Give every pynetdicom association a checkpoint and a connection of these kinds."""
    open_socket = AssociationSocket.__init__

    def opened(self: AssociationSocket, *args: Any, **more: Any) -> None:
        open_socket(self, *args, **more)
        if self._assoc.is_requestor and not self._ready.is_set():
            self._ready = Ready()

    patch.setattr(AssociationSocket, "__init__", opened)
    patch.setattr(AssociationSocket, "_is_connected", Connected(), raising=False)
    begin = Association.__init__

    def begun(self: Association, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        self._reactor_checkpoint = Checkpoint(self)

    patch.setattr(Association, "__init__", begun)
