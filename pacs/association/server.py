"""The listening side: connections taken, counted, and ended in order. PS3.8 Section 9.1.

Owns the listening socket, the limits on connections and the drain. The accept
loop never waits for a peer. Refuses to know what an association is used for.
"""

import logging
import selectors
import socket
import threading
import time
from typing import Final

from config.settings import Settings
from pacs.association.acceptor import ServedAssociation
from pacs.association.admission import Host
from pacs.association.limits import Occupancy
from pacs.association.message import Services
from pacs.association.overrides import silence
from pacs.core.errors import AddressInUse
from pacs.core.ports import AuditTrail, Gate, Spool

LOGGER = logging.getLogger("pacs.association")

BACKLOG: Final = 128
ABORT_S: Final = 1.0
"""Time an A-ABORT gets to leave before the connections are shut down."""
RETRY_S: Final = 0.1
"""Pause after the system could not give a socket or a thread."""


class AssociationServer:
    """Listens, and serves every association on threads of its own."""

    def __init__(
        self,
        settings: Settings,
        *,
        gate: Gate,
        spool: Spool,
        services: Services,
        audit: AuditTrail,
    ) -> None:
        silence()
        bounds = settings.association
        self._settings = settings
        self._occupancy = Occupancy(
            max_connections=bounds.max_connections,
            max_associations=bounds.max_associations,
            max_associations_per_host=bounds.max_associations_per_host,
        )
        self._host = Host(
            settings=settings,
            gate=gate,
            spool=spool,
            services=services,
            audit=audit,
            occupancy=self._occupancy,
        )
        self._lock = threading.Lock()
        self._live: set[ServedAssociation] = set()
        self._stopping = threading.Event()
        self._listener: socket.socket | None = None
        self._wake: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def open_associations(self) -> int:
        """Associations open now; silent connections do not count."""
        return self._occupancy.associations

    def start(self) -> int:
        """Listen, and serve in the background. Gives the port. Raises ``AddressInUse``."""
        dicom = self._settings.dicom
        try:
            family, _, _, _, address = socket.getaddrinfo(
                dicom.host, dicom.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as failure:
            place = f"{dicom.host}:{dicom.port}"
            raise AddressInUse(f"cannot listen on {place}: {failure.strerror}") from failure
        self._listener.setblocking(False)
        self._wake, woken = socket.socketpair()
        self._thread = threading.Thread(
            target=self._accept_until_stopped,
            args=(self._listener, woken),
            name="pacs-accept",
            daemon=True,
        )
        self._thread.start()
        return int(self._listener.getsockname()[1])

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

    def _accept_until_stopped(self, listener: socket.socket, woken: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, listener, woken:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                if not self._stopping.is_set():
                    self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except BlockingIOError:
            return
        except OSError as failure:
            LOGGER.error("accept-failed errno=%s", failure.errno)
            self._stopping.wait(RETRY_S)
            return
        if not self._occupancy.connect():
            LOGGER.warning("connection-limit")
            connection.close()
            return
        try:
            self._begin(connection, (address[0], address[1]))
        except (OSError, RuntimeError) as failure:  # the system has no thread or socket to give
            LOGGER.error("connection-failed kind=%s", type(failure).__name__)
            connection.close()
            self._occupancy.disconnect()
            self._stopping.wait(RETRY_S)

    def _begin(self, connection: socket.socket, address: tuple[str, int]) -> None:
        association = ServedAssociation(
            self._host,
            connection=connection,
            address=address,
            ended=self._occupancy.disconnect,
        )
        try:
            association.start()
        except RuntimeError:
            association.upper_layer.abort()
            raise
        with self._lock:
            self._live = {one for one in self._live if one.is_alive()}
            self._live.add(association)
