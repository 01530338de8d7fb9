"""Serving: lock, migrate, settle what a crash left, start listeners and workers, drain, close.

Owns the order of these steps and nothing else.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from config.load import Loaded
from pacs.app.archive import Archive, open_archive
from pacs.app.audit import audited
from pacs.app.home import exclusive, initialize
from pacs.app.metrics import measured
from pacs.app.supervisor import Signals, Supervisor
from pacs.app.workers import working
from pacs.association.server import listen
from pacs.core.errors import SettingsInvalid
from pacs.services.gate import is_loopback

_LOG = logging.getLogger("pacs.serve")


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


def serve(home: Path, loaded: Loaded, ready: Callable[[int], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` is called with the port once all listeners serve.

    Raises ``HomeInUse``, ``AddressInUse``, ``SettingsInvalid``, ``RecordsFailed``
    or ``ListenerFailed``.
    """
    with (
        Signals().heard() as signals,
        exclusive(home) as lock,
        _settled(home, loaded) as archive,
    ):
        refuse_strangers(archive)
        listening = listen(archive.settings.dicom)
        port = int(listening.getsockname()[1])
        supervisor = Supervisor(home, loaded, listening=listening, lock=lock, signals=signals)
        with (
            audited(archive, "started", "stopped", port=port),
            closing(supervisor),
            measured(archive),
            working(archive, archive.settings.jobs.workers),
        ):
            supervisor.start()
            if supervisor.serving:
                ready(port)
            supervisor.watch()
            supervisor.drain()
