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
from pacs.app.gate import refuse_strangers, warn_of_plain_text
from pacs.app.home import exclusive, initialize
from pacs.app.metrics import measured
from pacs.app.supervisor import Signals, Supervisor
from pacs.app.workers import working
from pacs.association.server import listen

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
        refuse_strangers(archive.settings, archive.snapshots.newest())
        warn_of_plain_text(archive.settings.dicom.host, tls=False)
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
