"""Service classes put in front of an archive, in this process: what every listener does.

Owns the order: tidy up, listen, drain. Also serves without a supervisor, for
whoever has an archive open already.
"""

import gc
import logging
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.app.archive import Archive, open_archive
from pacs.app.control import Orders
from pacs.app.posting import posting
from pacs.app.provided import service_classes
from pacs.app.usage import counting
from pacs.association.board import Board
from pacs.association.limits import Occupancy
from pacs.association.lockout import Lockout
from pacs.association.server import AssociationServer
from pacs.association.tls import ServerTls
from pacs.observe.log import configure
from pacs.services.profile import stands_for_profile
from scp.server import Server

_LOG = logging.getLogger("pacs.serve")


class Told:
    """What a listener is told by its parent, from whatever thread hears it."""

    def __init__(self) -> None:
        self.draining = threading.Event()
        self.tls: ServerTls | None = None

    def reload(self) -> None:
        """Read the certificates again."""
        if self.tls is not None:
            self.tls.reload()


@contextmanager
def listening(
    archive: Archive,
    *,
    listener: socket.socket | None = None,
    encrypted: tuple[socket.socket, ServerTls] | None = None,
    occupancy: Occupancy | None = None,
) -> Iterator[int]:
    """Serve ``archive`` and give the port; drains at the end of the block.

    Listens by the settings unless given a ``listener`` or one with TLS,
    ``encrypted``, and counts alone unless given an ``occupancy``.
    """
    with posting(archive) as postman, counting(archive, postman) as ways:
        server = AssociationServer(
            archive.settings,
            gate=archive.gate,
            spool=archive.store,
            services=Server(
                service_classes(archive), gate=archive.gate, audit=archive.audit, ways=ways
            ),
            audit=archive.audit,
            occupancy=occupancy,
            answers_to=lambda called: stands_for_profile(archive.snapshots.newest(), called),
        )
        port = server.start(listener, encrypted=encrypted)
        try:
            yield port
        finally:
            postman.rest()
            server.drain(archive.settings.association.drain_timeout_s)
            server.close()


def hold_associations(orders: Orders, *, serving: Callable[[], None], told: Told) -> None:
    """Be a listener until told to drain; ``serving`` is called once peers may come.

    Raises what opening the archive raises.
    """
    configure(orders.settings.logging)
    _allow_descriptors()
    bounds = orders.settings.association
    board = Board(bounds.max_connections, orders.board)
    with open_archive(
        Path(orders.home),
        orders.loaded(),
        receiver=orders.receiver,
        failures=Lockout(orders.settings.legitimacy, board),
    ) as archive:
        archive.transcoder.sweep()
        taken = archive.reindex.settle()
        if taken:
            _LOG.warning("recovered instances=%d listener=%d", taken, orders.listener)
        with listening(
            archive,
            listener=_taken(orders.listening),
            encrypted=_encrypted(orders, told),
            occupancy=Occupancy(bounds, board, listener=orders.listener),
        ):
            gc.freeze()  # what is there now stays: no collection need walk it again
            serving()
            told.draining.wait()


def _taken(descriptor: int) -> socket.socket | None:
    return socket.socket(fileno=descriptor) if descriptor >= 0 else None


def _encrypted(orders: Orders, told: Told) -> tuple[socket.socket, ServerTls] | None:
    """The socket peers come to with TLS, and what they are met with. Raises ``SettingsInvalid``."""
    listener = _taken(orders.listening_tls)
    if listener is None:
        return None
    told.tls = ServerTls(orders.settings.tls, Path(orders.home))
    return listener, told.tls


def _allow_descriptors() -> None:
    """Take the hard limit of open files: ours are bounded by the settings."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
