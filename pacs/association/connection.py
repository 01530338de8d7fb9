"""The byte stream under the upper layer: a TCP connection that never blocks. PS3.8 Section 9.1.

Owns the socket, the descriptor that wakes its thread, and who may close them
when. Refuses to know what the bytes mean and how long anything may take. What
is encrypted on the way is ``encrypted``'s.
"""

import logging
import os
import select
import socket
import threading
from collections import deque
from itertools import islice
from typing import Final

from pacs.core.caller import Certificate

LOGGER = logging.getLogger("pacs.association")

PIECES_AT_ONCE: Final = 1_000
"""A gather-write or scatter-read takes 1,024 at most (IOV_MAX)."""

Piece = bytes | bytearray | memoryview


class Connection:
    """One TCP connection. Everything but ``wake`` and ``shut_down`` is for one thread."""

    tls = False
    certificate: Certificate | None = None
    """What the peer has proved to be."""
    cause = ""
    """Why TLS failed, where it did."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._lock = threading.Lock()  # of the descriptors, against ``wake`` and ``shut_down``
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._readable, self._either = select.poll(), select.poll()
        for one, events in (
            (self._readable, select.POLLIN),
            (self._either, select.POLLIN | select.POLLOUT),
        ):
            one.register(connection, events)
            one.register(self._wake, select.POLLIN)

    # --- for other threads ---------------------------------------------------------

    def wake(self) -> None:
        """Let an ``await_data`` or ``await_room`` return."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def shut_down(self) -> None:
        """Cut the connection: reads and writes under way return."""
        with self._lock:
            if self._wake >= 0:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    LOGGER.debug("connection-gone-already")

    # --- for its own -------------------------------------------------------------------

    def read_into(self, view: memoryview) -> int:
        """Read what is there, 0 at the end. Raises ``BlockingIOError`` where nothing is, ``OSError``."""
        size = self._socket.recv_into(view)
        # Linux forgets it; without it a peer with Nagle on waits 40 ms for our delayed ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return size

    def write(self, waiting: deque[Piece]) -> bool:
        """Write of ``waiting``, and take off, what there is room for; tell whether that was all.

        Raises ``BlockingIOError`` where there is room for nothing, ``OSError``.
        """
        sent = self._socket.sendmsg(islice(waiting, PIECES_AT_ONCE))
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.popleft())
        if sent:
            waiting[0] = memoryview(waiting[0])[sent:]
        return not waiting

    @property
    def unsent_bytes(self) -> int:
        """What ``write`` has taken and the peer has had no room for yet."""
        return 0

    def write_now(self, pdu: bytes) -> bool:
        """Write a few bytes if that is possible at once; tell whether it was. Raises ``OSError``."""
        return self._socket.send(pdu) == len(pdu)

    def await_data(self, timeout_s: float) -> bool:
        """Wait until there is something to read; tell whether ``wake`` ended it."""
        return self._woken(dict(self._readable.poll(timeout_s * 1_000)))

    def await_room(self, timeout_s: float) -> bool:
        """Wait until something can be written or read; tell whether it can be read."""
        ready = dict(self._either.poll(timeout_s * 1_000))
        self._woken(ready)
        return bool(ready.get(self._socket.fileno(), 0) & ~select.POLLOUT)

    def close(self) -> None:
        """Close it, once."""
        with self._lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
                self._socket.close()

    def _woken(self, ready: dict[int, int]) -> bool:
        woken = self._wake in ready
        if woken:
            os.eventfd_read(self._wake)
        return woken
