"""The byte stream under the upper layer, encrypted: TLS between the socket and whoever reads and writes.

Owns the handshake, which is advanced by whoever reads, and the bounds of what
lies between the two sides: TLS works in memory, so the socket is polled, read
and written as a plain one is. Refuses to know who is trusted: the context and
``check`` say so.
"""

import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pacs.association.connection import Connection, Piece
from pacs.core.caller import Certificate

LOGGER = logging.getLogger("pacs.association")

READ_BYTES: Final = 131_072
"""Encrypted bytes taken from the socket at once."""
STEP_BYTES: Final = 131_072
"""What is encrypted at once: so much, and what TLS adds to it, waits for the peer at most."""
MOST_UNSENT_BYTES: Final = 4 * STEP_BYTES
"""A peer that makes TLS answer it and never reads the answers is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a connection is encrypted, and who may be on the other side.

    ``check`` gets the peer's certificate, DER or ``None``, as soon as the context has verified
    it; it gives what it proves, and raises ``ssl.SSLError`` where that is not enough.
    ``refused`` is told, once, why the handshake failed.
    """

    context: ssl.SSLContext
    server_side: bool
    check: Callable[[bytes | None], Certificate | None]
    refused: Callable[[str], None]


class EncryptedConnection(Connection):
    """One TLS connection over TCP."""

    tls = True

    def __init__(self, connection: socket.socket, terms: Terms) -> None:
        self._terms = terms
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = terms.context.wrap_bio(
            self._incoming, self._outgoing, server_side=terms.server_side
        )
        self._unsent = memoryview(b"")
        self._secured = self._more = False
        super().__init__(connection)

    # --- reading -------------------------------------------------------------------------

    def read_into(self, view: memoryview) -> int:
        """Read what is there; takes from the socket once, so that no peer keeps us here."""
        if self.cause:
            return self._swallow()
        size = self._decrypted(view)
        if size is None:
            if not self._take():
                return 0
            size = self._decrypted(view)
        if self.unsent_bytes > MOST_UNSENT_BYTES:
            raise ConnectionAbortedError("the peer does not read what TLS answers it")
        if size is None:
            raise BlockingIOError
        return size

    def _decrypted(self, view: memoryview) -> int | None:
        """Decrypt what lies here; 0 at the end, ``None`` where nothing does. Raises ``OSError``."""
        size = 0
        try:
            if not self._secured and not self._shake():
                return None
            while size < len(view):
                got = self._session.read(len(view) - size, view[size:])
                if not got:  # close_notify
                    return size
                size += int(got)
        except ssl.SSLWantReadError:
            self._more = False
            return size or None
        except ssl.SSLError as error:
            self._fail(error)
            return None
        finally:
            self._send_quietly()
        self._more = True
        return size

    def _shake(self) -> bool:
        """Take the handshake further; tell whether it is done. Raises ``ssl.SSLError``."""
        self._session.do_handshake()
        self.certificate = self._terms.check(self._session.getpeercert(binary_form=True))
        self._secured = True
        LOGGER.debug("tls version=%s suite=%s", self._session.version(), self._session.cipher())
        return True

    def _fail(self, error: ssl.SSLError) -> None:
        """Let the peer have its alert; whoever calls is told by an error, whoever serves waits for the end."""
        during_handshake = not self._secured
        self.cause = cause_of(error)
        self._send_quietly()
        if not during_handshake or not self._terms.server_side:
            LOGGER.info("tls-failed why=%s", self.cause)
            raise error
        # Closed with bytes unread, the connection would be reset before the peer reads the alert.
        self._half_close()
        self._terms.refused(self.cause)

    def _half_close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            LOGGER.debug("connection-gone-already")

    def _swallow(self) -> int:
        if self._socket.recv(READ_BYTES):
            raise BlockingIOError
        return 0

    def _take(self) -> bool:
        """Take encrypted bytes from the socket; ``False`` at the end. Raises as ``read_into``."""
        encrypted = self._socket.recv(READ_BYTES)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._incoming.write(encrypted)
        return bool(encrypted)

    def await_data(self, timeout_s: float) -> bool:
        """Wait until there is something to read; what TLS itself has to say goes out meanwhile."""
        if not self.unsent_bytes:
            return super().await_data(timeout_s)
        ready = dict(self._either.poll(timeout_s * 1_000))
        self._send_quietly()
        return self._woken(ready)

    def await_room(self, timeout_s: float) -> bool:
        """Wait until something can be written or read; what is decrypted already can be read."""
        return super().await_room(0.0 if self._more else timeout_s) or self._more

    # --- writing -------------------------------------------------------------------------

    @property
    def unsent_bytes(self) -> int:
        """What is encrypted and the peer has had no room for yet."""
        return len(self._unsent) + self._outgoing.pending

    def write(self, waiting: deque[Piece]) -> bool:
        """Encrypt of ``waiting`` as much as may be held, and write it."""
        self._send()
        if waiting:
            self._session.write(_gathered(waiting, STEP_BYTES))
            self._send_quietly()
        return not waiting and not self.unsent_bytes

    def write_now(self, pdu: bytes) -> bool:
        """Write a few bytes if that is possible at once; tell whether it was."""
        return self._secured and self.write(deque([pdu]))

    def _send(self) -> None:
        """Send all that is encrypted. Raises ``BlockingIOError`` where there is no room for it."""
        while self.unsent_bytes:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def _send_quietly(self) -> None:
        """Send what there is room for; that the connection is gone, whoever reads will find."""
        try:
            self._send()
        except OSError:
            LOGGER.debug("tls-unsent bytes=%d", self.unsent_bytes)

    # --- beginning and end -----------------------------------------------------------------

    def secure(self, timeout_s: float) -> None:
        """Do the handshake first of all, as whoever calls must. Raises ``OSError``."""
        deadline_s = time.monotonic() + timeout_s
        while self._decrypted(memoryview(b"")) is None:
            rest_s = deadline_s - time.monotonic()
            if rest_s <= 0:
                raise TimeoutError("no handshake in time")
            self.await_data(rest_s)
            try:
                if not self._take():
                    raise ConnectionResetError("the peer closed the connection")
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Say goodbye if there is room for it (close_notify), and close."""
        if self._wake >= 0 and self._secured:
            try:
                self._session.unwrap()
            except (
                ssl.SSLError
            ):  # it would wait for the peer's own, or there is nothing left to end
                LOGGER.debug("tls-closed")
            self._send_quietly()
        super().close()


def cause_of(error: ssl.SSLError) -> str:
    """Say why a handshake failed, in the words of the library.

    >>> cause_of(ssl.SSLError(1, "[SSL: NO_SHARED_CIPHER] no shared cipher"))
    '[SSL: NO_SHARED_CIPHER] no shared cipher'
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error.args[-1])


def _gathered(waiting: deque[Piece], most_bytes: int) -> Piece:
    """Take pieces off, together ``most_bytes`` at most, as one."""
    taken: list[Piece] = []
    size = 0
    while waiting and size < most_bytes:
        piece = waiting.popleft()
        rest = most_bytes - size
        if len(piece) > rest:
            whole = memoryview(piece)
            piece = whole[:rest]
            waiting.appendleft(whole[rest:])
        taken.append(piece)
        size += len(piece)
    return taken[0] if len(taken) == 1 else b"".join(taken)
