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
from pacs.observe.log import configure
from scp.server import Server

_LOG = logging.getLogger("pacs.serve")


@contextmanager
def listening(
    archive: Archive, *, listener: socket.socket | None = None, occupancy: Occupancy | None = None
) -> Iterator[int]:
    """Serve ``archive`` and give the port; drains at the end of the block.

    Listens by the settings unless given a ``listener``, and counts alone
    unless given an ``occupancy``.
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
        )
        port = server.start(listener)
        try:
            yield port
        finally:
            postman.rest()
            server.drain(archive.settings.association.drain_timeout_s)
            server.close()


def hold_associations(
    orders: Orders, *, serving: Callable[[], None], draining: threading.Event
) -> None:
    """Be a listener until ``draining``; ``serving`` is called once peers may come.

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
            listener=socket.socket(fileno=orders.listening),
            occupancy=Occupancy(bounds, board, listener=orders.listener),
        ):
            gc.freeze()  # what is there now stays: no collection need walk it again
            serving()
            draining.wait()


def _allow_descriptors() -> None:
    """Take the hard limit of open files: ours are bounded by the settings."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
