"""The listening side: connections taken, counted, and ended in order. PS3.8 Section 9.1.

Owns the accept loop, the limits on connections and the drain. The loop never
waits for a peer. Several processes may accept from one socket: who holds fewest
connections goes first. Refuses to know what an association is used for; who may
not go on is ended by the ``Watch``.
"""

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from config.settings import Dicom, Settings
from pacs.association.acceptor import ServedAssociation
from pacs.association.admission import Host
from pacs.association.limits import Occupancy
from pacs.association.message import Services
from pacs.association.overrides import silence
from pacs.association.tls import ServerTls
from pacs.association.watch import Watch
from pacs.core.errors import AddressInUse
from pacs.core.identifiers import AETitle
from pacs.core.ports import AuditTrail, Gate, Spool

LOGGER = logging.getLogger("pacs.association")

BACKLOG: Final = 128
ABORT_S: Final = 1.0
"""Time an A-ABORT gets to leave before the connections are shut down."""
RETRY_S: Final = 0.1
"""Pause after the system could not give a socket or a thread."""
YIELD_S: Final = 0.002
"""Pause before a listener that is not the least busy looks at a waiting connection again."""
PATIENCE_S: Final = 0.05
"""How long it leaves the connection to a less busy one: that one may be stuck."""


def listen(dicom: Dicom) -> socket.socket:
    """Open the listening socket. Raises ``AddressInUse``."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            dicom.host, dicom.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as failure:
        place = f"{dicom.host}:{dicom.port}"
        raise AddressInUse(f"cannot listen on {place}: {failure.strerror}") from failure
    listener.setblocking(False)
    return listener


class AssociationServer:
    """Takes connections, and serves every association on a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        gate: Gate,
        spool: Spool,
        services: Services,
        audit: AuditTrail,
        occupancy: Occupancy | None = None,
        answers_to: Callable[[AETitle], bool] = lambda _: False,
    ) -> None:
        """``answers_to`` tells further AE titles that peers may call us by, as of now."""
        silence()
        self._settings = settings
        self._occupancy = occupancy or Occupancy(settings.association)
        self._host = Host(
            settings=settings,
            gate=gate,
            spool=spool,
            services=services,
            audit=audit,
            occupancy=self._occupancy,
            answers_to=answers_to,
        )
        self._lock = threading.Lock()
        self._live: set[ServedAssociation] = set()
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._wake: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._deferred_s: float | None = None

    @property
    def open_connections(self) -> int:
        """Connections open now, associated or not."""
        return self._occupancy.connections

    @property
    def open_associations(self) -> int:
        """Associations open now; silent connections do not count."""
        return self._occupancy.associations

    def start(
        self,
        listener: socket.socket | None = None,
        *,
        encrypted: tuple[socket.socket, ServerTls] | None = None,
    ) -> int:
        """Serve in the background, on a socket that listens already if given one; gives the port.

        On ``encrypted``, too, where given, with TLS. The sockets are closed at the end. Raises ``AddressInUse``.
        """
        taken: list[tuple[socket.socket, ServerTls | None]] = []
        if listener is not None or encrypted is None:
            taken.append((listener or listen(self._settings.dicom), None))
        if encrypted is not None:
            taken.append(encrypted)
        port = int(taken[0][0].getsockname()[1])
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept_until_stopped, args=(taken, woken), name="pacs-accept", daemon=True
        )
        self._thread.start()
        self._watch = Watch(self._host, self._connections)
        self._watch.start()
        return port

    def drain(self, timeout_s: float) -> None:
        """Take nobody new; let what is being served finish, and end it at the deadline."""
        deadline = time.monotonic() + timeout_s
        self._stop_listening()
        for one in self._connections():
            one.drain()
        self._join(deadline)
        for one in self._connections():
            one.abort()
        last_s = time.monotonic() + ABORT_S
        for one in self._connections():
            one.abandon(last_s)
        self._join(time.monotonic() + self._settings.association.artim_timeout_s)

    def close(self) -> None:
        """Stop now."""
        self.drain(0.0)

    def _connections(self) -> list[ServedAssociation]:
        with self._lock:
            return list(self._live)

    def _join(self, deadline: float) -> None:
        for one in self._connections():
            one.join(max(0.0, deadline - time.monotonic()))

    def _stop_listening(self) -> None:
        self._stopping.set()
        if self._wake is not None and self._thread is not None:
            self._wake.close()
            self._thread.join()
            self._wake = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _accept_until_stopped(
        self, listeners: Sequence[tuple[socket.socket, ServerTls | None]], woken: socket.socket
    ) -> None:
        with (
            selectors.DefaultSelector() as selector,
            ExitStack() as stack,
            woken,
            self._occupancy.accepting(),
        ):
            for listener, tls in listeners:
                selector.register(stack.enter_context(listener), selectors.EVENT_READ, tls)
            selector.register(woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                waiting = selector.select(None if self._deferred_s is None else 0)
                if not waiting:
                    self._deferred_s = None  # a less busy listener has taken it
                for key, _ in waiting:
                    if not self._stopping.is_set() and isinstance(key.fileobj, socket.socket):
                        self._accept_one(key.fileobj, key.data)

    def _accept_one(self, listener: socket.socket, tls: ServerTls | None) -> None:
        try:
            accepted = self._accepted(listener)
        except BlockingIOError:
            self._deferred_s = None
            return
        except OSError as failure:
            LOGGER.error("accept-failed errno=%s", failure.errno)
            self._stopping.wait(RETRY_S)
            return
        if accepted is None:
            self._stopping.wait(YIELD_S)
            return
        self._deferred_s = None
        connection, address = accepted
        try:
            self._begin(connection, address, tls)
        except (OSError, RuntimeError) as failure:  # the system has no thread or socket to give
            LOGGER.error("connection-failed kind=%s", type(failure).__name__)
            connection.close()
            self._occupancy.disconnect(address[0])
            self._stopping.wait(RETRY_S)

    def _accepted(self, listener: socket.socket) -> tuple[socket.socket, tuple[str, int]] | None:
        """Take a connection that may be served; nothing where another listener should, or it may not."""
        with self._occupancy.turn() as ours:
            if not ours and not self._out_of_patience():
                return None
            connection, address = listener.accept()
            self._deferred_s = None
            if self._occupancy.connect(address[0]):
                return connection, (address[0], address[1])
        LOGGER.warning("connection-limit")
        connection.close()
        return None

    def _out_of_patience(self) -> bool:
        now_s = time.monotonic()
        if self._deferred_s is None:
            self._deferred_s = now_s
        return now_s - self._deferred_s >= PATIENCE_S

    def _begin(
        self, connection: socket.socket, address: tuple[str, int], tls: ServerTls | None
    ) -> None:
        association = ServedAssociation(
            self._host, connection=connection, address=address, ended=self._ended, tls=tls
        )
        with self._lock:
            self._live.add(association)
        try:
            association.start()
        except RuntimeError:
            with self._lock:
                self._live.discard(association)
            association.upper_layer.abort()
            raise

    def _ended(self, association: ServedAssociation) -> None:
        """Forget an association; said by its thread, as the last thing it does."""
        with self._lock:
            self._live.discard(association)
        self._occupancy.disconnect(association.address[0])
