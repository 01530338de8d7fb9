"""Serving: lock, migrate, settle what a crash left, listen, tidy up, drain, close.

Owns the order of these steps and nothing else.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from config.load import Loaded
from pacs.app.archive import Archive, open_archive
from pacs.app.home import exclusive, initialize
from pacs.app.posting import posting
from pacs.app.provided import service_classes
from pacs.association.server import AssociationServer
from pacs.core.caller import admin
from pacs.core.errors import PacsError, SettingsInvalid
from pacs.services.gate import is_loopback
from scp.server import Server

_LOG = logging.getLogger("pacs.serve")
_TIDY_EVERY_S = 60.0
_CHECK_TIDY_S = 5.0


def refuse_strangers(archive: Archive) -> None:
    """Design section 5: beyond loopback only with a contract that identifies somebody.

    Raises ``SettingsInvalid`` saying what is missing.
    """
    host = archive.settings.dicom.host
    if host != "localhost" and not is_loopback(host):
        raise SettingsInvalid(
            f"dicom.host {host} is not loopback, and no active contract is bound to an address, "
            "client certificate or user identity: nobody could be admitted"
        )


@contextmanager
def listening(archive: Archive) -> Iterator[int]:
    """Serve ``archive`` and give the port; drains at the end of the block."""
    with posting(archive) as postman:
        server = AssociationServer(
            archive.settings,
            gate=archive.gate,
            spool=archive.store,
            services=Server(
                service_classes(archive), gate=archive.gate, audit=archive.audit, ways=postman
            ),
            audit=archive.audit,
        )
        port = server.start()
        archive.audit.record("started", None, port=port)
        try:
            yield port
        finally:
            postman.rest()
            server.drain(archive.settings.association.drain_timeout_s)
            server.close()
            archive.audit.record("stopped", None)


@contextmanager
def prepared(home: Path, loaded: Loaded) -> Iterator[Archive]:
    """Hold the home, bring the schema up, settle what a crash left, and give the archive."""
    with exclusive(home):
        initialize(home, loaded)
        with open_archive(home, loaded) as archive:
            archive.transcoder.sweep()
            taken = archive.reindex.recover()
            if taken:
                _LOG.warning("recovered instances=%d", taken)
            yield archive


def serve(home: Path, loaded: Loaded, ready: Callable[[int], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is called with the port once peers may come.

    Raises ``HomeInUse``, ``AddressInUse``, ``SettingsInvalid`` or ``RecordsFailed``.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with prepared(home, loaded) as archive:
        refuse_strangers(archive)
        with listening(archive) as port:
            tidying = threading.Thread(
                target=_tidy, args=(archive, stopping), name="pacs-tidy", daemon=True
            )
            tidying.start()
            ready(port)
            while not stopping.wait(_CHECK_TIDY_S):
                pass
        tidying.join(archive.settings.association.drain_timeout_s)


def _tidy(archive: Archive, stopping: threading.Event) -> None:
    """Remove the files of deletions whose delay is over, every minute."""
    while not stopping.wait(_TIDY_EVERY_S):
        try:
            archive.deletions.purge(admin("serve"))
        except (PacsError, OSError) as error:
            _LOG.error("purge-failed: %s", type(error).__name__)
