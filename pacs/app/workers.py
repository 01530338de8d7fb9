"""The parent of worker processes: what ``pacs worker`` runs, and what ``pacs serve`` joins.

Owns what a worker is told and that a dead one's jobs go to others at once.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from config.load import Loaded, variable
from config.settings import Jobs
from pacs.app.archive import Archive, open_archive
from pacs.app.audit import audited
from pacs.app.home import initialize
from pacs.app.nursery import Child, Nursery
from pacs.app.signals import set_on_signals
from pacs.core.errors import RecordsFailed
from pacs.core.work import Policy
from pacs.jobs.crew import Crew

_LOG = logging.getLogger("pacs.worker")
_WATCH_EVERY_S = 0.25
_LOOK_UP_S = 1.0
_KILL_AFTER_S = 10.0  # beyond the drain's own time


@contextmanager
def working(
    archive: Archive, nursery: Nursery, processes: int, queues: Sequence[str] = ()
) -> Iterator[Crew]:
    """Run worker processes of an archive for the block; drain them at its end."""
    settings = archive.settings.jobs
    crew = Crew(
        partial(_begun, archive, nursery, queues),
        processes,
        bury=partial(_bury, archive),
    )
    ended = threading.Event()
    watching = threading.Thread(target=_watch, args=(crew, settings, ended), name="pacs-crew")
    watching.start()
    try:
        yield crew
    finally:
        ended.set()
        watching.join()


def _watch(crew: Crew, settings: Jobs, ended: threading.Event) -> None:
    try:
        while not ended.is_set():
            crew.watch()
            ended.wait(_WATCH_EVERY_S)
    finally:
        crew.stop(settings.drain_timeout_s + _KILL_AFTER_S)


def _begun(
    archive: Archive, nursery: Nursery, queues: Sequence[str], owner: str, control: int
) -> Child:
    """Begin a worker, which loads the settings itself, as the command line has changed them."""
    told = ["--home", str(archive.home.absolute()), "--owner", owner]
    return nursery.begin(
        "worker",
        [*told, "--queues", ",".join(queues)] if queues else told,
        control=control,
        environment={variable("dicom", "ae_title"): archive.settings.dicom.ae_title},
    )


def _bury(archive: Archive, owner: str) -> None:
    """Let others have at once what a dead worker held."""
    try:
        archive.job_table.release(owner, Policy().max_crashes)
    except RecordsFailed as error:  # then its leases expire
        _LOG.error("release-failed: %s", error)


def run_workers(
    home: Path, loaded: Loaded, processes: int, queues: Sequence[str], ready: Callable[[], None]
) -> None:
    """Run worker processes until SIGTERM or SIGINT, beside a server or without one."""
    with Nursery() as nursery:  # before any thread
        stopping = threading.Event()
        set_on_signals(stopping)
        initialize(home, loaded)
        with (
            open_archive(home, loaded) as archive,
            audited(archive, "workers-started", "workers-stopped", processes=processes),
            working(archive, nursery, processes, queues),
        ):
            ready()
            while not stopping.wait(_LOOK_UP_S):  # a signal is taken between two waits
                pass
