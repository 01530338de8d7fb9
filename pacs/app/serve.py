"""Serving: lock, migrate, settle what a crash left, start listeners and workers, drain, close.

Owns the order of these steps and nothing else.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec

from config.load import Loaded
from config.settings import Settings
from pacs.app.archive import Archive, open_archive
from pacs.app.audit import audited
from pacs.app.gate import refuse_strangers, warn_of_plain_text
from pacs.app.home import exclusive, initialize
from pacs.app.metrics import measured
from pacs.app.nursery import Nursery
from pacs.app.supervisor import Doors, Signals, Supervisor
from pacs.app.workers import working
from pacs.association.server import listen
from pacs.association.tls import server_context
from pacs.core.errors import SettingsInvalid

_LOG = logging.getLogger("pacs.serve")


@contextmanager
def prepared(home: Path, loaded: Loaded) -> Iterator[Archive]:
    """Hold the home, bring the schema up, settle what a crash left, and give the archive."""
    with exclusive(home), _settled(home, loaded) as archive:
        yield archive


@contextmanager
def _settled(home: Path, loaded: Loaded) -> Iterator[Archive]:
    initialize(home, loaded)
    with open_archive(home, loaded) as archive:
        archive.transcoder.sweep()
        taken = archive.reindex.recover()
        if taken:
            _LOG.warning("recovered instances=%d", taken)
        yield archive


def open_doors(settings: Settings, home: Path) -> Doors:
    """Listen where peers may come. Raises ``AddressInUse`` or ``SettingsInvalid``."""
    if not settings.tls.plain and not settings.tls.port:
        raise SettingsInvalid("tls.plain is false and tls.port is 0: nobody could come")
    if settings.tls.port:
        server_context(settings.tls, home)  # what cannot be used is said here, once
    with ExitStack() as stack:
        plain = stack.enter_context(listen(settings.dicom)) if settings.tls.plain else None
        tls = None
        if settings.tls.port:
            tls = listen(msgspec.structs.replace(settings.dicom, port=settings.tls.port))
        stack.pop_all()
    return Doors(plain=plain, tls=tls)


def serve(home: Path, loaded: Loaded, ready: Callable[[int | None, int | None], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is called with the ports once all listeners serve.

    Raises ``HomeInUse``, ``AddressInUse``, ``SettingsInvalid``, ``RecordsFailed``
    or ``ListenerFailed``.
    """
    with (
        Nursery() as nursery,  # before anything is opened, and any thread begun
        Signals().heard() as signals,
        exclusive(home) as lock,
        _settled(home, loaded) as archive,
    ):
        settings = archive.settings
        refuse_strangers(settings, archive.snapshots.newest())
        doors = open_doors(settings, home)
        port, tls_port = doors.ports
        warn_of_plain_text(settings.dicom.host, tls=not settings.tls.plain)
        supervisor = Supervisor(
            home, loaded, nursery=nursery, doors=doors, lock=lock, signals=signals
        )
        with (
            audited(archive, "started", "stopped", port=port, tls_port=tls_port),
            closing(supervisor),
            measured(archive),
            working(archive, nursery, settings.jobs.workers),
        ):
            archive.workitems.watching.restarted()
            supervisor.start()
            if supervisor.serving:
                ready(port, tls_port)
            supervisor.watch()
            supervisor.drain()
