"""The parent of worker processes: what ``pacs worker`` runs, and what ``pacs serve`` joins.

Owns which command a worker is and that a dead one's jobs go to others at once.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from config.load import Loaded
from config.settings import Jobs
from pacs.app.archive import Archive, open_archive
from pacs.app.home import initialize
from pacs.core.errors import RecordsFailed
from pacs.core.work import Policy
from pacs.jobs.crew import Crew

_LOG = logging.getLogger("pacs.worker")
_WATCH_EVERY_S = 0.25
_KILL_AFTER_S = 10.0  # beyond the drain's own time


def crew_of(
    archive: Archive,
    processes: int,
    queues: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Crew:
    """Make the worker processes of an archive; ``watch`` starts them."""
    command = [sys.executable, "-m", "pacs.app.worker", "--home", str(archive.home)]
    if queues:
        command += ["--queues", ",".join(queues)]

    def bury(owner: str) -> None:
        try:
            archive.job_table.release(owner, Policy().max_crashes)
        except RecordsFailed as error:  # then its leases expire
            _LOG.error("release-failed: %s", error)

    return Crew(command, processes, bury=bury, environment={**os.environ, **(environment or {})})


def stop_crew(crew: Crew, settings: Jobs) -> None:
    """Drain the worker processes; each ends by itself when its time is over."""
    crew.stop(settings.drain_timeout_s + _KILL_AFTER_S)


def run_workers(
    home: Path, loaded: Loaded, processes: int, queues: Sequence[str], ready: Callable[[], None]
) -> None:
    """Run worker processes until SIGTERM or SIGINT, beside a server or without one."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    initialize(home, loaded)
    with open_archive(home, loaded) as archive:
        crew = crew_of(archive, processes, queues)
        try:
            crew.watch()
            ready()
            while not stopping.wait(_WATCH_EVERY_S):
                crew.watch()
        finally:
            stop_crew(crew, loaded.settings.jobs)
