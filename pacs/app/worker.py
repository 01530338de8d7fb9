"""One worker process: the nursery forks it for ``pacs worker`` and ``pacs serve``.

It ends when told to by SIGTERM, and also when its server or its nursery has:
the control pipe is closed then. Either way the job at hand is finished or
given back. ``python -m pacs.app.worker`` is one without either.
"""

import argparse
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from config.load import SettingsRefused, load
from config.settings import Jobs
from pacs.app.archive import Archive, open_archive, store_folder
from pacs.app.extension import installed
from pacs.app.signals import set_on_signals
from pacs.core.errors import PacsError
from pacs.jobs.broker import Listener
from pacs.jobs.keeper import Keeper
from pacs.jobs.kinds import JobKind, Schedule, base_of, bases
from pacs.jobs.schedules import Scheduler
from pacs.jobs.worker import Worker
from pacs.observe.log import configure
from storage.instances.receivers import receiver

_LOG = logging.getLogger("pacs.worker")
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LISTENER_STOP_S = 5.0


def main(
    arguments: Sequence[str] | None = None, *, control: int | None = None, parent: int = 0
) -> int:
    """Work until told to stop, and while the other end of the pipe ``control`` and ``parent`` live."""
    options = _parsed(arguments)
    stopping = threading.Event()
    set_on_signals(stopping)
    if control is not None:
        _end_with(control, parent, stopping)
    try:
        loaded = load(options.home, os.environ, {one.name: one.settings for one in installed()})
        configure(loaded.settings.logging)
        with (
            receiver(store_folder(options.home, loaded.settings)) as name,
            open_archive(options.home, loaded, receiver=name) as archive,
        ):
            _settle(archive, name)
            work(archive, options.owner, options.queues, stopping)
    except (PacsError, SettingsRefused) as error:
        _LOG.error("worker-failed: %s", error)
        return 1
    return 0


def _settle(archive: Archive, name: str) -> None:
    """Deal with what a worker of our name, and those nobody replaced, left on their way."""
    archive.transcoder.sweep()
    taken = archive.reindex.settle()
    if taken:
        _LOG.warning("recovered instances=%d receiver=%s", taken, name)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pacs.app.worker")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--owner", default=f"{os.uname().nodename}:{os.getpid()}")
    parser.add_argument("--queues", type=_names, default=())
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())


def _end_with(control: int, parent: int, stopping: threading.Event) -> None:
    def wait() -> None:
        os.read(control, 1)  # nobody writes: this returns when the server has gone
        stopping.set()

    threading.Thread(target=wait, name="pacs-parent", daemon=True).start()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was asked
        stopping.set()


def kinds_of(archive: Archive) -> dict[str, JobKind]:
    """Every kind of job that an extension of this process handles."""
    return {
        kind: how for attached in archive.extensions.values() for kind, how in attached.jobs.items()
    }


def schedules_of(archive: Archive) -> list[Schedule]:
    """Every schedule that an extension of this process asks for."""
    return [one for attached in archive.extensions.values() for one in attached.schedules]


def schedules_now_of(archive: Archive) -> list[Schedule]:
    """Every schedule that an extension of this process asks for at this moment."""
    return [one for attached in archive.extensions.values() for one in attached.schedules_now()]


def work(archive: Archive, owner: str, queues: Sequence[str], stopping: threading.Event) -> None:
    """Run jobs until ``stopping`` is set; then finish the one at hand, or give it back and exit."""
    settings, kinds = archive.settings.jobs, kinds_of(archive)
    keeper = Keeper(
        archive.job_table,
        Scheduler(
            archive.job_table,
            schedules_of(archive),
            settings.time_zone,
            schedules_now=lambda: schedules_now_of(archive),
        ),
        settings,
        owner=owner,
        # The handler runs on and cannot be stopped: nothing of it is committed without the lease.
        give_up=lambda: os._exit(0),
    )
    worker = Worker(
        archive.job_table,
        kinds,
        settings,
        keeper=keeper,
        queues=queues,
        wake=archive.wake,
    )
    keeper.start()
    threading.Thread(
        target=_drain_when, args=(stopping, keeper), name="pacs-drain", daemon=True
    ).start()
    with ExitStack() as stack:
        stack.callback(keeper.stop)
        if settings.broker:
            heard = {base_of(one) for one in queues} or bases(kinds)
            listener = Listener(settings.broker, heard, lambda: worker.work(stopping))
            listener.start()
            stack.callback(_silence, listener, settings)
        while not stopping.is_set():
            worker.work(stopping)
            stopping.wait(settings.sweep_s if settings.broker else settings.poll_s)


def _drain_when(stopping: threading.Event, keeper: Keeper) -> None:
    stopping.wait()
    keeper.drain()


def _silence(listener: Listener, settings: Jobs) -> None:
    """Stop listening; Dramatiq's thread may be running a job, which the keeper bounds."""
    listener.stop(settings.drain_timeout_s + _LISTENER_STOP_S)


if __name__ == "__main__":
    sys.exit(main())
